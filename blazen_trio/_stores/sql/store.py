"""The store over SQLAlchemy. `CheckpointStore` documents its methods."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import sqlalchemy as sa
import trio

from blazen_trio._clock import DatabaseClock, wall_clock
from blazen_trio._concurrency import protected_methods
from blazen_trio._stores import store_rules
from blazen_trio._stores.sql import claims, jobs, polling, queries
from blazen_trio._stores.sql.callers import Callers, check_connection
from blazen_trio._stores.sql.faults import translate
from blazen_trio._stores.sql.mailroom import PAGE, SqlDriver
from blazen_trio._stores.sql.reading import Readers, SqlLooks, Watch, raise_fault
from blazen_trio._stores.sql.troubles import ANSWER_WITHIN
from blazen_trio._telemetry.logs import about, logger
from blazen_trio.errors import StoreError, WorkflowError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Collection, Sequence

    from blazen_trio._state.status import RunStatus
    from blazen_trio._stores.driver import Driver, Mail
    from blazen_trio._stores.excerpts import AskedRun, RunEnd
    from blazen_trio._stores.protocol import Commit, NewRun, Poll, StoredRun
    from blazen_trio._stores.sql.batches import Batches
    from blazen_trio._stores.sql.mailroom import Drivers
    from blazen_trio._stores.sql.writer import Writer

__all__ = ["SqlStore", "StoreStatistics"]

T = TypeVar("T")
_GLANCE = 0.5  # seconds


@attrs.frozen
class StoreStatistics:
    """Counters of an opening of a store.

    Attributes:
        commits: How many jobs (commits, inbox messages and others) were stored.
        batches: How many transactions contained them.
        bytes: How many bytes of payload they contained.
        largest_batch: The most jobs in one transaction.
        lease_id: The id of its lease; `None` while it has none.
        driven: How many runs it drives.
    """

    commits: int
    batches: int
    bytes: int
    largest_batch: int
    lease_id: int | None
    driven: int


@protected_methods
class SqlStore(SqlLooks):
    """Runs kept in a database. Made by `open_store`, usable while its block lasts."""

    def __init__(
        self,
        engine: sa.Engine,
        batches: Batches,
        writer: Writer,
        *,
        readers: Readers | None = None,
        clock: DatabaseClock | None = None,
    ) -> None:
        self._engine = engine
        self._batches = batches
        self._drivers = batches.drivers
        self._mailroom = batches.drivers.mailroom
        self._writer = writer
        self._clock = clock or DatabaseClock(wall_clock())
        readers = readers or Readers(
            engine,
            Watch(),
            silence=ANSWER_WITHIN,
            place=None,
            reach=batches.reach,
            clock=self._clock,
        )
        super().__init__(readers)
        self._callers = Callers(engine, batches)

    def clock(self) -> DatabaseClock:
        """See `CheckpointStore.clock`."""
        return self._clock

    async def create(
        self, run: NewRun, first: Commit, *, connection: sa.Connection | None = None
    ) -> SqlDriver | None:
        """See `CheckpointStore.create`."""
        if connection is not None and not first.release:
            msg = (
                "connection= is only for runs that are left to others: create run "
                f"{first.run_id!r} with Commit(release=True)"
            )
            raise ValueError(msg)
        job = jobs.Create(run, first, self._drivers)
        driver: SqlDriver | None = await (
            self._submit(job) if connection is None else self._write_with(connection, job)
        )
        return driver

    async def claim(self, run_id: str) -> StoredRun:
        """See `CheckpointStore.claim`."""
        row, driver = await self._when_known(lambda: claims.Claim(run_id, self._drivers))
        if driver is None:  # it has completed, and can't change any more
            return await self.load(run_id)
        [stored] = await self._read_driven([(row, driver)], faults=False)
        return stored

    async def claim_end(self, run_id: str, kinds: Collection[str]) -> RunEnd:
        """See `excerpts.claim_end`."""
        row, driver = await self._when_known(lambda: claims.Claim(run_id, self._drivers))
        end = await self._read_for(
            [] if driver is None else [driver],
            lambda connection: queries.end_of(connection, row, kinds),
        )
        if driver is not None:
            driver.last = end.last
        return attrs.evolve(end, driver=driver)

    async def take(
        self,
        workflows: Sequence[str],
        limit: int,
        *,
        suspects: int | None = None,
        patient: bool = False,
    ) -> list[StoredRun]:
        """See `CheckpointStore.take`."""
        store_rules.check_limit(limit)
        if patient:
            await self._wait_for_doubtful()
        taken: list[claims.Taken] = await self._submit(
            claims.Take(workflows, limit, suspects, self._drivers)
        )
        return await self._read_driven(taken, faults=True) if taken else []

    async def _read_driven(self, taken: Sequence[claims.Taken], *, faults: bool) -> list[StoredRun]:
        """Read runs that this opening has just started to drive.

        No other process changes them, except their inboxes, whose later rows are found by a look.
        If the runs are lost in the meantime, the fence keeps their driver from writing.
        """
        rows = [row for row, _ in taken]

        def query(connection: sa.Connection) -> list[StoredRun]:
            found = queries.load_runs(connection, rows, page=PAGE)
            if not faults:
                raise_fault(found)
            return found

        found = await self._read_for([driver for _, driver in taken], query)
        return [
            _handed_over(stored, driver) for stored, (_, driver) in zip(found, taken, strict=True)
        ]

    async def _read_for(
        self, drivers: Sequence[SqlDriver], query: Callable[[sa.Connection], T]
    ) -> T:
        """Read for drivers whose claim is on disk.

        This must not be cancelled: either the caller gets the drivers, or their runs are released.
        Otherwise the runs would have an owner but no driver.
        """
        with trio.CancelScope(shield=True):
            try:
                found = await self._read(query)
            except BaseException:
                for driver in drivers:
                    with contextlib.suppress(WorkflowError):  # then it is retried
                        await self.release(driver)  # noqa: ASYNC102  # its waits are bounded
                raise
        return found

    async def _when_known(self, make: Callable[[], jobs.Job]) -> Any:
        """Have a job written; if its run's driver may be dead, wait until that is known.

        The wait can be cancelled, and happens outside any transaction.
        """
        while True:
            try:
                return await self._submit(make())
            except claims.MaybeDeadError as doubt:
                seconds = doubt.seconds
            await trio.sleep(min(seconds, self._glance))

    async def _wait_for_doubtful(self) -> None:
        """Wait until it is known for each expired lease whether its holder is alive."""
        query = polling.doubtful_leases
        doubtful = found = await self._read(
            lambda connection: query(connection, self._batches.lease_id, self._batches.sights)
        )
        while doubtful := {each: found[each] for each in doubtful if each in found}:
            await trio.sleep(min(*doubtful.values(), self._glance))
            found = await self._read(
                lambda connection: query(connection, self._batches.lease_id, self._batches.sights)
            )

    @property
    def _glance(self) -> float:
        """Seconds between two sights of an expired lease while a caller waits."""
        return min(_GLANCE, self._batches.lease_ttl / 10)

    async def poll(self, workflows: Sequence[str], watched: Collection[str] = ()) -> Poll:
        """See `CheckpointStore.poll`."""
        lease_id, sights = self._batches.lease_id, self._batches.sights
        given = list(watched)
        with self._mailroom.looking(polled=True) as look:
            polled, mail = await self._read(
                lambda connection: polling.poll(
                    connection, lease_id, workflows, given, sights, look
                )
            )
            self._mailroom.deliver(look, mail)
        return polled

    async def watch_mail(self) -> None:
        """Look for messages while a driver listens and no poll has just looked.

        This is a task of the store.
        """
        while True:
            only = await self._mailroom.wait_until_due()
            try:
                await self._look(only)
            except StoreError as error:  # the next look may reach the database again
                logger.warning("could not look for inbox messages: %s", error, extra=about())

    async def _look(self, only: Collection[int] | None) -> None:
        with self._mailroom.looking(only=only) as look:
            mail = await self._read(lambda connection: polling.new_mail(connection, look))
            self._mailroom.deliver(look, mail)

    async def commit(self, driver: Driver, commit: Commit) -> None:
        """See `CheckpointStore.commit`."""
        self._writer.check_open()
        ours = self._ours(driver)
        if ours is None or ours.released or ours.run_id != commit.run_id:
            raise store_rules.not_driven(commit.run_id)
        if ours.lost is not None:
            ours.check()
        try:
            ours.last = store_rules.following(commit, ours.last)
        except WorkflowError as refusal:
            ours.lose(refusal)  # a later commit would leave a gap
            raise
        if commit.release:
            ours.retire()
        await self._writer.submit(jobs.Append(ours, commit, self._drivers))

    async def release(
        self,
        driver: Driver,
        *,
        wake: float | None = None,
        hold: float | None = None,
        crash: str | None = None,
        reason: str | None = None,
    ) -> None:
        """See `CheckpointStore.release`."""
        make = partial(jobs.Release.of, wake=wake, hold=hold, crash=crash, reason=reason)
        await self._give_back(driver, make)

    async def set_aside(self, driver: Driver, error: str) -> None:
        """See `CheckpointStore.set_aside`."""
        make = partial(jobs.Release.setting_aside, error=error, at=self.clock().now())
        await self._give_back(driver, make)

    def _ours(self, driver: Driver) -> SqlDriver | None:
        """Return the driver if it belongs to this opening."""
        return (
            driver if isinstance(driver, SqlDriver) and driver.mailroom is self._mailroom else None
        )

    async def _give_back(
        self, driver: Driver, make: Callable[[SqlDriver, Drivers], jobs.Job]
    ) -> None:
        ours = self._ours(driver)
        if ours is None or ours.released:
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            ours.retire()
            await self._writer.submit(make(ours, self._drivers))

    async def post(
        self,
        run_id: str,
        kind: str,
        data: bytes,
        *,
        key: str | None = None,
        second_key: str | None = None,
        connection: sa.Connection | None = None,
    ) -> Mail | None:
        """See `CheckpointStore.post`."""
        job = jobs.Post(run_id, kind, data, key, second_key)
        mail: Mail | None = await (
            self._submit(job) if connection is None else self._write_with(connection, job)
        )
        return mail

    async def has_key(
        self, run_id: str, key: str, *, connection: sa.Connection | None = None
    ) -> bool:
        """See `CheckpointStore.has_key`."""
        return await self._read_of(
            run_id, partial(queries.has_key, run_id=run_id, key=key), connection
        )

    async def load(self, run_id: str, *, connection: sa.Connection | None = None) -> StoredRun:
        """See `CheckpointStore.load`."""

        def query(connection: sa.Connection) -> list[StoredRun]:
            return queries.load_runs(connection, [queries.find_run(connection, run_id)])

        [stored] = found = await self._read_of(run_id, query, connection)
        raise_fault(found)
        return stored

    async def asked_run(
        self,
        run_id: str,
        request_id: str | None = None,
        *,
        connection: sa.Connection | None = None,
    ) -> AskedRun | None:
        """See `excerpts.asked_run`."""
        query = partial(queries.asked_run, run_id=run_id, request_id=request_id)
        return await self._read_of(run_id, query, connection)

    async def _read_of(
        self, run_id: str, query: Callable[[sa.Connection], T], connection: sa.Connection | None
    ) -> T:
        """Run a query about a run, in the caller's own transaction if one is given."""
        if connection is None:
            return await self._read(query)
        return await self._with(connection, partial(self._callers.read, connection, query, run_id))

    async def delete_run(self, run_id: str) -> None:
        """See `CheckpointStore.delete_run`."""
        await self._when_known(lambda: claims.Delete(run_id, self._drivers))

    async def purge(
        self,
        *,
        older_than: dt.timedelta | dt.datetime,
        status: Sequence[RunStatus | str] | None = None,
    ) -> int:
        """See `CheckpointStore.purge`.

        Each transaction deletes at most a hundred runs, so other writes are not delayed.
        """
        before, statuses = (
            store_rules.cutoff(older_than, self._clock),
            store_rules.parse_statuses(status, store_rules.ENDED),
        )
        total = after_no = 0
        while True:
            deleted: int
            last: int | None
            deleted, last = await self._submit(
                claims.Purge(before, statuses, after_no, self._drivers)
            )
            total += deleted
            if last is None:
                return total
            after_no = last

    def statistics(self) -> StoreStatistics:
        """Return counters of what this opening has done so far."""
        batches = self._batches
        return StoreStatistics(
            commits=batches.commits,
            batches=batches.batches,
            bytes=batches.bytes,
            largest_batch=batches.largest,
            lease_id=batches.lease_id,
            driven=batches.drivers.count(),
        )

    async def _submit(self, job: jobs.Job) -> Any:
        """Have a job written. It can be cancelled only before it is handed over."""
        await trio.lowlevel.checkpoint_if_cancelled()
        return await self._writer.submit(job)

    async def _write_with(self, connection: sa.Connection, job: jobs.Job) -> Any:
        """Do a job in its caller's own transaction. It is on disk when, and if, they commit."""
        return await self._with(connection, partial(self._callers.write, connection, job))

    async def _with(self, connection: sa.Connection, use: Callable[[], T]) -> T:
        """Call a function in a thread of its own, for a transaction of the caller."""
        check_connection(connection)
        try:
            return await trio.to_thread.run_sync(use, limiter=trio.CapacityLimiter(1))
        except sa.exc.SQLAlchemyError as error:
            raise translate(error, "the store could not be written") from error


def _handed_over(stored: StoredRun, driver: SqlDriver) -> StoredRun:
    """Return a run as its new driver gets it.

    A message that this opening posted after the claim but before the read is in the inbox that was
    read, and was also delivered to the driver. It is left out here, so the driver gets it once.
    """
    inbox = [mail for mail in stored.inbox if mail.id not in driver.given]
    driver.last, driver.more = stored.last, len(stored.inbox) == PAGE
    driver.note(inbox)
    return attrs.evolve(stored, inbox=tuple(inbox), driver=driver)
