"""Batches of jobs: the writer's side of the database. Each is one transaction behind our fence."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from blazen_trio._stores import store_rules
from blazen_trio._stores.sql import databases
from blazen_trio._stores.sql.databases.base import PlainTransaction
from blazen_trio._stores.sql.jobs import Append, Job, Loss, Release
from blazen_trio._stores.sql.leases import Sights, of_the_lease
from blazen_trio._stores.sql.mailroom import Drivers, Mailroom
from blazen_trio._stores.sql.reading import Watch
from blazen_trio._stores.sql.schema import lease
from blazen_trio._stores.sql.transaction import BatchTransaction, LeaseLostError
from blazen_trio._stores.sql.troubles import (
    ANSWER_WITHIN,
    Patience,
    Reach,
    UnclearCommitError,
    is_busy,
    is_lost,
    is_record_fault,
)
from blazen_trio._telemetry import hooks
from blazen_trio._telemetry.logs import about, logger
from blazen_trio.errors import StoreError, WorkflowError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine.interfaces import DBAPICursor

    from blazen_trio._stores.sql.reading import Line
    from blazen_trio._stores.sql.sqlite_files import Place

__all__ = ["Batches"]

_TRY_AGAIN = 1.0
"""Seconds after which an idle writer retries releases that have failed."""


_BYTES_A_SECOND = 1_000_000
"""The slowest rate at which a server may accept data, which extends the silence it is allowed."""


class Batches:
    """Writes jobs over one connection, which it keeps. Used by one thread at a time.

    Attributes:
        drivers: The drivers of the runs that this opening drives. Only this class changes them.
        sights: What this opening knows about the leases of others.
        lease_ttl: How long our lease lasts, in seconds.
        lease_id: Our lease, `None` while there is none.
        batches: How many transactions were committed.
        commits: How many jobs they contained.
        bytes: How many bytes of payload they contained.
        largest: The most jobs in one of them.
        reach: Whether the database can be reached, as far as is known.
    """

    def __init__(
        self,
        engine: sa.Engine,
        writers: sa.Engine | None = None,
        *,
        lease_ttl: float,
        busy_timeout: float,
        watch: Watch | None = None,
        place: Place | None = None,
    ) -> None:
        self.drivers = Drivers(Mailroom())
        self.sights = Sights(lease_ttl)
        self.lease_id: int | None = None
        self.batches = self.commits = self.bytes = self.largest = 0
        self._engine = engine
        self._database = databases.of(engine)
        self._writers = writers or engine  # makes the connection
        self._begins_otherwise = bool(
            engine.get_execution_options().get("blazen_trio_begins_otherwise")
        )
        self.lease_ttl = lease_ttl
        self._limits = {"busy_timeout": busy_timeout, "lease_ttl": lease_ttl}
        self._statements = self._database.statements(engine.dialect, **self._limits)
        self._connection: sa.Connection | None = None
        self._cursor: DBAPICursor | None = None
        self.reach = Reach()
        self._watch = watch or Watch()
        self._place = place
        self._line: Line | None = None
        self._silence = self._least_silence = ANSWER_WITHIN + busy_timeout
        # A lease of ours whose last COMMIT stayed unclear. Nothing more is written under it; it is
        # released with all its runs before anything else is written.
        self._abandoned: int | None = None
        # Numbers start at a random value, so that a number identifies a batch even if a lease's id
        # was assigned twice because the first transaction to get it never committed.
        self._number = secrets.randbits(62)
        self._last = 0  # the last batch known to be on disk that renewed our lease
        self._losses: list[Job] = []
        self._reached = False  # whether the last batch reached the disk

    def write(self, jobs: Sequence[Job]) -> list[Job]:
        """Write these jobs in one transaction, and set the result or error of each.

        If one job's record is at fault, the jobs are written one by one instead. Releases that have
        failed before are retried afterwards.

        Returns:
            Everything to settle in the event loop's thread: drivers lost in the meantime first,
            then these jobs.
        """
        self._reached = False
        self._write_all(jobs)
        owed = self._owed()
        if owed and (self._reached or not jobs):
            self._write_all(owed, persist=False)
        losses, self._losses = self._losses, []
        return [*losses, *jobs]

    def _owed(self) -> list[Job]:
        return [Release(each, self.drivers) for each in self.drivers.owed.values()]

    def pause(self, renew_every: float) -> float | None:
        """Return for how many seconds an idle writer may wait before an empty batch; `None`:
        forever.

        An empty batch renews the lease and retries releases that have failed.
        """
        if self.drivers.owed or self._abandoned is not None:
            return min(renew_every, _TRY_AGAIN)
        return None if self.lease_id is None else renew_every

    def _write_all(self, jobs: Sequence[Job], *, persist: bool = True) -> None:
        try:
            self._try(jobs, persist=persist)
        except LeaseLostError:
            self._forget()
            others = [job for job in jobs if not isinstance(job, Append)]
            for job in jobs:
                if isinstance(job, Append):
                    job.error = store_rules.not_driven(job.driver.run_id)
            if others:
                self._write_all(others, persist=persist)
        except Exception as error:  # noqa: BLE001  # whatever it was, each waiter gets an answer
            if len(jobs) > 1 and self._is_of_one_job(error):
                for job in jobs:
                    self._write_all([job], persist=persist)
                return
            self._drop_connection()
            is_temporary = is_lost(error) or is_busy(error) or isinstance(error, UnclearCommitError)
            if len(jobs) == 1 and not is_temporary and jobs[0].plainer():
                self._write_all(jobs, persist=persist)
                return
            for job in jobs:
                job.error = job.failed(error)

    def _is_of_one_job(self, error: Exception) -> bool:
        """Return whether one job is at fault, so that the others can be written without it."""
        if isinstance(error, UnclearCommitError):
            return False
        by_the_database = isinstance(
            error, (sa.exc.DBAPIError, self._engine.dialect.loaded_dbapi.Error)
        )
        return is_record_fault(error) or not (by_the_database or is_lost(error))

    def close(self) -> list[Job]:
        """Release the lease and all its runs. If that fails, the lease expires by itself.

        Returns:
            Lost drivers to settle in the event loop's thread, as in `write`.
        """
        self._silence = self._least_silence
        # Two attempts: the first may discover that the connection was lost long ago. None if the
        # server was silent a moment ago: leaving the store's block would only wait in vain.
        for _ in range(0 if self.reach.silent else 2):
            try:
                self._give_back_abandoned()
                if self.lease_id is not None:
                    if self.drivers.owed:  # these also write a wake, a hold or an error
                        self._write(self._owed(), Patience(self.reach))
                    self._give_back(self.lease_id)
            except LeaseLostError:
                break
            except (sa.exc.DBAPIError, self._engine.dialect.loaded_dbapi.Error) as error:
                self._drop_connection()
                if not is_lost(error):
                    break
            else:
                break
        for driver in self.drivers.clear():
            reason = StoreError(
                f"run {driver.run_id!r} lost its driver: the store was closed", run_id=driver.run_id
            )
            self._losses.append(Loss(driver, driver.failed or reason))
        self._drop_connection()
        losses, self._losses = self._losses, []
        return losses

    def _give_back(self, lease_id: int) -> None:
        """Release a lease of ours with all its runs.

        The DELETE waits for the lock of a transaction that may still be running under the lease. So
        that transaction either ends first, or finds no lease and writes nothing.
        """
        connection, cursor = self._connect()
        with self._database.begin(connection):
            self.transaction(connection, cursor, lease_id=None).fence()
            # The lease first: a process that declares it dead locks it first, too. In the opposite
            # order the two could deadlock.
            connection.execute(sa.delete(lease).where(lease.c.lease_id == lease_id))
            connection.execute(of_the_lease(self._database, lease_id, crashed=False))

    def _give_back_abandoned(self) -> None:
        if self._abandoned is not None:
            self._give_back(self._abandoned)
            self._abandoned = None

    def _abandon(self, lease_id: int) -> None:
        """Drive nothing more under this lease, and release all its runs once the database answers.

        Without this, a COMMIT that stayed unclear could leave runs whose owner is a live lease but
        whose driver does not know about them. No process could ever take them.
        """
        self._abandoned = lease_id
        self._forget()

    def _forget(self) -> None:
        """Stop driving everything, because our lease is lost. A new one is taken when needed."""
        if self.lease_id is not None:
            text = "lease %d is lost; runs no longer driven by this process: %d"
            logger.warning(text, self.lease_id, self.drivers.count(), extra=about())
            if hooks.listener is not None:
                hooks.listener.lease_lost()
        self.lease_id = None
        for driver in self.drivers.clear():
            driver.failed = driver.failed or store_rules.not_driven(driver.run_id)
            self._losses.append(Loss(driver, driver.failed))

    def _try(self, jobs: Sequence[Job], *, persist: bool) -> None:
        """Write the jobs. With `persist`, wait for locks of others and for a lost database."""
        self.reach.check()
        self._silence = self._least_silence + sum(job.size for job in jobs) / _BYTES_A_SECOND
        patience = Patience(self.reach, waited_for=persist and bool(jobs))
        while True:
            try:
                self._write(jobs, patience)
            except Exception as error:
                self._check_place()  # the better explanation
                if is_lost(error):
                    self._drop_connection()
                if not (persist and patience.wait(error)):
                    raise
            else:
                self.reach.answered()
                return
            finally:
                if self._line is not None:
                    self._line.answered()

    def _write(self, jobs: Sequence[Job], patience: Patience) -> None:
        self._give_back_abandoned()
        connection, cursor = self._connect()
        self._number += 1
        # A plain one passes the fence with its first statement, or in its only one (`finish`).
        plain = not (
            self._begins_otherwise or self.lease_id is None or any(job.alone for job in jobs)
        )
        begun = PlainTransaction(connection) if plain else self._database.begin(connection)
        transaction = self.transaction(connection, cursor, lease_id=self.lease_id)
        try:
            if not plain:
                transaction.fence()
            for job in jobs:
                job.prepare(transaction)
            for job in jobs:
                job.error = None
                try:
                    job.result = job.apply(transaction)
                except WorkflowError as refusal:
                    # It leaves nothing that matters, so the others are committed.
                    job.error = refusal
            whole = transaction.finish()
        except BaseException:
            # Fails if the connection is lost, which the first error reports.
            with contextlib.suppress(Exception):
                begun.rollback()
            raise
        # From here on, an error does not mean that nothing was written: the server may have
        # committed, and its answer may have been lost. Repeating the batch blindly would then write
        # its inbox messages twice, and take its own entries for those of another driver.
        try:
            (whole or begun.commit)()
        except LeaseLostError:
            raise
        except Exception as error:
            if not self._landed(jobs, transaction, error, patience):
                raise
            # The batch is on disk. If the fence was part of the statement, so is its renewal, whose
            # answer is lost too: the next batch must expect this number.
            transaction.last = self._number
        # Once per batch, after its commit: what was written to a file that has been deleted or
        # replaced is lost, and must not be acknowledged.
        self._check_place()
        self._settle(jobs, transaction)

    def _check_place(self) -> None:
        if self._place is not None:
            self._place.check()

    def transaction(
        self, connection: sa.Connection, cursor: DBAPICursor, *, lease_id: int | None
    ) -> BatchTransaction:
        """Return the writer for a transaction that has been started on this connection."""
        return BatchTransaction(
            connection,
            cursor,
            self._statements,
            lease_id=lease_id,
            number=self._number,
            last=self._last,
            lease_ttl=int(self.lease_ttl * 1_000_000),
            sights=self.sights,
        )

    def _settle(self, jobs: Sequence[Job], transaction: BatchTransaction) -> None:
        """Record that these jobs are on disk."""
        self.lease_id, self._last = transaction.lease_id, transaction.last
        self._reached = True
        for job in jobs:
            if job.error is None:
                job.done(self.drivers)
                self.commits += 1
                self.bytes += job.size
        if jobs:
            self.batches += 1
            self.largest = max(self.largest, len(jobs))
            if hooks.listener is not None:
                hooks.listener.batch_written(sum(job.error is None for job in jobs))

    def _landed(
        self,
        jobs: Sequence[Job],
        transaction: BatchTransaction,
        error: Exception,
        patience: Patience,
    ) -> bool:
        """Return whether a transaction is on disk although its COMMIT, or its only statement,
        failed.

        The lease has the number of the last batch that was written under it.

        Raises:
            UnclearCommitError: The outcome can't be determined, and the transaction must not be
                repeated: it had no lease, or the database does not come back.
        """
        if is_lost(error):
            patience.pause(error)  # counts from the start of the batch, which may have been silence
        while True:
            self._drop_connection()
            if transaction.lease_id is None:
                if is_lost(error) and not all(job.repeatable for job in jobs):
                    raise UnclearCommitError(str(error)) from error
                return False
            try:
                return self._look(transaction.lease_id)
            except Exception as trouble:  # noqa: BLE001  # the COMMIT stays unclear
                if not patience.wait(trouble):
                    # Nor is it known which runs are ours.
                    self._abandon(transaction.lease_id)
                    raise UnclearCommitError(str(error)) from error

    def _look(self, lease_id: int) -> bool:
        """Return whether the last batch was written under this lease.

        Waits for the lock on the lease's row, which the lost connection may still hold. If the
        batch is not on disk, this makes sure that it never will be: a statement that is a
        transaction by itself may still be on its way to the server, and would otherwise be executed
        after its successor. Advancing the number closes the fence for it.
        """
        connection, cursor = self._connect()
        begun = self._database.begin(connection)
        try:
            self.transaction(connection, cursor, lease_id=None).fence()
            if lease_id != self.lease_id:
                # The lease was created by that batch. A lock would not find its row before it is
                # committed, but inserting the same key waits for the end of that transaction.
                probe: dict[str, Any] = dict.fromkeys(lease.c.keys(), 0)
                probe.update(lease_id=lease_id, host="", boot="", pid_namespace="")
                connection.execute(self._database.insert_missing(lease).values(probe))
            query = sa.select(lease.c.batch).where(lease.c.lease_id == lease_id)
            found = connection.execute(query.with_for_update()).scalar()
            if lease_id != self.lease_id or found == self._number:
                return found == self._number
            skipped = self._number + 1
            connection.execute(
                sa.update(lease).where(lease.c.lease_id == lease_id).values(batch=skipped)
            )
            begun.commit()
            self._number = self._last = skipped
            return False
        finally:
            if begun.is_active:
                begun.rollback()

    def _connect(self) -> tuple[sa.Connection, DBAPICursor]:
        if self._connection is None or self._cursor is None:
            self._check_place()  # a new connection would make the file that is there now its own
            self._connection = connection = self._writers.connect()
            self._line = self._watch.line(connection)
            self._line.asked(self._silence)
            self._database.as_writer(connection)
            self._database.prepare_writer(connection, **self._limits)
            self._cursor = connection.connection.cursor()
            return connection, self._cursor
        if self._line is not None:
            self._line.asked(self._silence)
        return self._connection, self._cursor

    def _drop_connection(self) -> None:
        """Close the connection, whatever state it is in; the next use opens another."""
        connection, self._connection, self._cursor = self._connection, None, None
        line, self._line = self._line, None
        if line is not None:
            line.asked(self._least_silence)  # the rollback waits for an answer, too
        if connection is not None:
            # Without the rollback, an unfinished transaction would hold its locks for as long as
            # anything refers to its cursor.
            with contextlib.suppress(Exception):
                connection.connection.rollback()
            with contextlib.suppress(Exception):
                connection.invalidate()
            with contextlib.suppress(Exception):
                connection.close()
        if line is not None:
            line.close()
