"""The drivers of an opening, and the delivery of inbox messages to them: each row once per driver.

Rows come from *looks* at the database, which take time in a thread, and from this opening's own
posts. All decisions are made in the event loop's thread, where batches are reported in the order in
which they reached the disk. A watermark would not work, since ids do not become visible in order.

A driver notes the rows that it was given until their deletion is on disk (`Addressee.given`); a row
in that set is not given again. Two interleavings remain:

A look starts, and reads a row. The row's deletion reaches the disk, so it is no longer noted. Then
the look ends and would deliver it a second time. Each look under way is therefore told of the
deletions that reach the disk in the meantime, and delivers none of these rows.

A look starts, and reads a row. This opening leaves the run, another process takes the row, and this
opening claims the run again. Then the look ends and would deliver the row to the new driver. A look
therefore delivers only to drivers that listened before it started.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import attrs
import trio

from blazen_trio._stores import store_rules
from blazen_trio._stores.driver import Driver
from blazen_trio._stores.sql.schema import PART_SIZE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from blazen_trio._stores.driver import DriverListener, Mail
    from blazen_trio.errors import WorkflowError

__all__ = [
    "PAGE",
    "Addressee",
    "Drivers",
    "Look",
    "Mailroom",
    "Page",
    "Return",
    "SqlDriver",
]


PAGE: Final = 32
"""At most this many rows of one run are read by a look."""
_AHEAD: Final = 1000
"""Once a driver has this many rows that it has not taken, its next page waits for a regular look.
"""
_EVERY: Final = 0.5
"""Seconds between two regular looks."""
_AFTER_A_POLL: Final = 0.75
"""Seconds after a poll to the next regular look; a process that polls does so more often."""


@attrs.frozen
class Page:
    """The next rows of a run's inbox.

    Attributes:
        mail: The rows, by ascending id.
        more: Whether there may be more rows.
    """

    mail: Sequence[Mail]
    more: bool


class Addressee(Driver):
    """A driver that is given inbox messages. For the event loop's thread.

    Attributes:
        run_no: The run's number in the database.
        mailroom: The mailroom of its opening, which delivers its messages.
        released: Whether its release was handed over: nothing may follow.
        given: Ids of the inbox rows that it was given, and whose deletion is not on disk yet.
        more: Whether there may be rows for it that no look has read yet.
        large: Those of the given rows that may have parts.
        since: How many looks had started when its listener was set.
    """

    __slots__ = ("given", "large", "mailroom", "more", "released", "run_no", "since")

    def __init__(self, run_id: str, run_no: int, mailroom: Mailroom) -> None:
        super().__init__(run_id)
        self.run_no = run_no
        self.mailroom = mailroom
        self.released = self.more = False
        self.given: set[int] = set()
        self.large: set[int] = set()
        self.since = 0

    def listen(self, listener: DriverListener | None) -> None:
        """See `Driver.listen`."""
        self.mailroom.leave(self)
        super().listen(listener)
        if listener is not None and not self.released and self.lost is None:
            self.mailroom.enter(self)

    def lose(self, error: Exception) -> None:
        """See `Driver.lose`."""
        self.mailroom.leave(self)
        super().lose(error)

    def retire(self) -> None:
        """Note that its release is being handed over."""
        self.released = True
        self.mailroom.leave(self)

    def give(self, mail: Iterable[Mail]) -> None:
        """Deliver those of these rows that it was not given before."""
        if self.released or self.lost is not None:
            return
        new = [each for each in mail if each.id not in self.given]
        if new:
            self.note(new)
            self.deliver(new)

    def note(self, mail: Iterable[Mail]) -> None:
        """Note that it was given these rows."""
        for each in mail:
            self.given.add(each.id)
            if len(each.data) > PART_SIZE:
                self.large.add(each.id)


@attrs.frozen(eq=False)
class Look:
    """A look for inbox messages that is under way.

    Attributes:
        number: How many looks have started, including this one.
        drivers: The listening drivers, by the numbers of their runs. This is the mailroom's own
            dictionary. A thread that reads it may see an earlier or later state, but this affects
            only how many rows are read.
        only: The numbers of the runs that it is for; `None`: all.
        polled: Whether it is part of a poll.
        taken: Ids of the rows whose deletion reached the disk since it started.
    """

    number: int
    drivers: Mapping[int, Addressee]
    only: Collection[int] | None
    polled: bool
    taken: set[int] = attrs.field(factory=set)

    def given(self, run_no: int) -> Collection[int] | None:
        """Return ids of the rows of a run that need not be read; `None`: it has no listener."""
        driver = self.drivers.get(run_no)
        return None if driver is None else driver.given.copy()


class Mailroom:
    """Delivers messages to drivers, and schedules looks. For the event loop's thread."""

    def __init__(self) -> None:
        self._listening: dict[int, Addressee] = {}
        self._looks: set[Look] = set()
        self._begun = 0
        self._next = float("-inf")
        self._urgent: set[int] = set()
        self._stirred = trio.Event()

    def enter(self, driver: Addressee) -> None:
        """Add a driver that listens from now on."""
        driver.since = self._begun
        self._listening[driver.run_no] = driver
        if driver.more:
            self._urgent.add(driver.run_no)
        if driver.more or len(self._listening) == 1:
            self._stirred.set()

    def leave(self, driver: Addressee) -> None:
        """Remove a driver that no longer listens."""
        if self._listening.get(driver.run_no) is driver:
            del self._listening[driver.run_no]
            self._urgent.discard(driver.run_no)

    def taken(self, driver: Addressee, mail_ids: Collection[int]) -> None:
        """Note that the deletion of these rows is on disk."""
        driver.given.difference_update(mail_ids)
        driver.large.difference_update(mail_ids)
        for look in self._looks:
            look.taken.update(mail_ids)
        self._hurry(driver)

    @contextlib.contextmanager
    def looking(
        self, *, only: Collection[int] | None = None, polled: bool = False
    ) -> Iterator[Look]:
        """Register a look while the block runs. At its end, pass the look to `deliver`."""
        self._begun += 1
        if only is None and not polled:
            self._next = trio.current_time() + _EVERY
        look = Look(self._begun, self._listening, only, polled=polled)
        self._looks.add(look)
        try:
            yield look
        finally:
            self._looks.discard(look)

    def deliver(self, look: Look, found: Mapping[int, Page]) -> None:
        """Deliver the rows that a look has read."""
        if look.polled:  # only here: a poll that failed does not replace a regular look
            self._next = trio.current_time() + _AFTER_A_POLL
        for run_no, page in found.items():
            driver = self._listening.get(run_no)
            if driver is not None and driver.since < look.number:
                driver.more = page.more
                driver.give(each for each in page.mail if each.id not in look.taken)
                self._hurry(driver)

    def _hurry(self, driver: Addressee) -> None:
        """Request the next page at once if there is one and its driver keeps up."""
        if (
            driver.more
            and len(driver.given) < _AHEAD
            and self._listening.get(driver.run_no) is driver
        ):
            self._urgent.add(driver.run_no)
            self._stirred.set()

    async def wait_until_due(self) -> Collection[int] | None:
        """Wait until a look is due, and return the runs that it is for; `None`: all.

        Parks while no driver listens.
        """
        while True:
            self._stirred = trio.Event()
            if not self._listening:
                await self._stirred.wait()
            elif trio.current_time() >= self._next:
                await trio.lowlevel.checkpoint()
                return None
            elif self._urgent:
                only, self._urgent = self._urgent, set()
                await trio.lowlevel.checkpoint()
                return only
            else:
                with trio.move_on_at(self._next):
                    await self._stirred.wait()


class SqlDriver(Addressee):
    """The token of a driver of a run in an SQL store.

    `failed` and `crashes` belong to the writer's thread, all else to the event loop's thread, which
    decides what is handed over.

    Attributes:
        lease_id: The lease under which it drives.
        last: The number of the last entry that was stored or handed over.
        crashes: How often a driver of the run has died or failed since one of its steps was last
            committed.
        failed: Why one of its commits could not be written: nothing may follow.
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
        """Indicates that nothing has failed, in the writer's thread or before it got there."""
        return self.failed is None and self.lost is None

    def check(self) -> None:
        """Refuse a write that would leave a gap in the journal.

        Raises:
            StaleRunError: This opening no longer drives the run.
            StoreError: An earlier commit could not be written.
        """
        store_rules.check_driver(self.run_id, self.failed or self.lost)


@attrs.frozen
class Return:
    """A driver's release of its run. Instants are in the stored form.

    Attributes:
        driver: The run's driver.
        wake: When a worker should look at the run, if it waits; see `leases.wake_when_given_back`.
        hold: No worker may take it before this time.
        crash: The error that the driver failed with; `None`: it did not fail.
        reason: Why the driver can't drive the run, though others may; `None`: no reason.
        fault: Why the run is set aside as failed; `None`: its status stays.
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
    """The drivers of the runs that this opening drives. For the writer's thread, except `mailroom`.

    Attributes:
        current: By run id, the drivers under our lease that were not released.
        owed: By run id, releases that the database has refused so far, to be tried again.
        mailroom: Delivers their messages.
    """

    def __init__(self, mailroom: Mailroom) -> None:
        self.current: dict[str, SqlDriver] = {}
        self.owed: dict[str, Return] = {}
        self.mailroom = mailroom

    def begin(self, driver: SqlDriver) -> None:
        """Make this the driver of its run, in place of an earlier one."""
        self.owed.pop(driver.run_id, None)
        self.current[driver.run_id] = driver

    def end(self, driver: SqlDriver) -> None:
        """Remove this driver if it is the current one."""
        if self.current.get(driver.run_id) is driver:
            del self.current[driver.run_id]
            self.owed.pop(driver.run_id, None)

    def is_current(self, driver: SqlDriver) -> bool:
        """Return whether this is the latest driver of its run in this opening."""
        return self.current.get(driver.run_id) is driver

    def is_driven(self, run_id: str) -> bool:
        """Return whether this opening drives the run, and no commit or release of it has failed."""
        driver = self.current.get(run_id)
        return driver is not None and driver.goes_on

    def owe(self, given_back: Return) -> None:
        """Keep a release that failed, to be tried again."""
        if self.is_current(given_back.driver):
            self.owed[given_back.driver.run_id] = given_back

    def clear(self) -> list[SqlDriver]:
        """Remove all drivers, and return them."""
        drivers = list(self.current.values())
        self.current.clear()
        self.owed.clear()
        return drivers

    def count(self) -> int:
        """Return how many runs this opening drives."""
        return sum(driver.goes_on for driver in list(self.current.values()))
