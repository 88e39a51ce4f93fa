"""The runs that an opening of the SQL store drives: their tokens, and what is known of each by the
writer's thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blazen_trio._stores import arguments
from blazen_trio._stores.protocol import Driver
from blazen_trio.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blazen_trio._stores.protocol import DriverListener, Mail
    from blazen_trio._stores.sql.jobs import Release
    from blazen_trio._stores.sql.mailroom import Mailroom
    from blazen_trio.errors import WorkflowError

__all__ = ["Drivers", "SqlDriver"]


class SqlDriver(Driver):
    """The token of one driving of a run.

    `failed` and `crashes` are the writer's thread's, all else is the event loop's: what is handed
    over is decided there.

    Attributes:
        run_no: The run's number in the database.
        lease_id: The lease under which it is driven.
        mailroom: Where it is given its mail; that of the opening whose driver it is.
        last: The sequence number of the last entry that was stored or handed over to be.
        released: Whether giving it back was handed over: nothing may follow.
        given: Ids of the inbox rows that were handed to whoever drives it, and whose deletion is
            not on disk yet.
        more: Whether there may be rows for it that no look has brought yet.
        since: How many looks for mail had begun when its listener came.
        crashes: How often its driver has died or failed since a step of it was last committed.
        failed: Why something of it could not be written: nothing may follow.
    """

    __slots__ = (
        "crashes",
        "failed",
        "given",
        "last",
        "lease_id",
        "mailroom",
        "more",
        "released",
        "run_no",
        "since",
    )

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
        super().__init__(run_id)
        self.run_no = run_no
        self.lease_id = lease_id
        self.last = last
        self.crashes = crashes
        self.released = self.more = False
        self.failed: WorkflowError | None = None
        self.given: set[int] = set()
        self.since = 0
        self.mailroom = mailroom

    @property
    def goes_on(self) -> bool:
        """Whether nothing of it has failed, in the writer's thread or before it got there."""
        return self.failed is None and self.lost is None

    def listen(self, listener: DriverListener | None) -> None:
        """See `Driver.listen`."""
        self.mailroom.leave(self)
        super().listen(listener)
        if listener is not None and not self.released and self.lost is None:
            self.mailroom.enter(self)

    def lose(self, error: WorkflowError) -> None:
        """See `Driver.lose`."""
        self.mailroom.leave(self)
        super().lose(error)

    def retire(self) -> None:
        """Giving it back is being handed over."""
        self.released = True
        self.mailroom.leave(self)

    def give(self, mail: Iterable[Mail]) -> None:
        """Deliver those of these rows that it has not been given before."""
        if self.released or self.lost is not None:
            return
        new = [each for each in mail if each.id not in self.given]
        if new:
            self.given.update(each.id for each in new)
            self.deliver(new)

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


class Drivers:
    """Which driver each run has that this opening drives. Of the writer's thread, but for
    `mailroom`.

    Attributes:
        current: By run id, those whose lease is ours and who were not given back.
        owed: By run id, releases that the database has refused so far.
        mailroom: Where they are given their mail.
    """

    def __init__(self, mailroom: Mailroom) -> None:
        self.current: dict[str, SqlDriver] = {}
        self.owed: dict[str, Release] = {}
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

    def owe(self, release: Release) -> None:
        """Go on trying to give a run back."""
        if self.is_current(release.driver):
            self.owed[release.driver.run_id] = release

    def clear(self) -> list[SqlDriver]:
        """Nobody here drives anything any more. Returns who did."""
        drivers = list(self.current.values())
        self.current.clear()
        self.owed.clear()
        return drivers

    def count(self) -> int:
        """How many runs are driven here."""
        return sum(driver.goes_on for driver in list(self.current.values()))
