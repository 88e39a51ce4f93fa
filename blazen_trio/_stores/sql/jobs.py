"""Jobs: units of work for the writer. Each is atomic and reports its outcome to its waiter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from blazen_trio._state.status import RunStatus
from blazen_trio._stores import store_rules
from blazen_trio._stores.driver import Mail
from blazen_trio._stores.sql.faults import translate
from blazen_trio._stores.sql.leases import NEVER
from blazen_trio._stores.sql.mailroom import Return, SqlDriver
from blazen_trio._stores.sql.queries import micros, status_of
from blazen_trio._stores.sql.schema import STATUS_CODES
from blazen_trio._stores.sql.transaction import MailGoneError
from blazen_trio._stores.sql.troubles import is_duplicate
from blazen_trio.errors import WorkflowError

if TYPE_CHECKING:
    from blazen_trio._stores.protocol import Commit, NewRun
    from blazen_trio._stores.sql.mailroom import Drivers
    from blazen_trio._stores.sql.transaction import BatchTransaction

__all__ = ["Append", "Create", "Job", "Loss", "Post", "Release"]


class Job:
    """A unit of work for the writer.

    Attributes:
        size: Roughly how many bytes it writes.
        alone: Whether it needs a transaction of its own.
        repeatable: Whether doing it twice, without a lease, has the same effect as doing it once.
        result: The result for its waiter.
        error: The error for its waiter, in place of a result.
    """

    alone: ClassVar[bool] = False
    repeatable: ClassVar[bool] = False
    size = 0
    result: Any = None
    error: BaseException | None = None
    run_id: str | None = None

    def prepare(self, transaction: BatchTransaction) -> None:
        """Register the runs that the job will look up, before any job of the batch is done."""

    def apply(self, transaction: BatchTransaction) -> Any:
        """Do the job, in the writer's thread.

        A `WorkflowError` refuses the job before it has written anything.
        """
        raise NotImplementedError

    def done(self, drivers: Drivers) -> None:
        """Update what this opening drives, in the writer's thread, once the job is on disk."""

    def failed(self, error: Exception) -> WorkflowError:
        """Return the error for its waiter if the job failed with this error of the database."""
        return translate(error, "nothing could be written", self.run_id)

    def plainer(self) -> bool:
        """Convert an error's text to ASCII, for databases whose encoding can't store it.

        Returns whether that changed anything.
        """
        return False

    def settle(self) -> None:
        """Report the outcome to drivers, in the event loop's thread, before the waiter resumes."""


class Loss(Job):
    """Reports the loss of a driver in order among the jobs; it writes nothing."""

    def __init__(self, driver: SqlDriver, reason: WorkflowError) -> None:
        self.driver, self.reason, self.run_id = driver, reason, driver.run_id

    def settle(self) -> None:
        self.driver.lose(self.reason)


class Append(Job):
    """A commit to a run that we drive."""

    def __init__(self, driver: SqlDriver, commit: Commit, drivers: Drivers) -> None:
        self.driver, self.commit, self.run_id = driver, commit, commit.run_id
        self.size = _size(commit)
        self._large = driver.large.intersection(commit.taken) if driver.large else ()
        self._drivers = drivers

    def apply(self, transaction: BatchTransaction) -> None:
        driver = self.driver
        driver.check()
        # The driver is the token. If this opening has released the run and drives it again, it has
        # another driver under the same lease, and the fence alone would let a late commit through.
        if driver.lease_id != transaction.lease_id or not self._drivers.is_current(driver):
            raise store_rules.not_driven(driver.run_id)
        transaction.append(driver.run_no, self.commit, self._large)
        transaction.set_row(driver.run_no, self.commit, crashed=driver.crashes > 0)

    def plainer(self) -> bool:
        text = store_rules.in_ascii(self.commit.error)
        changed = text != self.commit.error
        self.commit = attrs.evolve(self.commit, error=text)
        return changed

    def done(self, drivers: Drivers) -> None:
        if self.commit.progress:
            self.driver.crashes = 0
        if self.commit.release:
            drivers.end(self.driver)

    def failed(self, error: Exception) -> WorkflowError:
        told: WorkflowError
        if isinstance(error, MailGoneError):
            told = store_rules.mail_gone(self.driver.run_id)
        elif is_duplicate(error):
            # The journal's primary key is the second fence: another driver has written this entry.
            told = store_rules.not_driven(self.driver.run_id)
            told.__cause__ = error
        else:
            told = translate(error, f"a commit of run {self.run_id!r} was not stored", self.run_id)
        self.driver.failed = self.driver.failed or told
        return told

    def settle(self) -> None:
        if isinstance(self.error, WorkflowError):
            if self.commit.release:
                self.driver.released = False  # so it still has to be released
            self.driver.lose(self.error)
        elif self.commit.taken:
            self._drivers.mailroom.taken(self.driver, self.commit.taken)


class Create(Job):
    """A new run with its first entry."""

    def __init__(self, run: NewRun, first: Commit, drivers: Drivers) -> None:
        self.run, self.first, self.run_id = run, first, first.run_id
        self.last = store_rules.following(first, None)
        self.size = _size(first)
        self._drivers = drivers

    def prepare(self, transaction: BatchTransaction) -> None:
        transaction.look_for(self.first.run_id)

    def apply(self, transaction: BatchTransaction) -> SqlDriver | None:
        run, first = self.run, self.first
        if transaction.find(first.run_id) is not None:
            raise store_rules.exists(first.run_id)
        driver: SqlDriver | None = None
        if not first.release:
            lease_id = transaction.take_lease()
            driver = SqlDriver(first.run_id, -1, lease_id, self._drivers.mailroom, last=self.last)
        status = first.status or RunStatus.RUNNING
        ready = driver is None and status in (RunStatus.QUEUED, RunStatus.RUNNING)

        def add_entries(run_no: int) -> None:
            transaction.append(run_no, first)
            if driver is not None:
                driver.run_no = run_no

        transaction.add_run(
            first.run_id,
            run.workflow,
            first.version or run.version,
            STATUS_CODES[status],
            None if driver is None else driver.lease_id,
            micros(run.created),
            micros(run.created if first.status is None else first.at),
            store_rules.storable(first.error),
            micros(first.at) if ready else None,
            1,
            then=add_entries,
        )
        return driver

    def plainer(self) -> bool:
        text = store_rules.in_ascii(self.first.error)
        changed = text != self.first.error
        self.first = attrs.evolve(self.first, error=text)
        return changed

    def done(self, drivers: Drivers) -> None:
        if self.result is not None:
            drivers.begin(self.result)

    def failed(self, error: Exception) -> WorkflowError:
        if is_duplicate(error):
            return store_rules.exists(self.first.run_id)
        return translate(error, f"run {self.run_id!r} was not created", self.run_id)


class Release(Job):
    """Releases a run. If that fails, it is retried: see `Drivers.owed`.

    It may be written twice if the outcome of the first time stays unclear: after the first, the run
    no longer has our lease as its owner, so the second has no effect.
    """

    def __init__(self, given_back: Return, drivers: Drivers) -> None:
        self._given_back, self.run_id = given_back, given_back.driver.run_id
        self._drivers = drivers

    @classmethod
    def of(
        cls,
        driver: SqlDriver,
        drivers: Drivers,
        *,
        wake: float | None = None,
        hold: float | None = None,
        crash: str | None = None,
        reason: str | None = None,
    ) -> Release:
        """Make the job from the arguments of `CheckpointStore.release`."""
        held = 0 if hold is None else micros(hold)
        if wake is None:
            looked_at = held or None
        else:
            looked_at = NEVER if wake == float("inf") else max(micros(wake), held)
        told = (store_rules.storable(crash), store_rules.storable(reason))
        return cls(Return(driver, looked_at, held, *told), drivers)

    @classmethod
    def setting_aside(cls, driver: SqlDriver, drivers: Drivers, error: str, at: float) -> Release:
        """Make the job from the arguments of `CheckpointStore.set_aside` and the time (UTC,
        seconds).
        """
        return cls(Return(driver, fault=store_rules.storable(error), at=micros(at)), drivers)

    def apply(self, transaction: BatchTransaction) -> None:
        each = self._given_back
        driver = each.driver
        if not self._drivers.is_current(driver):
            return  # it was lost or released, or has a new driver in this opening
        if each.fault is not None:
            transaction.set_aside(driver.run_no, driver.lease_id, each.fault, each.at)
        else:
            given = (each.wake, each.hold, each.crash, each.reason)
            transaction.give_back(driver.run_no, driver.lease_id, *given)

    def plainer(self) -> bool:
        before = self._given_back
        self._given_back = attrs.evolve(
            before,
            crash=store_rules.in_ascii(before.crash),
            reason=store_rules.in_ascii(before.reason),
            fault=store_rules.in_ascii(before.fault),
        )
        return self._given_back != before

    def done(self, drivers: Drivers) -> None:
        drivers.end(self._given_back.driver)

    def failed(self, error: Exception) -> WorkflowError:
        told = translate(error, f"run {self.run_id!r} could not be released yet", self.run_id)
        driver = self._given_back.driver
        driver.failed = driver.failed or told
        self._drivers.owe(self._given_back)
        return told


class Post(Job):
    """Posts a message to an inbox."""

    def __init__(
        self, run_id: str, kind: str, data: bytes, key: str | None, second_key: str | None = None
    ) -> None:
        self.run_id: str = run_id
        self.kind, self.data, self.key, self.second_key = kind, bytes(data), key, second_key
        self.size = len(data)
        self._driver: SqlDriver | None = None

    def prepare(self, transaction: BatchTransaction) -> None:
        transaction.look_for(self.run_id)

    def apply(self, transaction: BatchTransaction) -> Mail | None:
        found = transaction.find(self.run_id)
        if found is None:
            raise store_rules.not_found(self.run_id)
        run_no, code = found
        status = status_of(self.run_id, code)
        if status.ended:
            if self.key is not None and transaction.key_is_used(run_no, self.key):
                return None
            raise store_rules.finished(self.run_id, status)
        if self.key is not None and not transaction.use_key(run_no, self.key):
            return None
        if self.second_key is not None and not transaction.use_key(run_no, self.second_key):
            if self.key is not None:
                transaction.free_key(run_no, self.key)
            raise store_rules.key_used(self.run_id, self.second_key)
        mail_id = transaction.add_mail(run_no, self.kind, self.key, self.data)
        return Mail(mail_id, self.kind, self.data, self.key)

    def done(self, drivers: Drivers) -> None:
        self._driver = drivers.current.get(self.run_id)

    def settle(self) -> None:
        if self._driver is not None and self.error is None and self.result is not None:
            self._driver.give([self.result])


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
