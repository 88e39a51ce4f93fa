"""A store that keeps everything in this process's memory: for tests, and for pausing within one process."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import TYPE_CHECKING

import attrs
import trio

from blazen_trio._state.status import RunStatus
from blazen_trio._stores import arguments
from blazen_trio._stores.base import StoreQueries
from blazen_trio._stores.protocol import Mail, RunInfo, StoredRun

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from blazen_trio._stores.protocol import Commit, NewRun

__all__ = ["MemoryStore"]


@attrs.define(eq=False)
class _Kept:
    """All that is kept of one run."""

    info: RunInfo
    created: float
    updated: float
    driven: bool = False
    last: int | None = None
    snapshot: tuple[int, bytes] | None = None
    entries: dict[int, bytes] = attrs.field(factory=dict)
    blobs: dict[str, bytes] = attrs.field(factory=dict)
    history: dict[int, bytes] = attrs.field(factory=dict)
    inbox: dict[int, Mail] = attrs.field(factory=dict)
    keys: set[str] = attrs.field(factory=set)

    def stored(self) -> StoredRun:
        """A copy, as of now."""
        return StoredRun(
            info=self.info,
            snapshot=self.snapshot,
            entries=tuple(self.entries.items()),
            blobs=dict(self.blobs),
            history=tuple(self.history.values()),
            inbox=tuple(self.inbox.values()),
        )


class MemoryStore(StoreQueries):
    """Runs kept in memory, as bytes, for as long as this object lives.

    It uses no threads, so Trio's `MockClock` can jump beside it, and it may be used with or without `async with`.
    Everything is stored when a method returns, and each of its methods is a checkpoint.
    """

    def __init__(self) -> None:
        self._runs: dict[str, _Kept] = {}
        self._mail_ids = itertools.count(1)

    async def __aenter__(self) -> MemoryStore:
        """Nothing to open: the store itself."""
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give all runs back; what is stored stays."""
        for kept in self._runs.values():
            kept.driven = False

    async def create(self, run: NewRun, first: Commit) -> None:
        """See `CheckpointStore.create`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if first.run_id in self._runs:
            raise arguments.exists(first.run_id)
        arguments.following(first, None)
        created = dt.datetime.fromtimestamp(run.created, dt.UTC)
        info = RunInfo(first.run_id, run.workflow, run.version, RunStatus.RUNNING, created, created)
        kept = _Kept(info, run.created, run.created, driven=True)
        _append(kept, first)
        self._runs[first.run_id] = kept
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def claim(self, run_id: str) -> StoredRun:
        """See `CheckpointStore.claim`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        kept = self._find(run_id)
        if kept.driven:
            raise arguments.in_use(run_id, "this process")
        kept.driven = kept.info.status is not RunStatus.COMPLETED
        await trio.lowlevel.cancel_shielded_checkpoint()
        return kept.stored()

    async def commit(self, commit: Commit) -> None:
        """See `CheckpointStore.commit`."""
        kept = self._runs.get(commit.run_id)
        if kept is None or not kept.driven:
            raise arguments.not_driven(commit.run_id)
        arguments.following(commit, kept.last)
        _append(kept, commit)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def release(self, run_id: str) -> None:
        """See `CheckpointStore.release`."""
        kept = self._runs.get(run_id)
        if kept is not None:
            kept.driven = False
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def post(self, run_id: str, kind: str, data: bytes, *, key: str | None = None) -> Mail | None:
        """See `CheckpointStore.post`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        kept = self._find(run_id)
        mail = None
        if key is None or key not in kept.keys:
            mail = Mail(next(self._mail_ids), kind, bytes(data), key)
            kept.inbox[mail.id] = mail
            if key is not None:
                kept.keys.add(key)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return mail

    async def load(self, run_id: str) -> StoredRun:
        """See `CheckpointStore.load`."""
        await trio.lowlevel.checkpoint()
        return self._find(run_id).stored()

    async def list_runs(
        self,
        *,
        status: RunStatus | str | None = None,
        workflow: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[RunInfo]:
        """See `CheckpointStore.list_runs`."""
        arguments.check_limit(limit)
        wanted = None if status is None else arguments.parse_status(status)
        await trio.lowlevel.checkpoint()
        # `sorted` is stable: runs created at the same moment come in the order in which they were stored.
        runs = sorted(self._runs.values(), key=lambda kept: kept.created)
        if after is not None:
            runs = runs[runs.index(self._find(after)) + 1 :]
        found = (
            kept.info
            for kept in runs
            if (wanted is None or kept.info.status is wanted) and (workflow is None or kept.info.workflow == workflow)
        )
        return list(itertools.islice(found, limit))

    async def get_run(self, run_id: str) -> RunInfo:
        """See `CheckpointStore.get_run`."""
        await trio.lowlevel.checkpoint()
        return self._find(run_id).info

    async def delete_run(self, run_id: str) -> None:
        """See `CheckpointStore.delete_run`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._find(run_id).driven:
            raise arguments.in_use(run_id, "this process")
        del self._runs[run_id]
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def purge(
        self, *, older_than: dt.timedelta | dt.datetime, status: Sequence[RunStatus | str] | None = None
    ) -> int:
        """See `CheckpointStore.purge`."""
        before, statuses = arguments.cutoff(older_than), arguments.parse_statuses(status)
        await trio.lowlevel.checkpoint_if_cancelled()
        old = [
            run_id
            for run_id, kept in self._runs.items()
            if kept.updated < before and kept.info.status in statuses and not kept.driven
        ]
        for run_id in old:
            del self._runs[run_id]
        await trio.lowlevel.cancel_shielded_checkpoint()
        return len(old)

    def _find(self, run_id: str) -> _Kept:
        kept = self._runs.get(run_id)
        if kept is None:
            raise arguments.not_found(run_id)
        return kept


def _append(kept: _Kept, commit: Commit) -> None:
    """Apply a commit that was checked."""
    kept.last = arguments.following(commit, kept.last)
    # Copies of just their size: a serialiser's own bytes may hold on to the buffer that they were written in.
    kept.entries.update((seq, memoryview(data).tobytes()) for seq, data in commit.entries)
    kept.blobs.update((digest, bytes(data)) for digest, data in commit.blobs.items())
    if commit.snapshot is not None:
        kept.snapshot = (commit.snapshot.seq, bytes(commit.snapshot.data))
        # A journal is folded in order, so what the snapshot replaces are its first entries.
        folded = commit.snapshot.seq
        for seq in list(itertools.takewhile(lambda seq: seq <= folded, kept.entries)):
            del kept.entries[seq]
        needed = commit.snapshot.keep | commit.blobs.keys()
        kept.blobs = {digest: data for digest, data in kept.blobs.items() if digest in needed}
    if commit.history is not None:
        kept.history[commit.history[0]] = memoryview(commit.history[1]).tobytes()
    for mail_id in commit.taken:
        kept.inbox.pop(mail_id, None)
    if commit.status is not None:
        kept.updated = commit.at
        kept.info = attrs.evolve(
            kept.info,
            status=commit.status,
            error=commit.error,
            updated=dt.datetime.fromtimestamp(commit.at, dt.UTC),
        )
    if commit.version is not None:
        kept.info = attrs.evolve(kept.info, version=commit.version)
    if commit.release:
        kept.driven = False
