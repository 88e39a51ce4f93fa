"""Taking runs over, and deleting them: what is done only if nobody alive drives a run.

Others change rows between two statements of ours: on servers each statement sees what is committed
when it begins. So each of these acts under a row's lock, or by a statement whose condition says
again what was read, and whose count is looked at.

The order of locks, everywhere: our own lease (the fence), the lease of another that is declared
dead, rows of runs. Whoever waits for another all the same is chosen by the database to end the
deadlock, and its batch is written again.
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
    runs,
    snapshot,
)
from blazen_trio.errors import RunLockedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blazen_trio._stores.sql.mailroom import Drivers
    from blazen_trio._stores.sql.transaction import Transaction

__all__ = ["Claim", "Delete", "MaybeDeadError", "Purge", "Take", "Taken"]

Taken = tuple["sa.Row[Any]", SqlDriver]
"""A run's row, and who drives it from now on."""

_PARTS = (journal, snapshot, blob, history, inbox, inbox_key, inbox_part)
_PURGED_AT_ONCE = 100  # runs per transaction
_DRIVEN: dict[str, Any] = {"wake": None, "hold": 0}
"""Of a run that is driven: nobody else is to look at it."""
_LOOKS = 10
"""How often a run is looked at that others change between our statements."""
_COMPLETED = STATUS_CODES[RunStatus.COMPLETED]


class MaybeDeadError(RunLockedError):
    """The lease of whoever drives a run has expired, and this opening has not seen that for long
    enough.

    Attributes:
        seconds: When it will have, if nothing changes.
    """

    seconds: float

    @classmethod
    def after(cls, seconds: float, run_id: str, holder: str) -> MaybeDeadError:
        """Made of these."""
        made = cls(store_rules.in_use(run_id, holder).args[0], run_id=run_id, owner=holder)
        made.seconds = seconds
        return made


class Claim(Job):
    """Driving a run from now on, unless it has completed.

    The result is its row, with its driver unless it has completed. The rest is read when everybody
    else may write again.
    """

    alone = True
    repeatable = True  # without a lease it has found a run that has completed

    def __init__(self, run_id: str, drivers: Drivers) -> None:
        self.run_id: str = run_id
        self._drivers = drivers

    def apply(self, transaction: Transaction) -> tuple[sa.Row[Any], SqlDriver | None]:
        for _ in range(_LOOKS):
            row = queries.find_run(transaction.connection, self.run_id)
            if row.status == _COMPLETED:
                return row, None
            queries.info_of(row)  # what can't be read is not claimed
            free = _free(transaction, row, self._drivers)
            lease_id = transaction.take_lease()
            claimed = (
                sa.update(runs)
                .where(free, runs.c.status == row.status)
                .values({**_DRIVEN, "owner": lease_id, "crashes": 0})
            )
            # Where it has completed, been claimed or been deleted since it was read, it is looked
            # at again.
            if transaction.connection.execute(claimed).rowcount == 1:
                return row, SqlDriver(self.run_id, row.run_no, lease_id, self._drivers.mailroom)
        raise store_rules.in_use(self.run_id, "others, one after the other")

    def done(self, drivers: Drivers) -> None:
        _, driver = self.result
        if driver is not None:
            drivers.begin(driver)


class Take(Job):
    """Driving runs that can go on and that nobody alive drives; the dead are declared so first.

    The result is the rows of these runs. Whoever reads all the rest of them does so when everybody
    else may write again.
    """

    alone = True
    repeatable = True  # without a lease it has found none; who was declared dead is so once

    def __init__(
        self, workflows: Sequence[str], limit: int, suspects: int | None, drivers: Drivers
    ) -> None:
        self._workflows, self._limit, self._suspects = workflows, limit, suspects
        self._drivers = drivers

    def apply(self, transaction: Transaction) -> list[Taken]:
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
    """Deleting a run."""

    alone = True

    def __init__(self, run_id: str, drivers: Drivers) -> None:
        self.run_id: str = run_id
        self._drivers = drivers

    def apply(self, transaction: Transaction) -> None:
        for _ in range(_LOOKS):
            row = queries.find_run(transaction.connection, self.run_id)
            # Where somebody has changed it since it was read, it is looked at again.
            if _delete(transaction, row, self._drivers):
                return
        raise store_rules.in_use(self.run_id, "others, one after the other")

    def done(self, drivers: Drivers) -> None:
        # One of ours whose commit had failed.
        driver = drivers.current.get(self.run_id)
        if driver is not None:
            drivers.end(driver)


class Purge(Job):
    """Deleting some of the runs last updated before an instant; the result is how many, and where
    to go on.
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
        self._deleted = []
        for row in rows:
            try:
                if _delete(transaction, row, self._drivers):
                    self._deleted.append(row.run_id)
            except RunLockedError:
                continue  # somebody drives it
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
    """Delete mail that was posted to runs in the very moment in which they were deleted.

    Who posts does not lock the run's row, as its driver would wait for them, and for as long as they
    please where they post in a transaction of their own. So a row can get in behind a deletion. No
    run is given its number again; but each look would pass it.
    """
    for page in polling.mailed_runs(connection):
        # Whose mail is seen was created before, and is seen too, unless it was deleted.
        found = connection.execute(sa.select(runs.c.run_no).where(runs.c.run_no.in_(page)))
        for gone in set(page) - set(found.scalars()):
            for table in (inbox, inbox_part):
                connection.execute(sa.delete(table).where(table.c.run_no == gone))


def _free(transaction: Transaction, row: sa.Row[Any], drivers: Drivers) -> sa.ColumnElement[bool]:
    """Take the run from a holder who is dead. Returns the condition that it is still nobody's.

    Raises:
        RunLockedError: Somebody alive drives it, this opening included.
        MaybeDeadError: It can't be told yet.
    """
    owner = row.owner
    if owner is not None and owner == transaction.lease_id:
        # What we wrote failed, or giving it back did, and the run was dropped: it may be taken up
        # again.
        if drivers.is_driven(row.run_id):
            raise store_rules.in_use(row.run_id, "this process, through this very store")
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


def _delete(transaction: Transaction, row: sa.Row[Any], drivers: Drivers) -> bool:
    """Delete a run, unless its row is not any more what was read; whether it was deleted."""
    free = _free(transaction, row, drivers)
    unchanged = (runs.c.status == row.status) & (runs.c.updated == row.updated)
    # The row first: whoever claims the run from now on waits for us, and then finds none.
    if transaction.connection.execute(sa.delete(runs).where(free, unchanged)).rowcount != 1:
        return False
    for table in _PARTS:
        transaction.connection.execute(sa.delete(table).where(table.c.run_no == row.run_no))
    return True
