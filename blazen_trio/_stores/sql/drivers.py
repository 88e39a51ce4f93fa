"""The runs that an opening of the SQL store drives: their tokens, and what is known of each by the
writer's thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from blazen_trio._stores import arguments
from blazen_trio._stores.sql.mailroom import Addressee
from blazen_trio.errors import StoreError

if TYPE_CHECKING:
    from blazen_trio._stores.sql.mailroom import Mailroom
    from blazen_trio.errors import WorkflowError

__all__ = ["Drivers", "Return", "SqlDriver"]


class SqlDriver(Addressee):
    """The token of one driving of a run.

    `failed` and `crashes` are the writer's thread's, all else is the event loop's: what is handed
    over is decided there.

    Attributes:
        lease_id: The lease under which it is driven.
        last: The sequence number of the last entry that was stored or handed over to be.
        crashes: How often its driver has died or failed since a step of it was last committed.
        failed: Why something of it could not be written: nothing may follow.
    """

    __slots__ = ("crashes", "failed", "last", "lease_id")

    def __init__(
        self,
        run_id: str,
        run_no: int,
        lease_id: int,
        mailroom: Mailroom,
        *,
        last: int | None = None,
        crashes: int = 0,
    ) -> None:
        super().__init__(run_id, run_no, mailroom)
        self.lease_id = lease_id
        self.last = last
        self.crashes = crashes
        self.failed: WorkflowError | None = None

    @property
    def goes_on(self) -> bool:
        """Whether nothing of it has failed, in the writer's thread or before it got there."""
        return self.failed is None and self.lost is None

    def check(self) -> None:
        """Refuse to write to it where that would leave a hole.

        Raises:
            StaleRunError: It is not ours any more.
            StoreError: What came before could not be written.
        """
        failure = self.failed or self.lost
        if isinstance(failure, StoreError):
            raise StoreError(
                f"run {self.run_id!r}: an earlier commit could not be stored, so nothing after it "
                "is; resume the run by its id",
                run_id=self.run_id,
            ) from failure
        if failure is not None:
            raise arguments.not_driven(self.run_id) from failure


@attrs.frozen
class Return:
    """How a driver gives its run back; the instants are as they are stored.

    Attributes:
        driver: Drives it, or has failed to.
        wake: When a worker is to look at it, if it waits; see `ownership.wake_when_given_back`.
        hold: Nobody is to take it before that.
        crash: What the driver failed with; `None`: it did not.
        reason: Why it can't drive the run, though others may; `None`: there is nothing to tell.
        fault: Why the run is set aside, as one that has failed; `None`: its status stays.
        at: When it is set aside.
    """

    driver: SqlDriver
    wake: int | None = None
    hold: int = 0
    crash: str | None = None
    reason: str | None = None
    fault: str | None = None
    at: int = 0


class Drivers:
    """Which driver each run has that this opening drives. Of the writer's thread, but for
    `mailroom`.

    Attributes:
        current: By run id, those whose lease is ours and who were not given back.
        owed: By run id, how those are given back whose return the database has refused so far.
        mailroom: Where they are given their mail.
    """

    def __init__(self, mailroom: Mailroom) -> None:
        self.current: dict[str, SqlDriver] = {}
        self.owed: dict[str, Return] = {}
        self.mailroom = mailroom

    def begin(self, driver: SqlDriver) -> None:
        """It drives its run from now on; whoever did so here before does not."""
        self.owed.pop(driver.run_id, None)
        self.current[driver.run_id] = driver

    def end(self, driver: SqlDriver) -> None:
        """It drives its run no more."""
        if self.current.get(driver.run_id) is driver:
            del self.current[driver.run_id]
            self.owed.pop(driver.run_id, None)

    def is_current(self, driver: SqlDriver) -> bool:
        """Whether nobody here drives its run after it."""
        return self.current.get(driver.run_id) is driver

    def is_driven(self, run_id: str) -> bool:
        """Whether somebody here goes on with this run: not where a commit has failed, nor where it
        is to be given back.
        """
        driver = self.current.get(run_id)
        return driver is not None and driver.goes_on

    def owe(self, given_back: Return) -> None:
        """Go on trying to give a run back."""
        if self.is_current(given_back.driver):
            self.owed[given_back.driver.run_id] = given_back

    def clear(self) -> list[SqlDriver]:
        """Nobody here drives anything any more. Returns who did."""
        drivers = list(self.current.values())
        self.current.clear()
        self.owed.clear()
        return drivers

    def count(self) -> int:
        """How many runs are driven here."""
        return sum(driver.goes_on for driver in list(self.current.values()))
