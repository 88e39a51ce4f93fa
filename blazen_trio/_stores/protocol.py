"""What a checkpoint store is to the engine: an append-only journal per run, with snapshots, leases and an inbox.

Stores deal in bytes and know nothing of what they mean; `blazen_trio.testing.check_store` proves one right.

Who may drive a run that nobody drives is told by its row and its inbox alone, so it can't be forgotten: workers `take` a
run that is queued or running, one that waits and whose time has come, and one that waits and has mail. A paused run, and
one that has ended, is driven only by who claims it by its id.
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
    from blazen_trio._state.entry import HistoryRecord
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
"""Crashes of its drivers, without a step committed in between, from which on a run is suspected of causing them."""


@attrs.frozen
class RunInfo:
    """A stored run, in a line.

    Attributes:
        run_id: Its id.
        workflow: The workflow's name.
        version: The workflow's version that started or last resumed it.
        status: Where it stands.
        created: When it was stored first, UTC.
        updated: When its status was written last, UTC.
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
    """What a run's row is made of. Times are UTC, seconds since the epoch."""

    workflow: str
    version: str
    created: float


@attrs.frozen
class SnapshotRow:
    """A folded journal: replaces all entries up to and with `seq`, and all earlier snapshots.

    Attributes:
        seq: The last entry that it holds.
        data: The snapshot.
        keep: The digests of the blobs still referred to; all others of the run are dropped.
    """

    seq: int
    data: bytes
    keep: frozenset[str]


@attrs.define(eq=False)
class Commit:
    """One append to one run, stored whole or not at all. Not changed any more once it was given to a store.

    Attributes:
        run_id: The run.
        entries: (seq, bytes) of the journal entries, in order, without a gap to what is stored.
        blobs: Large values that the entries or the snapshot refer to, by digest; some may be stored already.
        snapshot: A snapshot to be stored with the entries, or `None`.
        history: (sequence of its first record, bytes) to be added to the run's history, or `None`.
        taken: Ids of the inbox rows that the entries took.
        status: The run's new status, or `None` where it stays.
        error: Why it failed, with the status.
        version: The workflow's version, where it changed.
        at: UTC, seconds since the epoch.
        release: Whether the run is given back: nobody drives it then.
        progress: Whether a step is committed: the run does not crash its drivers without getting any further.
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


@attrs.frozen
class StoredRun:
    """All that is stored of a run.

    Attributes:
        info: Its row.
        snapshot: The newest snapshot's (seq, bytes), or `None`.
        entries: (seq, bytes) of the journal after it, without a gap.
        blobs: The large values that they refer to, by digest.
        history: The bytes given as `Commit.history`, in order.
        inbox: What nobody has taken yet, in order of its ids. Of what was claimed or taken, a first part that is bounded; its driver
            is given the rest.
        crashes: How often its driver has died, or failed, since a step of it was last committed.
        driver: Drives it from now on; `None` where it was only read, or has completed.
        fault: Why what is stored of it, besides its row, could not be read; all of that is empty then. Only of runs that were taken.
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

    @property
    def last(self) -> int | None:
        """The sequence number of its last entry; `None`: there is none."""
        if self.entries:
            return self.entries[-1][0]
        return None if self.snapshot is None else self.snapshot[0]


@attrs.frozen
class Poll:
    """What a look at the store has found.

    Attributes:
        ready: Whether `take` would have something to take.
        watched: The line of each watched run that there is.
    """

    ready: bool
    watched: Mapping[str, RunInfo]


class CheckpointStore(Protocol):
    """Where runs are kept. One opening of a store holds one lease, and every run that it drives names that lease.

    Mail and loss: while a driver listens (`Driver.listen`), the store gives it the rows of its run's inbox, each once, within a
    second of their post; whether or not anybody calls `poll`. A driver that loses its run is told at once (`Driver.lose`): when its
    lease is declared dead, when the store notices that, and when a commit by it fails.

    Cancellation: `Cancelled` raised out of `create`, `claim`, `take` or `post` means that nothing was written; once such a call
    has begun to write it can't be cancelled any more. `commit` and `release` can't be cancelled at all (not even by a
    cancellation that is pending when they are called): what they are given has been decided already. Faults that are likely to pass are
    retried within bounds; what remains is a `StoreError`, and then nothing is known of what was to be written.
    """

    def clock(self) -> Utc:
        """Return the clock that this store compares instants with, as closely as it knows it."""
        ...

    async def create(self, run: NewRun, first: Commit, *, connection: Any = None) -> Driver | None:
        """Commit a new run with its first entry. Return its driver; `None` where `first.release` leaves it to others.

        Args:
            run: What is known of it for good.
            first: Its first commit.
            connection: A `sqlalchemy.Connection` to the same database, in a transaction of its owner's, with which the run
                comes to be, or not; only for a run that is not driven. Stores without SQL refuse it (`TypeError`).

        Raises:
            RunExistsError: There is a run of this id.
        """
        ...

    async def claim(self, run_id: str) -> StoredRun:
        """Drive a run from now on, and read all of it. A completed run is read and not claimed.

        Takes over from an opening that is known to be dead: that declares the whole of its lease dead. Where a lease has expired
        and this opening has not seen it unchanged for a lease's time yet, this waits for that, cancellable; so after an outage of
        the database nobody alive is deposed. The run's crashes are forgotten: somebody wants this very run to go on.

        Raises:
            RunNotFoundError: There is none.
            RunLockedError: Somebody alive drives it, this opening included.
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
        """Drive up to `limit` runs that nobody alive drives and that can go on, and read them.

        Those whose drivers are dead are among them: the dead are found first, and each run that was running there has one
        crash more. The runs come in the order in which they became ready, no workflow before all others.

        Args:
            workflows: Only runs of these.
            limit: At most so many.
            suspects: At most so many that have crashed their drivers twice or more; `None`: no bound.
            patient: Whether to wait first, cancellable, until it is known of each expired lease whether its holder lives.
        """
        ...

    async def poll(self, workflows: Sequence[str], watched: Collection[str] = ()) -> Poll:
        """Look, without writing anything, at all that a process needs to know of the runs that others act on.

        What was posted before this began, to drivers that listen, has been delivered when it returns:
        of a long inbox its beginning; the rest follows.
        """
        ...

    async def commit(self, driver: Driver, commit: Commit) -> None:
        """Append to the run of this driver; on disk when it returns.

        What is given first is stored first: the calls for one run are stored in the order in which they were made,
        each before its first suspension, and once one has failed, for whatever reason, all later ones by that driver fail. A row of the inbox is taken by
        one commit only: one that finds a row of its `taken` gone is refused whole.

        Raises:
            StaleRunError: This does not drive the run (any more), or its mail was taken by somebody else; nothing was written.
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
        """Give the run back: nobody drives it then. Nothing happens where this does not drive it any more.

        Where this fails, the store owes it: it goes on trying for as long as it is open. A driver whose commit failed is given back
        like any other.

        Args:
            driver: Drives the run.
            wake: When a worker is to look at it, if it waits: UTC, seconds since the epoch; infinity where only mail wakes it. By
                default at once, which is right for whoever can't tell what it waits for: a look too early is only a look.
            hold: Nobody is to `take` it before that, whatever comes in; UTC, seconds since the epoch.
            crash: What this driver failed with. It counts as one crash more, and stays the run's `error` until a step of it is
                committed, or the run ends. Any text: what a database can't store is escaped, and a long one cut.
            reason: Why this driver can't drive the run, though others may. It counts as no crash, and is the run's `error` until
                somebody commits a status. Not given with `crash`.
        """
        ...

    async def set_aside(self, driver: Driver, error: str) -> None:
        """Give a run back that can't even be read: its row says that it has failed, and why. Its journal stays as it is.

        It fails as `release` does.
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
        """Commit a row to the run's inbox, whoever drives it. Return it; `None`: a row with this key was posted before.

        Where this opening drives the run, its driver has been given the row when this returns (but with `connection`).

        Args:
            run_id: The run.
            kind: See `Mail`.
            data: What is posted.
            key: Names it among all that was ever posted to the run.
            second_key: Names it so as well. Given only with a `key`, which is looked at first.
            connection: As in `create`.

        Raises:
            KeyUsedError: A row with `second_key` was posted before, and none with `key`; that stays unused.
            RunNotFoundError: There is no such run.
            RunFinishedError: It has ended, and nothing with this key was posted before.
        """
        ...

    async def has_key(self, run_id: str, key: str, *, connection: Any = None) -> bool:
        """Return whether something with this key was ever posted to a run.

        Args:
            run_id: The run.
            key: The key.
            connection: As in `create`.

        Raises:
            RunNotFoundError: There is no such run.
        """
        ...

    async def load(self, run_id: str, *, connection: Any = None) -> StoredRun:
        """Read all of a run, whoever drives it, as of one moment.

        Args:
            run_id: The run.
            connection: As in `create`: what that transaction sees is read.

        Raises:
            RunNotFoundError: There is none.
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
        """The stored runs, ordered by when they were created, oldest first.

        Args:
            status: Only those of this status, or of one of these.
            workflow: Only those of this name.
            limit: At most so many.
            after: Only those that come after this run: the last id of the page before.
        """
        ...

    async def get_run(self, run_id: str) -> RunInfo:
        """One run's line.

        Raises:
            RunNotFoundError: There is none.
        """
        ...

    async def load_snapshot(self, run_id: str) -> Snapshot:
        """The run as it is stored now, whoever drives it; needs no workflow.

        Raises:
            RunNotFoundError: There is none.
            SerializationError: What is stored can't be read.
        """
        ...

    async def history(self, run_id: str) -> list[HistoryRecord]:
        """The run's history, oldest first.

        Raises:
            RunNotFoundError: There is none.
        """
        ...

    async def delete_run(self, run_id: str) -> None:
        """Delete all that is stored of a run.

        Raises:
            RunNotFoundError: There is none.
            RunLockedError: Somebody alive drives it.
        """
        ...

    async def purge(
        self,
        *,
        older_than: dt.timedelta | dt.datetime,
        status: Sequence[RunStatus | str] | None = None,
    ) -> int:
        """Delete the runs last updated longer ago than that, and tell how many.

        Args:
            older_than: An age, or an instant (with its time zone).
            status: Only those of these; by default all that have ended. Runs that somebody drives are never deleted.
        """
        ...
