"""An in-memory store: for tests, and for pausing runs within one process."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import TYPE_CHECKING, Any

import attrs
import trio

from blazen_trio._clock import WallClock, wall_clock
from blazen_trio._state.status import RunStatus
from blazen_trio._stores import store_rules
from blazen_trio._stores.base import StoreQueries
from blazen_trio._stores.driver import Driver, Mail
from blazen_trio._stores.excerpts import AskedRun, RunEnd
from blazen_trio._stores.kept import KeptRun, Lease, MemoryDriver
from blazen_trio._stores.protocol import SUSPECT, Poll, RunInfo, StoredRun
from blazen_trio.errors import WorkflowError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from types import TracebackType

    from blazen_trio._stores.protocol import Commit, NewRun

__all__ = ["MemoryStore"]


@attrs.define(eq=False)
class _Storage:
    """The data that all openings of one store share."""

    runs: dict[str, KeptRun] = attrs.field(factory=dict)
    mail_ids: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))

    def depose(self, by: Lease) -> None:
        """Declare expired leases of other openings dead, and orphan their runs."""
        for kept in self.runs.values():
            if _is_dead(kept, by):
                assert kept.owner is not None
                kept.owner.dead = True
                kept.orphan(crashed=True)


def _is_dead(kept: KeptRun, seen_by: Lease) -> bool:
    """Return whether the holder of this lease may declare the run's driver dead."""
    return kept.owner is not None and kept.owner is not seen_by and kept.owner.expired


class MemoryStore(StoreQueries):
    """Runs kept in memory, as bytes, for as long as this object lives.

    The store uses no threads, so it works with Trio's `MockClock` and its jumps. It may be used
    with or without `async with`. Everything is stored when a method returns, and each of its
    methods is a checkpoint.
    """

    def __init__(self) -> None:
        self._storage = _Storage()
        self._lease = Lease()

    @property
    def _runs(self) -> dict[str, KeptRun]:
        return self._storage.runs

    def beside(self) -> MemoryStore:
        """Return another opening of the same data, like that of another process.

        It drives runs of its own.
        """
        other = MemoryStore()
        other._storage = self._storage
        return other

    def expire(self) -> None:
        """Let this opening's lease expire, as after a crash.

        From now on, another opening may take its runs over. Once one has, writes by this opening
        raise `StaleRunError`. If this opening writes first, that renews the lease.
        """
        self._lease.expired = True

    async def __aenter__(self) -> MemoryStore:
        """Return the store itself: there is nothing to open."""
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release the runs that this opening drives; the stored data stays."""
        for kept in self._runs.values():
            if kept.owner is self._lease:
                kept.orphan(crashed=False)

    def clock(self) -> WallClock:
        """See `CheckpointStore.clock`."""
        return wall_clock()

    async def create(self, run: NewRun, first: Commit, *, connection: Any = None) -> Driver | None:
        """See `CheckpointStore.create`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        _refuse(connection)
        if first.run_id in self._runs:
            raise store_rules.exists(first.run_id)
        store_rules.following(first, None)
        created = dt.datetime.fromtimestamp(run.created, dt.UTC)
        info = RunInfo(first.run_id, run.workflow, run.version, RunStatus.RUNNING, created, created)
        kept = KeptRun(
            info, run.created, run.created, driver=MemoryDriver(first.run_id, self._own_lease())
        )
        kept.append(first)
        self._runs[first.run_id] = kept
        driver = kept.driver
        await trio.lowlevel.cancel_shielded_checkpoint()
        return driver

    async def claim(self, run_id: str) -> StoredRun:
        """See `CheckpointStore.claim`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        kept = self._find(run_id)
        if kept.info.status is RunStatus.COMPLETED:
            stored = kept.stored()
        else:
            self._make_free(kept)
            kept.crashes = 0
            stored = kept.drive(self._own_lease())
        await trio.lowlevel.cancel_shielded_checkpoint()
        return stored

    async def claim_end(self, run_id: str, kinds: Collection[str]) -> RunEnd:
        """See `excerpts.claim_end`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        kept = self._find(run_id)
        driver = None
        if kept.info.status is not RunStatus.COMPLETED:
            self._make_free(kept)
            kept.crashes = 0
            driver = kept.driven_by(self._own_lease())
        records = next(reversed(kept.history), 0) + 1
        requests = {mail.id: mail.kind for mail in kept.inbox.values() if mail.kind in kinds}
        await trio.lowlevel.cancel_shielded_checkpoint()
        return RunEnd(kept.info, kept.last, records, requests, driver)

    async def asked_run(
        self, run_id: str, request_id: str | None = None, *, connection: Any = None
    ) -> AskedRun:
        """See `excerpts.asked_run`."""
        _refuse(connection)
        await trio.lowlevel.checkpoint()
        kept = self._find(run_id)
        asked = {name: question_id for question_id, name in sorted(kept.asked.items())}
        if request_id is None:
            return AskedRun(kept.info, asked, tuple(kept.inbox.values()))
        return AskedRun(kept.info, {name: id_ for name, id_ in asked.items() if name == request_id})

    async def take(
        self,
        workflows: Sequence[str],
        limit: int,
        *,
        suspects: int | None = None,
        patient: bool = False,  # noqa: ARG002  # an opening is known to be dead or alive at once
    ) -> list[StoredRun]:
        """See `CheckpointStore.take`."""
        store_rules.check_limit(limit)
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
            taken.append(kept.drive(self._own_lease()))
        await trio.lowlevel.cancel_shielded_checkpoint()
        return taken

    async def poll(self, workflows: Sequence[str], watched: Collection[str] = ()) -> Poll:
        """See `CheckpointStore.poll`. Messages are delivered by `post`, not here."""
        await trio.lowlevel.checkpoint()
        dead = any(_is_dead(kept, self._lease) for kept in self._runs.values())
        ready = bool(workflows) and (dead or next(iter(self._ready(workflows)), None) is not None)
        found = {run_id: self._runs[run_id].info for run_id in watched if run_id in self._runs}
        return Poll(ready, found)

    async def commit(self, driver: Driver, commit: Commit) -> None:
        """See `CheckpointStore.commit`."""
        kept = self._driven_by(driver)
        if driver.lost is not None and isinstance(driver, MemoryDriver):
            driver.check()
        if kept is None or driver.run_id != commit.run_id:
            raise store_rules.not_driven(commit.run_id)
        try:
            store_rules.following(commit, kept.last)
            if not kept.inbox.keys() >= set(commit.taken) or len(set(commit.taken)) < len(
                commit.taken
            ):
                raise store_rules.mail_gone(commit.run_id)
        except WorkflowError as refusal:
            driver.lose(refusal)
            raise
        self._own_lease()
        kept.append(commit)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def release(
        self,
        driver: Driver,
        *,
        wake: float | None = None,
        hold: float | None = None,
        crash: str | None = None,
        reason: str | None = None,
    ) -> None:
        """See `CheckpointStore.release`."""
        kept = self._driven_by(driver)
        if kept is not None:
            if hold is not None:
                wake = max(wake or hold, hold)
            if crash is not None:
                kept.crashes += 1
            if (told := crash or reason) is not None:
                kept.info = attrs.evolve(kept.info, error=store_rules.storable(told))
            kept.give_back(wake, hold or 0.0)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def set_aside(self, driver: Driver, error: str) -> None:
        """See `CheckpointStore.set_aside`."""
        kept = self._driven_by(driver)
        if kept is not None:
            kept.fail(store_rules.storable(error))
            kept.give_back()
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def post(
        self,
        run_id: str,
        kind: str,
        data: bytes,
        *,
        key: str | None = None,
        second_key: str | None = None,
        connection: Any = None,
    ) -> Mail | None:
        """See `CheckpointStore.post`. The run's driver, of any opening, gets the row at once."""
        await trio.lowlevel.checkpoint_if_cancelled()
        _refuse(connection)
        kept = self._find(run_id)
        used = key is not None and key in kept.keys
        if kept.info.status.ended and not used:
            raise store_rules.finished(run_id, kept.info.status)
        mail = None
        if not used and second_key is not None and second_key in kept.keys:
            raise store_rules.key_used(run_id, second_key)
        if not used:
            mail = Mail(next(self._storage.mail_ids), kind, bytes(data), key)
            kept.inbox[mail.id] = mail
            kept.keys.update(each for each in (key, second_key) if each is not None)
            if kept.driver is not None:
                kept.driver.deliver([mail])
        await trio.lowlevel.cancel_shielded_checkpoint()
        return mail

    async def has_key(self, run_id: str, key: str, *, connection: Any = None) -> bool:
        """See `CheckpointStore.has_key`."""
        _refuse(connection)
        await trio.lowlevel.checkpoint()
        return key in self._find(run_id).keys

    async def load(self, run_id: str, *, connection: Any = None) -> StoredRun:
        """See `CheckpointStore.load`."""
        _refuse(connection)
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
        store_rules.check_limit(limit)
        wanted = store_rules.parse_statuses(status, store_rules.ALL)
        await trio.lowlevel.checkpoint()
        # `sorted` is stable: runs created at the same moment stay in the order of storing.
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
        self,
        *,
        older_than: dt.timedelta | dt.datetime,
        status: Sequence[RunStatus | str] | None = None,
    ) -> int:
        """See `CheckpointStore.purge`."""
        before, statuses = (
            store_rules.cutoff(older_than, self.clock()),
            store_rules.parse_statuses(status, store_rules.ENDED),
        )
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

    def _find(self, run_id: str) -> KeptRun:
        kept = self._runs.get(run_id)
        if kept is None:
            raise store_rules.not_found(run_id)
        return kept

    def _driven_by(self, driver: Driver) -> KeptRun | None:
        """Return the run if this driver drives it through this opening, else `None`."""
        kept = self._runs.get(driver.run_id)
        if kept is None or kept.driver is not driver:
            return None
        if kept.driver.lease is not self._lease or self._lease.dead:
            return None
        return kept

    def _own_lease(self) -> Lease:
        """Return our lease, renewed; a new one if another opening declared it dead."""
        if self._lease.dead:
            self._lease = Lease()
        self._lease.expired = False
        return self._lease

    def _make_free(self, kept: KeptRun) -> None:
        """Take the run from a holder that is dead, or from our own driver if its commit failed.

        Raises:
            RunLockedError: A live driver has it, this opening included.
        """
        if _is_dead(kept, self._lease):
            self._storage.depose(self._lease)
        driver = kept.driver
        if driver is None:
            return
        ours = driver.lease is self._lease
        if not (ours and driver.lost is not None):
            owner = "this process, through this store" if ours else "this process"
            raise store_rules.in_use(kept.info.run_id, owner)

    def _ready(self, workflows: Sequence[str]) -> Iterable[KeptRun]:
        now = wall_clock().now()
        return (
            kept
            for kept in self._runs.values()
            if kept.owner is None and kept.info.workflow in workflows and kept.can_go_on(now)
        )


def _refuse(connection: object) -> None:
    if connection is not None:
        msg = (
            "connection= is for stores in a database: a MemoryStore can't take part in a "
            "database transaction"
        )
        raise TypeError(msg)
