"""The runs that an opening drives, and who of them is given which rows of the inboxes: each driver
each row once, whatever way it comes.

Rows come from looks at the database, which take their time in a thread, and from our own posts. All
that is decided here is decided in the event loop's thread, where what the writer has put on disk is
told in the order in which it got there. No watermark helps, as rows' ids commit out of order. So:

A driver notes the rows that it was given until their deletion is on disk (`Addressee.given`): a row
in that set is not given again. A look that began before a deletion was on disk may bring the row
when it is on disk already and noted no more. So each look that is under way is told of the
deletions that get to disk meanwhile, and brings none of these rows. A look gives to those only who
listened before it began. Otherwise the run could have been left, driven by another process that
took the row, and claimed again here, all while the look was under way; and that look would bring
the row to its new driver.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import attrs
import trio

from blazen_trio._stores import store_rules
from blazen_trio._stores.driver import Driver
from blazen_trio._stores.sql.schema import PART_SIZE
from blazen_trio.errors import StoreError

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
"""Rows of one run that a look brings."""
_AHEAD: Final = 1000
"""Rows that a driver may have been given and has not taken, before its next page waits for the next
regular look.
"""
_EVERY: Final = 0.5
"""Seconds between two regular looks."""
_AFTER_A_POLL: Final = 0.75
"""The same where somebody polls, who then looks more often than this."""


@attrs.frozen
class Page:
    """The next rows of a run's inbox.

    Attributes:
        mail: In order of their ids.
        more: Whether there may be more.
    """

    mail: Sequence[Mail]
    more: bool


class Addressee(Driver):
    """A driver as far as it is given mail. Of the event loop's thread.

    Attributes:
        run_no: The run's number in the database.
        mailroom: Where it is given its mail; that of the opening whose driver it is.
        released: Whether giving it back was handed over: nothing may follow.
        given: Ids of the inbox rows that were handed to whoever drives it, and whose deletion is
            not on disk yet.
        more: Whether there may be rows for it that no look has brought yet.
        large: Those of them that may have parts.
        since: How many looks for mail had begun when its listener came.
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
        """Giving it back is being handed over."""
        self.released = True
        self.mailroom.leave(self)

    def give(self, mail: Iterable[Mail]) -> None:
        """Deliver those of these rows that it has not been given before."""
        if self.released or self.lost is not None:
            return
        new = [each for each in mail if each.id not in self.given]
        if new:
            self.note(new)
            self.deliver(new)

    def note(self, mail: Iterable[Mail]) -> None:
        """These are given to it."""
        for each in mail:
            self.given.add(each.id)
            if len(each.data) > PART_SIZE:
                self.large.add(each.id)


@attrs.frozen(eq=False)
class Look:
    """One look for mail that is under way.

    Attributes:
        number: How many looks have begun, with it.
        drivers: By the runs' numbers, who listens. It is the mailroom's own; a thread that reads in
            it may see what is past or to come, but no more is decided by it than how many rows are
            read.
        only: The numbers of the runs that it is for; `None`: all.
        polled: Whether somebody polls.
        taken: Ids of the rows whose deletion got to disk since it began.
    """

    number: int
    drivers: Mapping[int, Addressee]
    only: Collection[int] | None
    polled: bool
    taken: set[int] = attrs.field(factory=set)

    def given(self, run_no: int) -> Collection[int] | None:
        """Ids of the rows that need not be brought for this run; `None`: nobody here wants any of
        it.
        """
        driver = self.drivers.get(run_no)
        return None if driver is None else driver.given.copy()


class Mailroom:
    """Gives drivers their mail, and says when to look for it. In the event loop's thread."""

    def __init__(self) -> None:
        self._listening: dict[int, Addressee] = {}
        self._looks: set[Look] = set()
        self._begun = 0
        self._next = float("-inf")
        self._urgent: set[int] = set()
        self._stirred = trio.Event()

    def enter(self, driver: Addressee) -> None:
        """Somebody listens from now on."""
        driver.since = self._begun
        self._listening[driver.run_no] = driver
        if driver.more:
            self._urgent.add(driver.run_no)
        if driver.more or len(self._listening) == 1:
            self._stirred.set()

    def leave(self, driver: Addressee) -> None:
        """Nobody listens any more."""
        if self._listening.get(driver.run_no) is driver:
            del self._listening[driver.run_no]
            self._urgent.discard(driver.run_no)

    def taken(self, driver: Addressee, mail_ids: Collection[int]) -> None:
        """Their deletion is on disk."""
        driver.given.difference_update(mail_ids)
        driver.large.difference_update(mail_ids)
        for look in self._looks:
            look.taken.update(mail_ids)
        self._hurry(driver)

    @contextlib.contextmanager
    def looking(
        self, *, only: Collection[int] | None = None, polled: bool = False
    ) -> Iterator[Look]:
        """A look is under way, to be given to `deliver` in the end."""
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
        """Hand over what a look has brought."""
        if look.polled:  # one that failed does not stand for a look of our own
            self._next = trio.current_time() + _AFTER_A_POLL
        for run_no, page in found.items():
            driver = self._listening.get(run_no)
            if driver is not None and driver.since < look.number:
                driver.more = page.more
                driver.give(each for each in page.mail if each.id not in look.taken)
                self._hurry(driver)

    def _hurry(self, driver: Addressee) -> None:
        """Have the next page brought at once where there is one, and its driver keeps up."""
        if (
            driver.more
            and len(driver.given) < _AHEAD
            and self._listening.get(driver.run_no) is driver
        ):
            self._urgent.add(driver.run_no)
            self._stirred.set()

    async def wait_until_due(self) -> Collection[int] | None:
        """Wait until somebody is to look: for all, or for some runs only. Parks while nobody
        listens.
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
            raise store_rules.not_driven(self.run_id) from failure


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
