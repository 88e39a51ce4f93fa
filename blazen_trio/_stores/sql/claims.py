"""Jobs that take over or delete runs, allowed only if a run has no live driver.

Others may change rows between two of our statements: on servers, each statement sees what is
committed when it starts. Each job therefore acts under a row lock, or by a statement whose
condition repeats what was read, and whose row count is checked.

The order of locks, everywhere: our own lease (the fence), the lease of another that is declared
dead, rows of runs. If a deadlock happens nevertheless, the database ends one of the transactions,
and its batch is written again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from blazen_trio._state.status import RunStatus
from blazen_trio._stores import store_rules
from blazen_trio._stores.sql import polling, queries
from blazen_trio._stores.sql.jobs import Job
from blazen_trio._stores.sql.mailroom import SqlDriver
from blazen_trio._stores.sql.queries import micros
from blazen_trio._stores.sql.schema import (
    STATUS_CODES,
    blob,
    history,
    inbox,
    inbox_key,
    inbox_part,
    journal,
    question,
    runs,
    snapshot,
)
from blazen_trio.errors import RunLockedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blazen_trio._stores.sql.mailroom import Drivers
    from blazen_trio._stores.sql.transaction import BatchTransaction

__all__ = ["Claim", "Delete", "MaybeDeadError", "Purge", "Take", "Taken"]

Taken = tuple["sa.Row[Any]", SqlDriver]
"""A run's row, and its driver from now on."""

_PARTS = (journal, snapshot, blob, history, inbox, inbox_key, inbox_part, question)
_PURGED_AT_ONCE = 100  # runs per transaction
_DRIVEN: dict[str, Any] = {"wake": None, "hold": 0}
"""Columns of a run that is driven: no worker should look at it."""
_LOOKS = 10
"""At most this many reads of a run that others change between our statements."""
_COMPLETED = STATUS_CODES[RunStatus.COMPLETED]


class MaybeDeadError(RunLockedError):
    """The lease of a run's driver has expired, but this opening has not seen that for long enough.

    Attributes:
        seconds: In how many seconds it will have, if nothing changes.
    """

    seconds: float

    @classmethod
    def after(cls, seconds: float, run_id: str, holder: str) -> MaybeDeadError:
        """Make an error for a lease that may be declared dead after this many seconds."""
        made = cls(store_rules.in_use(run_id, holder).args[0], run_id=run_id, owner=holder)
        made.seconds = seconds
        return made


class Claim(Job):
    """Drives a run from now on, unless it has completed.

    The result is the run's row, and its driver unless the run has completed. The rest of the run is
    read after the transaction, when others can write again.
    """

    alone = True
    repeatable = True  # if it took no lease, it has only read a completed run

    def __init__(self, run_id: str, drivers: Drivers) -> None:
        self.run_id: str = run_id
        self._drivers = drivers

    def apply(self, transaction: BatchTransaction) -> tuple[sa.Row[Any], SqlDriver | None]:
        for _ in range(_LOOKS):
            row = queries.find_run(transaction.connection, self.run_id)
            if row.status == _COMPLETED:
                return row, None
            queries.info_of(row)  # raises if the row can't be read: then it is not claimed
            free = _free(transaction, row, self._drivers)
            lease_id = transaction.take_lease()
            claimed = (
                sa.update(runs)
                .where(free, runs.c.status == row.status)
                .values({**_DRIVEN, "owner": lease_id, "crashes": 0})
            )
            # If it has completed, been claimed or been deleted since it was read, read it again.
            if transaction.connection.execute(claimed).rowcount == 1:
                return row, SqlDriver(self.run_id, row.run_no, lease_id, self._drivers.mailroom)
        raise store_rules.in_use(self.run_id, "others, one after the other")

    def done(self, drivers: Drivers) -> None:
        _, driver = self.result
        if driver is not None:
            drivers.begin(driver)


class Take(Job):
    """Drives runs that can resume and have no live driver. Declares dead leases dead first.

    The result is the rows and drivers of these runs. The rest of the runs is read after the
    transaction, when others can write again.
    """

    alone = True
    repeatable = (
        True  # if it took no lease, it found no run; declaring a lease dead twice has no effect
    )

    def __init__(
        self, workflows: Sequence[str], limit: int, suspects: int | None, drivers: Drivers
    ) -> None:
        self._workflows, self._limit, self._suspects = workflows, limit, suspects
        self._drivers = drivers

    def apply(self, transaction: BatchTransaction) -> list[Taken]:
        for each in polling.dead_leases(
            transaction.connection, transaction.lease_id, transaction.sights
        ):
            transaction.depose(each)
        # Locked, so that nothing changes them before they are ours.
        rows = polling.ready_runs(
            transaction.connection, self._workflows, self._limit, self._suspects
        )
        if not rows:
            return []
        lease_id = transaction.take_lease()
        free = runs.c.run_no.in_([row.run_no for row in rows]) & runs.c.owner.is_(None)
        transaction.connection.execute(
            sa.update(runs).where(free).values({**_DRIVEN, "owner": lease_id})
        )
        mailroom = self._drivers.mailroom
        return [
            (
                row,
                SqlDriver(
                    row.run_id, row.run_no, lease_id, mailroom, crashes=queries.crashes_of(row)
                ),
            )
            for row in rows
        ]

    def done(self, drivers: Drivers) -> None:
        taken: list[Taken] = self.result
        for _, driver in taken:
            drivers.begin(driver)


class Delete(Job):
    """Deletes a run."""

    alone = True

    def __init__(self, run_id: str, drivers: Drivers) -> None:
        self.run_id: str = run_id
        self._drivers = drivers

    def apply(self, transaction: BatchTransaction) -> None:
        for _ in range(_LOOKS):
            row = queries.find_run(transaction.connection, self.run_id)
            # If another process has changed it since it was read, read it again.
            if _delete(transaction, row, self._drivers):
                return
        raise store_rules.in_use(self.run_id, "others, one after the other")

    def done(self, drivers: Drivers) -> None:
        # A run that this opening drove until a commit failed.
        driver = drivers.current.get(self.run_id)
        if driver is not None:
            drivers.end(driver)


class Purge(Job):
    """Deletes a page of the runs last updated before an instant.

    The result is how many were deleted, and where the next page starts (`None`: it was the last).
    """

    alone = True

    def __init__(
        self, before: float, statuses: Sequence[RunStatus], after_no: int, drivers: Drivers
    ) -> None:
        self._before, self._statuses, self._after_no, self._drivers = (
            before,
            statuses,
            after_no,
            drivers,
        )
        self._deleted: list[str] = []

    def apply(self, transaction: BatchTransaction) -> tuple[int, int | None]:
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
        self._deleted = []
        for row in rows:
            try:
                if _delete(transaction, row, self._drivers):
                    self._deleted.append(row.run_id)
            except RunLockedError:
                continue  # it has a live driver
        if len(rows) == _PURGED_AT_ONCE:
            return len(self._deleted), rows[-1].run_no
        _drop_mail_of_nobody(transaction.connection)
        return len(self._deleted), None

    def done(self, drivers: Drivers) -> None:
        for run_id in self._deleted:
            driver = drivers.current.get(run_id)
            if driver is not None:
                drivers.end(driver)


def _drop_mail_of_nobody(connection: sa.Connection) -> None:
    """Delete inbox messages that were posted to runs just as these were deleted.

    A sender does not lock the run's row: its driver would have to wait for the sender, and for as
    long as it likes if it posts in a transaction of its own. So a message can arrive just after its
    run was deleted. No run gets that number again, but every poll would have to pass the message.
    """
    for page in polling.mailed_runs(connection):
        # A run was created before its messages. If a message is visible, so is its run, unless it
        # was deleted.
        found = connection.execute(sa.select(runs.c.run_no).where(runs.c.run_no.in_(page)))
        for gone in set(page) - set(found.scalars()):
            for table in (inbox, inbox_part):
                connection.execute(sa.delete(table).where(table.c.run_no == gone))


def _free(
    transaction: BatchTransaction, row: sa.Row[Any], drivers: Drivers
) -> sa.ColumnElement[bool]:
    """Take the run from a dead holder, and return the condition that it still has no driver.

    Raises:
        RunLockedError: A live driver has it, this opening included.
        MaybeDeadError: It is not known yet whether the holder is alive.
    """
    owner = row.owner
    if owner is not None and owner == transaction.lease_id:
        # If a commit or the release of our own driver failed, we no longer drive the run, although
        # its row still has our lease: it may be claimed again.
        if drivers.is_driven(row.run_id):
            raise store_rules.in_use(row.run_id, "this process, through this store")
    elif owner is not None:
        held = transaction.depose(owner)
        if held is not None and held.seconds == float("inf"):
            raise store_rules.in_use(row.run_id, held.holder)
        if held is not None:
            raise MaybeDeadError.after(held.seconds, row.run_id, held.holder)
        owner = None
    return sa.and_(
        runs.c.run_no == row.run_no,
        runs.c.owner.is_(None) if owner is None else runs.c.owner == owner,
    )


def _delete(transaction: BatchTransaction, row: sa.Row[Any], drivers: Drivers) -> bool:
    """Delete a run if its row is still as it was read. Returns whether it was deleted."""
    free = _free(transaction, row, drivers)
    unchanged = (runs.c.status == row.status) & (runs.c.updated == row.updated)
    # The row first: a claim that starts from now on waits for us, and then finds no run.
    if transaction.connection.execute(sa.delete(runs).where(free, unchanged)).rowcount != 1:
        return False
    for table in _PARTS:
        transaction.connection.execute(sa.delete(table).where(table.c.run_no == row.run_no))
    return True
