"""Writes in a caller's own transaction, which commit together with the caller's rows or not."""

from __future__ import annotations

import contextlib
import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from blazen_trio._stores.sql import databases
from blazen_trio._stores.sql.engine import shown
from blazen_trio._stores.sql.faults import translate, translate_in_callers
from blazen_trio._stores.sql.troubles import is_busy

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine.interfaces import DBAPICursor

    from blazen_trio._stores.sql.batches import Batches
    from blazen_trio._stores.sql.jobs import Job

__all__ = ["Callers", "check_connection"]

T = TypeVar("T")


def check_connection(connection: Any) -> None:
    """Refuse anything but a connection in a transaction.

    Raises:
        TypeError: The argument is not a connection.
        ValueError: The connection is not in a transaction.
    """
    if not isinstance(connection, sa.Connection):
        msg = (
            f"connection={connection!r:.80}: expected a sqlalchemy.Connection to this store's "
            "database"
        )
        raise TypeError(msg)
    if not connection.in_transaction():
        msg = (
            "connection= has no transaction, but it is for writes that are committed together with "
            "your own rows. Start one: with engine.begin() as connection: ..."
        )
        raise ValueError(msg)


class Callers:
    """Writes jobs in transactions of callers, for one opening.

    Each call has a thread of its own: it may wait for a lock whose holder commits only once another
    task gets a thread, so a limit on threads could deadlock. The callers' connections are the
    bound.
    """

    def __init__(self, engine: sa.Engine, batches: Batches) -> None:
        self._engine = engine
        self._database = databases.of(engine)
        self._batches = batches
        self._lock = threading.Lock()
        self._ours: tuple[Any, ...] | None = None
        # By pool: an engine has copies with other options, but all engines of one pool connect to
        # the same database. Our own pool is known from the start. To ask it for a connection while
        # callers hold all of them would be a deadlock: they wait for us.
        self._same: weakref.WeakSet[sa.Pool] = weakref.WeakSet([engine.pool])

    def write(self, connection: sa.Connection, job: Job) -> Any:
        """Do a job in its caller's own transaction. It is on disk when, and if, they commit.

        If the job is refused, only the job is rolled back: the caller's transaction stays as it
        was.

        Raises:
            ValueError: The connection commits each statement, or is connected to another database.
            StoreError: The job could not be written.
            WorkflowError: The job was refused.
        """
        with contextlib.closing(connection.connection.cursor()) as cursor:
            try:
                self._check(connection, cursor)
                return self._write(connection, cursor, job)
            except connection.dialect.loaded_dbapi.Error as error:
                if is_busy(error):
                    raise translate_in_callers(error, job.run_id) from error
                raise job.failed(error) from error

    def read(
        self, connection: sa.Connection, query: Callable[[sa.Connection], T], run_id: str
    ) -> T:
        """Run a query about a run in the caller's own transaction, which will write to it next.

        Raises:
            ValueError: As in `write`.
            StoreError: The run can't be read.
            WorkflowError: Raised by the query.
        """
        with contextlib.closing(connection.connection.cursor()) as cursor:
            try:
                self._check(connection, cursor)
                self._database.become_writer(connection, cursor)
                return query(connection)
            except (sa.exc.DBAPIError, connection.dialect.loaded_dbapi.Error) as error:
                if is_busy(error):
                    raise translate_in_callers(error, run_id) from error
                doing = f"run {run_id!r} could not be read"
                raise translate(error, doing, run_id, writing=False) from error

    def _write(self, connection: sa.Connection, cursor: DBAPICursor, job: Job) -> Any:
        self._database.become_writer(connection, cursor)
        cursor.execute("SAVEPOINT blazen_trio")
        try:
            transaction = self._batches.transaction(connection, cursor, lease_id=None)
            result = job.apply(transaction)
            transaction.finish()
        except BaseException:
            # On PostgreSQL any error aborts the whole transaction; elsewhere, half of the job may
            # be written.
            try:
                cursor.execute("ROLLBACK TO SAVEPOINT blazen_trio")
                cursor.execute("RELEASE SAVEPOINT blazen_trio")
            except Exception:  # noqa: BLE001  # the first error is the one to report
                _end(connection)
            raise
        cursor.execute("RELEASE SAVEPOINT blazen_trio")
        return result

    def _check(self, connection: sa.Connection, cursor: DBAPICursor) -> None:
        database = databases.KINDS.get(connection.dialect.name)
        if database is not None and database.commits_by_itself(connection):
            msg = (
                "connection= is in AUTOCOMMIT mode, so each statement is committed by itself, but "
                "it is for writes that are committed together with your own rows. Use a connection "
                "with another isolation_level"
            )
            raise ValueError(msg)
        with self._lock:
            if connection.engine.pool in self._same:
                return
        theirs = None if database is None else database.identify(connection, cursor)
        if theirs != self._identity_of_ours():
            msg = (
                f"connection= is connected to {shown(connection.engine.url)}, but this store is in "
                f"another database, {shown(self._engine.url)}"
            )
            raise ValueError(msg)
        with self._lock:
            self._same.add(connection.engine.pool)

    def _identity_of_ours(self) -> tuple[Any, ...]:
        if self._ours is None:
            with (
                self._engine.connect() as connection,
                contextlib.closing(connection.connection.cursor()) as cursor,
            ):
                self._ours = self._database.identify(connection, cursor)
        return self._ours


def _end(connection: sa.Connection) -> None:
    """Roll back a caller's transaction that the database has ended, and our savepoint with it.

    SQLAlchemy would not notice otherwise: the caller's next rows would be written and committed
    without the rows before them.
    """
    transaction = connection.get_transaction()
    if transaction is not None:
        with contextlib.suppress(Exception):
            transaction.rollback()
