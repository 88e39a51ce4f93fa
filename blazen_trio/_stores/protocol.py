"""The interface of a checkpoint store: a journal per run, snapshots, leases and inboxes.

Stores deal in bytes and know nothing of their meaning. `blazen_trio.testing.check_store` checks
that a store keeps the promises below.

A run's row and its inbox alone determine who may drive a run that has no driver, so no run can be
forgotten. Workers `take` a run that is queued or running, one that waits and whose time has come,
and one that waits and has inbox messages. A paused run, and one that has ended, is driven only by a
caller that claims it by its id.
"""

from __future__ import annotations

import datetime as dt  # noqa: TC003  # attrs resolves it
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from blazen_trio._clock import Utc
    from blazen_trio._codec.snapshot import Snapshot
    from blazen_trio._state.entry import HistoryRecord, Questions
    from blazen_trio._stores.driver import Driver, Mail
    from blazen_trio.errors import WorkflowError

from blazen_trio._state.status import RunStatus  # noqa: TC001

_NO_BLOBS: Mapping[str, bytes] = MappingProxyType({})

__all__ = [
    "SUSPECT",
    "CheckpointStore",
    "Commit",
    "NewRun",
    "Poll",
    "RunInfo",
    "SnapshotRow",
    "StoredRun",
]

SUSPECT = 2
"""From this many crashes on, with no step committed in between, a run is a suspect.

A crash is the death or failure of a driver. A suspect may be the cause of its drivers' crashes.
"""


@attrs.frozen
class RunInfo:
    """One line about a stored run.

    Attributes:
        run_id: Its id.
        workflow: The workflow's name.
        version: The version of the workflow that started or last resumed it.
        status: Its status.
        created: When it was first stored, UTC.
        updated: When its status was last written, UTC.
        error: Why it failed, or `None`.
    """

    run_id: str
    workflow: str
    version: str
    status: RunStatus
    created: dt.datetime
    updated: dt.datetime
    error: str | None = None


@attrs.frozen
class NewRun:
    """The fields of a new run's row. Times are UTC, seconds since the epoch."""

    workflow: str
    version: str
    created: float


@attrs.frozen
class SnapshotRow:
    """A folded journal, which replaces all entries up to and including `seq` and older snapshots.

    Attributes:
        seq: The last entry that it includes.
        data: The snapshot.
        keep: The digests of the blobs that are still referred to; the run's others are deleted.
    """

    seq: int
    data: bytes
    keep: frozenset[str]


@attrs.define(eq=False)
class Commit:
    """One append to one run, stored completely or not at all.

    It must not be changed once it was handed to a store.

    Attributes:
        run_id: The run.
        entries: (seq, bytes) of the journal entries, in order, without a gap after the stored ones.
        blobs: Large values that the entries or the snapshot refer to, by digest; some may already
            be stored.
        snapshot: A snapshot to store with the entries, or `None`.
        history: (sequence of its first record, bytes) to add to the run's history, or `None`.
        taken: Ids of the inbox rows that the entries took.
        status: The run's new status; `None`: unchanged.
        error: Why the run failed; written together with the status.
        version: The workflow's version; `None`: unchanged.
        at: UTC, seconds since the epoch.
        release: Whether the run is released, so that it has no driver.
        progress: Whether a step is committed, which resets the count of crashes.
        questions: The changes to the run's open questions, which a store may keep a list of.
    """

    run_id: str
    entries: list[tuple[int, bytes]] = attrs.field(factory=list)
    blobs: Mapping[str, bytes] = _NO_BLOBS
    snapshot: SnapshotRow | None = None
    history: tuple[int, bytes] | None = None
    taken: Sequence[int] = ()
    status: RunStatus | None = None
    error: str | None = None
    version: str | None = None
    at: float = 0.0
    release: bool = False
    progress: bool = False
    questions: Questions | None = None


@attrs.frozen
class StoredRun:
    """All stored data of a run.

    Attributes:
        info: Its row.
        snapshot: The newest snapshot's (seq, bytes), or `None`.
        entries: (seq, bytes) of the journal after it, without a gap.
        blobs: The large values that they refer to, by digest.
        history: The bytes of each `Commit.history`, in order.
        inbox: The messages that no driver has taken yet, by ascending id. For a run that was
            claimed or taken, a bounded first part; its driver is given the rest.
        crashes: How often a driver of the run has died or failed since one of its steps was last
            committed.
        driver: The driver from now on; `None` if the run was only read, or has completed.
        fault: Why the run's data, apart from its row, could not be read; all of it is empty then.
            Only for runs that were taken.
        listed: Whether the store's list of the run's open questions, if it keeps one, is complete.
    """

    info: RunInfo
    snapshot: tuple[int, bytes] | None
    entries: Sequence[tuple[int, bytes]]
    blobs: Mapping[str, bytes]
    history: Sequence[bytes] = ()
    inbox: Sequence[Mail] = ()
    crashes: int = 0
    driver: Driver | None = attrs.field(default=None, eq=False)
    fault: WorkflowError | None = attrs.field(default=None, eq=False)
    listed: bool = attrs.field(default=True, eq=False)

    @property
    def last(self) -> int | None:
        """The number of its last entry; `None` if it has no entry."""
        if self.entries:
            return self.entries[-1][0]
        return None if self.snapshot is None else self.snapshot[0]


@attrs.frozen
class Poll:
    """The result of polling a store.

    Attributes:
        ready: Whether `take` would find a run.
        watched: The line of each watched run that exists.
    """

    ready: bool
    watched: Mapping[str, RunInfo]


class CheckpointStore(Protocol):
    """The interface of a checkpoint store.

    One opening of a store holds one lease, and every run that it drives names that lease.

    Messages and loss: while a driver listens (`Driver.listen`), the store gives it the rows of its
    run's inbox, each row once, within a second of its post, whether or not anything calls `poll`. A
    driver that loses its run learns it at once (`Driver.lose`): when the store notices that its
    lease was declared dead, and when a commit by it fails.

    Cancellation: if `create`, `claim`, `take` or `post` raises `Cancelled`, nothing was written.
    Once such a call has started to write, it can't be cancelled any more. `commit` and `release`
    can't be cancelled at all, not even by a cancellation that is pending when they are called: what
    they write has already been decided. Faults that are likely to pass are retried within bounds. A
    fault that remains is raised as `StoreError`; whether the data was written is then unknown.
    """

    def clock(self) -> Utc:
        """Return the clock that this store compares instants with, as precisely as it knows it."""
        ...

    async def create(self, run: NewRun, first: Commit, *, connection: Any = None) -> Driver | None:
        """Commit a new run with its first entry, and return its driver.

        Returns `None` if `first.release` leaves the run to others.

        Args:
            run: The fields of its row that don't change.
            first: Its first commit.
            connection: A `sqlalchemy.Connection` to the same database, in a transaction of the
                caller. The run is created when that transaction commits, or not at all. Only for a
                run that is not driven. Stores without SQL refuse it (`TypeError`).

        Raises:
            RunExistsError: A run with this id exists.
        """
        ...

    async def claim(self, run_id: str) -> StoredRun:
        """Drive a run from now on, and read all of it. A completed run is only read.

        If the opening that drives the run is known to be dead, its whole lease is declared dead. If
        the lease has expired but this opening has not yet seen it unchanged for `lease_ttl`, this
        waits until it has; the wait can be cancelled. So no live process is deposed after an outage
        of the database. The run's count of crashes is reset, because a caller asks for this run by
        its id.

        Raises:
            RunNotFoundError: No such run exists.
            RunLockedError: A live driver has it, this opening included.
        """
        ...

    async def take(
        self,
        workflows: Sequence[str],
        limit: int,
        *,
        suspects: int | None = None,
        patient: bool = False,
    ) -> list[StoredRun]:
        """Drive up to `limit` runs that have no live driver and can resume, and read them.

        Dead leases are declared dead first. Their runs are among those that can be taken, and each
        of them that was queued or running counts one more crash. The runs come in the order in
        which they became ready, and no workflow takes precedence over the others.

        Args:
            workflows: Only runs of these workflows.
            limit: At most this many runs.
            suspects: At most this many runs that have crashed their drivers twice or more; `None`:
                no bound.
            patient: Whether to wait first until it is known for each expired lease whether its
                holder is alive. The wait can be cancelled.
        """
        ...

    async def poll(self, workflows: Sequence[str], watched: Collection[str] = ()) -> Poll:
        """Report everything that a process needs to know about runs that others act on.

        Nothing is written.

        Messages that were posted before this call, to drivers that listen, are delivered when it
        returns. Of a long inbox only the first part is; the rest follows.
        """
        ...

    async def commit(self, driver: Driver, commit: Commit) -> None:
        """Append to the run of this driver. The commit is on disk when this returns.

        Calls for one run are stored in the order in which they were made; each takes its place
        before it first suspends. Once one has failed, for whatever reason, all later ones by that
        driver fail. One commit only takes a row of the inbox: a commit that finds a row of its
        `taken` gone is refused completely.

        Raises:
            StaleRunError: This does not drive the run, or another driver took its messages; nothing
                was written.
        """
        ...

    async def release(
        self,
        driver: Driver,
        *,
        wake: float | None = None,
        hold: float | None = None,
        crash: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Release the run, so that it has no driver. No effect if this no longer drives it.

        If this fails, the store keeps trying for as long as it is open. A driver whose commit
        failed is released like any other.

        Args:
            driver: The run's driver.
            wake: When a worker should look at the run, if it waits: UTC, seconds since the epoch;
                infinity if only an inbox message wakes it. By default at once, which is right for a
                caller that does not know what the run waits for: polling too early does no harm.
            hold: No worker may `take` it before this time, whatever arrives; UTC, seconds since the
                epoch.
            crash: The error that this driver failed with. It counts as one more crash, and stays
                the run's `error` until a step is committed or the run ends. Any text: parts that a
                database can't store are escaped, and a long text is cut.
            reason: Why this driver can't drive the run, though others may. It does not count as a
                crash, and is the run's `error` until a driver commits a status. Not combined with
                `crash`.
        """
        ...

    async def set_aside(self, driver: Driver, error: str) -> None:
        """Release a run that can't even be read: its row says that it failed, and why.

        Its journal stays as it is. If this fails, the store keeps trying, as with `release`.
        """
        ...

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
        """Commit a message to the run's inbox, no matter which process drives the run, and return
        it.

        Returns `None` if a message with this key was posted before. If this opening drives the run,
        its driver has the message when this returns (except with `connection`).

        Args:
            run_id: The run.
            kind: See `Mail`.
            data: The payload.
            key: Identifies the message among all that were ever posted to the run.
            second_key: Also identifies it. Given only with a `key`, which is checked first.
            connection: As in `create`.

        Raises:
            KeyUsedError: A message with `second_key` was posted before, and none with `key`; `key`
                stays unused.
            RunNotFoundError: No such run exists.
            RunFinishedError: The run has ended, and no message with this key was posted before.
        """
        ...

    async def has_key(self, run_id: str, key: str, *, connection: Any = None) -> bool:
        """Return whether a message with this key was ever posted to a run.

        Args:
            run_id: The run.
            key: The key.
            connection: As in `create`.

        Raises:
            RunNotFoundError: No such run exists.
        """
        ...

    async def load(self, run_id: str, *, connection: Any = None) -> StoredRun:
        """Read all of a run as of one moment, no matter which process drives it.

        Args:
            run_id: The run.
            connection: As in `create`. The run is read as that transaction sees it.

        Raises:
            RunNotFoundError: No such run exists.
        """
        ...

    async def list_runs(
        self,
        *,
        status: RunStatus | str | Sequence[RunStatus | str] | None = None,
        workflow: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[RunInfo]:
        """Return the stored runs, oldest first by the time of creation.

        Args:
            status: Only runs with this status, or with one of these.
            workflow: Only runs of the workflow with this name.
            limit: At most this many runs.
            after: Only runs after this one: the last id of the previous page.
        """
        ...

    async def get_run(self, run_id: str) -> RunInfo:
        """Return one run's line.

        Raises:
            RunNotFoundError: No such run exists.
        """
        ...

    async def load_snapshot(self, run_id: str) -> Snapshot:
        """Return a snapshot of the run as it is stored now. No workflow is needed.

        Works no matter which process drives the run.

        Raises:
            RunNotFoundError: No such run exists.
            SerializationError: The stored data can't be read.
        """
        ...

    async def history(self, run_id: str) -> list[HistoryRecord]:
        """Return the run's history, oldest record first.

        Raises:
            RunNotFoundError: No such run exists.
        """
        ...

    async def delete_run(self, run_id: str) -> None:
        """Delete all stored data of a run.

        Raises:
            RunNotFoundError: No such run exists.
            RunLockedError: A live driver has it.
        """
        ...

    async def purge(
        self,
        *,
        older_than: dt.timedelta | dt.datetime,
        status: Sequence[RunStatus | str] | None = None,
    ) -> int:
        """Delete the runs that were last updated before a point in time, and return their number.

        Args:
            older_than: An age, or an instant (with its time zone).
            status: Only runs with one of these statuses; by default all that have ended. Runs that
                are being driven are never deleted.
        """
        ...
