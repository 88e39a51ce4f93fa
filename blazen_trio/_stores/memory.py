"""A store that keeps everything in this process's memory: for tests, and for pausing within one process."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import TYPE_CHECKING, Any

import attrs
import trio

from blazen_trio._clock import wall_clock
from blazen_trio._state.status import RunStatus
from blazen_trio._stores import arguments
from blazen_trio._stores.base import StoreQueries
from blazen_trio._stores.protocol import SUSPECT, Mail, Poll, RunInfo, StoredRun

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from types import TracebackType

    from blazen_trio._stores.protocol import Commit, NewRun

__all__ = ["MemoryStore"]


_RUNNABLE = (RunStatus.QUEUED, RunStatus.RUNNING)
_TAKEN_BY_WORKERS = (*_RUNNABLE, RunStatus.WAITING)


@attrs.define(eq=False)
class _Lease:
    """What an opening holds while it drives runs.

    Attributes:
        expired: Whether somebody else may declare it dead.
        dead: Whether somebody has.
    """

    expired: bool = False
    dead: bool = False


@attrs.define(eq=False)
class _Kept:
    """All that is kept of one run. `wake` and `hold`: UTC, seconds since the epoch."""

    info: RunInfo
    created: float
    updated: float
    owner: _Lease | None = None
    wake: float | None = None
    hold: float = 0.0
    crashes: int = 0
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
            crashes=self.crashes,
        )

    def drive(self, owner: _Lease) -> None:
        """This lease drives it from now on."""
        self.owner, self.wake, self.hold = owner, None, 0.0

    def give_back(self, wake: float | None = None, hold: float = 0.0) -> None:
        """Nobody drives it any more."""
        self.owner, self.hold = None, hold
        at_once = wake is None or (wake == float("inf") and self.info.status in _RUNNABLE)
        looked_at = wall_clock().now() if at_once else wake
        never = looked_at == float("inf") or self.info.status not in _TAKEN_BY_WORKERS
        self.wake = None if never else looked_at

    def orphan(self, *, crashed: bool) -> None:
        """Its driver is gone."""
        if crashed and self.info.status in _RUNNABLE:
            self.crashes += 1
        self.give_back()

    def can_go_on(self, now: float) -> bool:
        """Whether a worker may take it, if nobody alive drives it."""
        mailed = bool(self.inbox) and self.hold <= now and self.info.status in _TAKEN_BY_WORKERS
        return mailed or (self.wake is not None and self.wake <= now)


@attrs.define(eq=False)
class _Storage:
    """What all openings of one store share."""

    runs: dict[str, _Kept] = attrs.field(factory=dict)
    mail_ids: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))

    def depose(self, by: _Lease) -> None:
        """Declare the others' expired leases dead, and orphan their runs."""
        for kept in self.runs.values():
            if _is_dead(kept, by):
                assert kept.owner is not None
                kept.owner.dead = True
                kept.orphan(crashed=True)


def _is_dead(kept: _Kept, seen_by: _Lease) -> bool:
    """Whether the run's driver may be declared dead by the holder of this lease."""
    return kept.owner is not None and kept.owner is not seen_by and kept.owner.expired


class MemoryStore(StoreQueries):
    """Runs kept in memory, as bytes, for as long as this object lives.

    It uses no threads, so Trio's `MockClock` can jump beside it, and it may be used with or without `async with`.
    Everything is stored when a method returns, and each of its methods is a checkpoint.
    """

    def __init__(self) -> None:
        self._storage = _Storage()
        self._lease = _Lease()

    @property
    def _runs(self) -> dict[str, _Kept]:
        return self._storage.runs

    def beside(self) -> MemoryStore:
        """Another opening of what this one keeps, as another process would have: it drives runs of its own."""
        other = MemoryStore()
        other._storage = self._storage
        return other

    def expire(self) -> None:
        """Let the others find this opening silent for longer than its lease, as after a crash: whoever takes its runs over has
        them, and what this one writes to them raises `StaleRunError` then. If it writes before anybody does, it lives.
        """
        self._lease.expired = True

    async def __aenter__(self) -> MemoryStore:
        """Nothing to open: the store itself."""
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the runs that this opening drives back; what is stored stays."""
        for kept in self._runs.values():
            if kept.owner is self._lease:
                kept.orphan(crashed=False)

    async def create(self, run: NewRun, first: Commit, *, connection: Any = None) -> None:
        """See `CheckpointStore.create`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        _refuse(connection)
        if first.run_id in self._runs:
            raise arguments.exists(first.run_id)
        arguments.following(first, None)
        created = dt.datetime.fromtimestamp(run.created, dt.UTC)
        info = RunInfo(first.run_id, run.workflow, run.version, RunStatus.RUNNING, created, created)
        kept = _Kept(info, run.created, run.created, owner=self._own_lease())
        _append(kept, first)
        self._runs[first.run_id] = kept
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def claim(self, run_id: str) -> StoredRun:
        """See `CheckpointStore.claim`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        kept = self._find(run_id)
        self._make_free(kept)
        if kept.info.status is not RunStatus.COMPLETED:
            kept.drive(self._own_lease())
            kept.crashes = 0
        stored = kept.stored()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return stored

    async def take(self, workflows: Sequence[str], limit: int, *, suspects: int | None = None) -> list[StoredRun]:
        """See `CheckpointStore.take`."""
        arguments.check_limit(limit)
        await trio.lowlevel.checkpoint_if_cancelled()
        self._storage.depose(self._lease)
        ready = sorted(self._ready(workflows), key=lambda kept: kept.wake or 0.0)
        taken: list[StoredRun] = []
        for kept in ready:
            if len(taken) == limit:
                break
            if kept.crashes >= SUSPECT and suspects is not None:
                if suspects == 0:
                    continue
                suspects -= 1
            kept.drive(self._own_lease())
            taken.append(kept.stored())
        await trio.lowlevel.cancel_shielded_checkpoint()
        return taken

    async def poll(self, workflows: Sequence[str], watched: Collection[str] = ()) -> Poll:
        """See `CheckpointStore.poll`."""
        await trio.lowlevel.checkpoint()
        dead = any(_is_dead(kept, self._lease) for kept in self._runs.values())
        ready = bool(workflows) and (dead or next(iter(self._ready(workflows)), None) is not None)
        mail = {
            run_id: tuple(kept.inbox.values())
            for run_id, kept in self._runs.items()
            if kept.owner is self._lease and kept.inbox
        }
        found = {run_id: self._runs[run_id].info for run_id in watched if run_id in self._runs}
        return Poll(ready, mail, found)

    async def commit(self, commit: Commit) -> None:
        """See `CheckpointStore.commit`."""
        kept = self._runs.get(commit.run_id)
        if kept is None or kept.owner is not self._own_lease():
            raise arguments.not_driven(commit.run_id)
        arguments.following(commit, kept.last)
        _append(kept, commit)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def release(self, run_id: str, *, wake: float | None = None, hold: float | None = None) -> None:
        """See `CheckpointStore.release`."""
        kept = self._runs.get(run_id)
        if kept is not None and kept.owner is self._lease:
            if hold is not None:
                wake = max(wake or hold, hold)
            kept.give_back(wake, hold or 0.0)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def post(
        self, run_id: str, kind: str, data: bytes, *, key: str | None = None, connection: Any = None
    ) -> Mail | None:
        """See `CheckpointStore.post`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        _refuse(connection)
        kept = self._find(run_id)
        used = key is not None and key in kept.keys
        if kept.info.status.ended and not used:
            raise arguments.finished(run_id, kept.info.status)
        mail = None
        if not used:
            mail = Mail(next(self._storage.mail_ids), kind, bytes(data), key)
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
        status: RunStatus | str | Sequence[RunStatus | str] | None = None,
        workflow: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[RunInfo]:
        """See `CheckpointStore.list_runs`."""
        arguments.check_limit(limit)
        wanted = arguments.parse_statuses(status, arguments.ALL)
        await trio.lowlevel.checkpoint()
        # `sorted` is stable: runs created at the same moment come in the order in which they were stored.
        runs = sorted(self._runs.values(), key=lambda kept: kept.created)
        if after is not None:
            runs = runs[runs.index(self._find(after)) + 1 :]
        found = (
            kept.info
            for kept in runs
            if kept.info.status in wanted and (workflow is None or kept.info.workflow == workflow)
        )
        return list(itertools.islice(found, limit))

    async def get_run(self, run_id: str) -> RunInfo:
        """See `CheckpointStore.get_run`."""
        await trio.lowlevel.checkpoint()
        return self._find(run_id).info

    async def delete_run(self, run_id: str) -> None:
        """See `CheckpointStore.delete_run`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._make_free(self._find(run_id))
        del self._runs[run_id]
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def purge(
        self, *, older_than: dt.timedelta | dt.datetime, status: Sequence[RunStatus | str] | None = None
    ) -> int:
        """See `CheckpointStore.purge`."""
        before, statuses = arguments.cutoff(older_than), arguments.parse_statuses(status, arguments.ENDED)
        await trio.lowlevel.checkpoint_if_cancelled()
        old = [
            run_id
            for run_id, kept in self._runs.items()
            if kept.updated < before
            and kept.info.status in statuses
            and (kept.owner is None or _is_dead(kept, self._lease))
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

    def _own_lease(self) -> _Lease:
        """Our lease, renewed; a new one where others have declared the last one dead."""
        if self._lease.dead:
            self._lease = _Lease()
        self._lease.expired = False
        return self._lease

    def _make_free(self, kept: _Kept) -> None:
        """Take the run from a holder who is dead.

        Raises:
            RunLockedError: Somebody alive drives it, this opening included.
        """
        if _is_dead(kept, self._lease):
            self._storage.depose(self._lease)
        if kept.owner is not None:
            ours = kept.owner is self._lease
            raise arguments.in_use(
                kept.info.run_id, "this process, through this very store" if ours else "this process"
            )

    def _ready(self, workflows: Sequence[str]) -> Iterable[_Kept]:
        now = wall_clock().now()
        return (
            kept
            for kept in self._runs.values()
            if kept.owner is None and kept.info.workflow in workflows and kept.can_go_on(now)
        )


def _refuse(connection: object) -> None:
    if connection is not None:
        msg = "connection= is for stores in a database: a MemoryStore has no transactions of yours to take part in"
        raise TypeError(msg)


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
    if commit.progress:
        kept.crashes = 0
    if commit.status is RunStatus.COMPLETED:
        # Nobody will ever take what came too late; a run that failed may be tried again.
        kept.inbox.clear()
    if commit.release:
        kept.give_back()
