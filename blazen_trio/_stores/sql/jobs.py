"""What the writer is given to do: each job is written whole or not at all, and tells its waiter how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import sqlalchemy as sa

from blazen_trio._state.status import RunStatus
from blazen_trio._stores import arguments
from blazen_trio._stores.protocol import Mail, StoredRun
from blazen_trio._stores.sql import polling, queries
from blazen_trio._stores.sql.faults import translate
from blazen_trio._stores.sql.ownership import NEVER
from blazen_trio._stores.sql.queries import micros
from blazen_trio._stores.sql.schema import (
    STATUS_CODES,
    STATUS_OF_CODE,
    blob,
    history,
    inbox,
    inbox_key,
    journal,
    runs,
    snapshot,
)
from blazen_trio._stores.sql.troubles import is_duplicate
from blazen_trio.errors import StoreError, WorkflowError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blazen_trio._stores.protocol import Commit, NewRun
    from blazen_trio._stores.sql.transaction import Transaction

__all__ = ["Append", "Claim", "Create", "Delete", "Driven", "GiveBack", "Job", "Post", "Purge", "Release", "Take"]

_TABLES = (journal, snapshot, blob, history, inbox, inbox_key, runs)
_PURGED_AT_ONCE = 100  # runs per transaction
_DRIVEN: dict[str, Any] = {"wake": None, "hold": 0}
"""Of a run that is driven: nobody else is to look at it."""


@attrs.define(eq=False)
class Driven:
    """A run that this opening drives.

    Attributes:
        run_id: Its id.
        run_no: Its number in the database.
        lease_id: The lease under which it is driven.
        crashes: How often its driver has died since a step of it was last committed.
        last: The sequence number of the last entry that was stored or handed over to be.
        released: Whether giving it back was handed over: nothing may follow.
        failed: Why something of it could not be written: nothing may follow.
    """

    run_id: str
    run_no: int
    lease_id: int
    last: int | None
    crashes: int = 0
    released: bool = False
    failed: BaseException | None = None

    def check(self) -> None:
        """Refuse to write to it where that would leave a hole.

        Raises:
            StaleRunError: It is not ours any more.
            StoreError: What came before could not be written.
        """
        if isinstance(self.failed, StoreError):
            raise StoreError(
                f"run {self.run_id!r}: an earlier commit could not be stored, so nothing after it is; "
                "resume the run by its id",
                run_id=self.run_id,
            ) from self.failed
        if self.failed is not None:
            raise arguments.not_driven(self.run_id)


class Job:
    """Something to be written.

    Attributes:
        size: About how many bytes it writes.
        alone: Whether it is a transaction of its own.
        repeatable: Whether doing it twice, without a lease, is the same as doing it once.
        owed: Whether the whole lease is given back, as soon as the database answers, where this can't be written.
        result: What its waiter gets.
        error: What its waiter gets instead.
    """

    alone: ClassVar[bool] = False
    repeatable: ClassVar[bool] = False
    owed: ClassVar[bool] = False
    size = 0
    result: Any = None
    error: BaseException | None = None
    run_id: str | None = None

    def prepare(self, transaction: Transaction) -> None:
        """Gather what it will ask for, before any job of the batch is done."""

    def apply(self, transaction: Transaction) -> Any:
        """Do it, in the writer's thread; a `WorkflowError` refuses it before anything of it is written."""
        raise NotImplementedError

    def done(self, driven: dict[str, Driven]) -> None:
        """It is on disk: note what this opening drives now."""

    def failed(self, error: Exception) -> WorkflowError:
        """What to tell its waiter where it could not be written; `error` is the database's."""
        return translate(error, "nothing could be written", self.run_id)


class Append(Job):
    """A commit to a run that we drive."""

    def __init__(self, driven: Driven, commit: Commit) -> None:
        self.driven, self.commit, self.run_id = driven, commit, commit.run_id
        self.size = _size(commit)

    def apply(self, transaction: Transaction) -> None:
        self.driven.check()
        if self.driven.lease_id != transaction.lease_id:
            raise arguments.not_driven(self.driven.run_id)
        transaction.append(self.driven.run_no, self.commit)
        transaction.set_row(self.driven.run_no, self.commit)
        if self.driven.crashes and self.commit.progress:
            transaction.clear_crashes(self.driven.run_no)

    def done(self, driven: dict[str, Driven]) -> None:
        if self.commit.progress:
            self.driven.crashes = 0
        if self.commit.release and driven.get(self.driven.run_id) is self.driven:
            del driven[self.driven.run_id]

    def failed(self, error: Exception) -> WorkflowError:
        # The key of a journal's row is the second fence: another driver has written this entry.
        told: WorkflowError
        if is_duplicate(error):
            told = arguments.not_driven(self.driven.run_id)
            told.__cause__ = error
        else:
            told = translate(error, f"a commit of run {self.run_id!r} was not stored", self.run_id)
        self.driven.failed = told
        return told


class Create(Job):
    """A new run with its first entry."""

    def __init__(self, run: NewRun, first: Commit) -> None:
        self.run, self.first, self.run_id = run, first, first.run_id
        self.last = arguments.following(first, None)
        self.size = _size(first)

    def prepare(self, transaction: Transaction) -> None:
        transaction.look_for(self.first.run_id)

    def apply(self, transaction: Transaction) -> Driven | None:
        run, first = self.run, self.first
        if transaction.find(first.run_id) is not None:
            raise arguments.exists(first.run_id)
        owner = None if first.release else transaction.take_lease()
        status = first.status or RunStatus.RUNNING
        ready = owner is None and status in (RunStatus.QUEUED, RunStatus.RUNNING)
        driven = None if owner is None else Driven(first.run_id, -1, owner, self.last)

        def add_entries(run_no: int) -> None:
            transaction.append(run_no, first)
            if driven is not None:
                driven.run_no = run_no

        transaction.add_run(
            first.run_id,
            run.workflow,
            first.version or run.version,
            STATUS_CODES[status],
            owner,
            micros(run.created),
            micros(run.created if first.status is None else first.at),
            first.error,
            micros(first.at) if ready else None,
            then=add_entries,
        )
        return driven

    def done(self, driven: dict[str, Driven]) -> None:
        if self.result is not None:
            driven[self.first.run_id] = self.result

    def failed(self, error: Exception) -> WorkflowError:
        if is_duplicate(error):
            return arguments.exists(self.first.run_id)
        return translate(error, f"run {self.run_id!r} was not created", self.run_id)


class Claim(Job):
    """Driving a run from now on, unless it has completed."""

    alone = True
    repeatable = True  # without a lease it has found a run that has completed

    def __init__(self, run_id: str, driven: dict[str, Driven]) -> None:
        self.run_id: str = run_id
        self._driven = driven

    def apply(self, transaction: Transaction) -> tuple[StoredRun, Driven | None]:
        row = queries.find_run(transaction.connection, self.run_id)
        if row.status == STATUS_CODES[RunStatus.COMPLETED]:
            return queries.load_runs(transaction.connection, [row])[0], None
        _make_free(transaction, row, self._driven)
        owner = transaction.take_lease()
        free = (runs.c.run_no == row.run_no) & (runs.c.owner.is_(None) | (runs.c.owner == owner))
        claimed = sa.update(runs).where(free).values({**_DRIVEN, "owner": owner, "crashes": 0})
        if transaction.connection.execute(claimed).rowcount != 1:
            raise arguments.in_use(self.run_id, "another process, which was faster")
        stored = queries.load_runs(transaction.connection, [row])[0]
        return stored, Driven(self.run_id, row.run_no, owner, stored.last)

    def done(self, driven: dict[str, Driven]) -> None:
        self.result, drives = self.result
        if drives is not None:
            driven[self.run_id] = drives


class Take(Job):
    """Driving runs that can go on and that nobody alive drives; the dead are declared so first.

    The result is the rows of these runs. Whoever reads all the rest of them does so when everybody else may write again.
    """

    alone = True
    repeatable = True  # without a lease it has found none; who was declared dead is so once

    def __init__(self, workflows: Sequence[str], limit: int, suspects: int | None) -> None:
        self._workflows, self._limit, self._suspects = workflows, limit, suspects

    def apply(self, transaction: Transaction) -> list[tuple[sa.Row[Any], Driven]]:
        for each in polling.dead_leases(transaction.connection, transaction.lease_id):
            transaction.depose(each)
        rows = polling.ready_runs(transaction.connection, self._workflows, self._limit, self._suspects)
        if not rows:
            return []
        owner = transaction.take_lease()
        free = runs.c.run_no.in_([row.run_no for row in rows]) & runs.c.owner.is_(None)
        transaction.connection.execute(sa.update(runs).where(free).values({**_DRIVEN, "owner": owner}))
        return [(row, Driven(row.run_id, row.run_no, owner, None, row.crashes)) for row in rows]

    def done(self, driven: dict[str, Driven]) -> None:
        taken: list[tuple[sa.Row[Any], Driven]] = self.result
        driven.update((each.run_id, each) for _, each in taken)


class Release(Job):
    """Giving a run back."""

    def __init__(self, driven: Driven, wake: float | None, hold: float | None) -> None:
        self.driven, self.run_id = driven, driven.run_id
        self._hold = 0 if hold is None else micros(hold)
        if wake is None:
            self._wake = self._hold or None
        else:
            self._wake = NEVER if wake == float("inf") else max(micros(wake), self._hold)

    def apply(self, transaction: Transaction) -> None:
        transaction.give_back(self.driven.run_no, self.driven.lease_id, self._wake, self._hold)

    def done(self, driven: dict[str, Driven]) -> None:
        if driven.get(self.driven.run_id) is self.driven:
            del driven[self.driven.run_id]


class GiveBack(Job):
    """Giving runs back that were taken and could not be read. Nobody here will think of them again, so it must not fail."""

    owed = True

    def __init__(self, taken: Sequence[Driven]) -> None:
        self._taken = taken

    def apply(self, transaction: Transaction) -> None:
        for each in self._taken:
            transaction.give_back(each.run_no, each.lease_id)

    def done(self, driven: dict[str, Driven]) -> None:
        for each in self._taken:
            if driven.get(each.run_id) is each:
                del driven[each.run_id]


class Post(Job):
    """A row of an inbox."""

    def __init__(self, run_id: str, kind: str, data: bytes, key: str | None) -> None:
        self.run_id: str = run_id
        self.kind, self.data, self.key = kind, bytes(data), key
        self.size = len(data)

    def prepare(self, transaction: Transaction) -> None:
        transaction.look_for(self.run_id)

    def apply(self, transaction: Transaction) -> Mail | None:
        found = transaction.find(self.run_id)
        if found is None:
            raise arguments.not_found(self.run_id)
        run_no, status = found
        if STATUS_OF_CODE[status].ended:
            if self.key is not None and transaction.key_is_used(run_no, self.key):
                return None
            raise arguments.finished(self.run_id, STATUS_OF_CODE[status])
        mail_id = transaction.add_mail(run_no, self.kind, self.key, self.data)
        return None if mail_id is None else Mail(mail_id, self.kind, self.data, self.key)


class Delete(Job):
    """Deleting a run."""

    alone = True

    def __init__(self, run_id: str, driven: dict[str, Driven]) -> None:
        self.run_id: str = run_id
        self._driven = driven

    def apply(self, transaction: Transaction) -> None:
        row = queries.find_run(transaction.connection, self.run_id)
        _make_free(transaction, row, self._driven)
        _delete(transaction, row.run_no)

    def done(self, driven: dict[str, Driven]) -> None:
        driven.pop(self.run_id, None)


class Purge(Job):
    """Deleting some of the runs last updated before an instant; the result is how many, and where to go on."""

    alone = True

    def __init__(self, before: float, statuses: Sequence[RunStatus], after_no: int, driven: dict[str, Driven]) -> None:
        self._before, self._statuses, self._after_no, self._driven = before, statuses, after_no, driven

    def apply(self, transaction: Transaction) -> tuple[int, int | None]:
        old = (
            sa.select(runs)
            .where(
                runs.c.run_no > self._after_no,
                runs.c.updated < micros(self._before),
                runs.c.status.in_([STATUS_CODES[status] for status in self._statuses]),
            )
            .order_by(runs.c.run_no)
            .limit(_PURGED_AT_ONCE)
        )
        rows = transaction.connection.execute(old).all()
        deleted = 0
        for row in rows:
            try:
                _make_free(transaction, row, self._driven)
            except WorkflowError:
                continue  # somebody drives it
            _delete(transaction, row.run_no)
            deleted += 1
        return deleted, rows[-1].run_no if len(rows) == _PURGED_AT_ONCE else None


def _make_free(transaction: Transaction, row: sa.Row[Any], driven: dict[str, Driven]) -> None:
    """Take the run from a holder who is dead.

    Raises:
        RunLockedError: Somebody alive drives it, this opening included.
    """
    if row.owner is None:
        return
    if row.owner == transaction.lease_id:
        ours = driven.get(row.run_id)
        if ours is not None and ours.failed is None:
            raise arguments.in_use(row.run_id, "this process, through this very store")
        return  # What we wrote failed and the run was dropped: it may be taken up again.
    holder = transaction.depose(row.owner)
    if holder is not None:
        raise arguments.in_use(row.run_id, holder)


def _delete(transaction: Transaction, run_no: int) -> None:
    for table in _TABLES:
        transaction.connection.execute(sa.delete(table).where(table.c.run_no == run_no))


def _size(commit: Commit) -> int:
    size = 0
    for _, data in commit.entries:
        size += len(data)
    if commit.blobs:
        size += sum(len(data) for data in commit.blobs.values())
    if commit.snapshot is not None:
        size += len(commit.snapshot.data)
    if commit.history is not None:
        size += len(commit.history[1])
    return size
