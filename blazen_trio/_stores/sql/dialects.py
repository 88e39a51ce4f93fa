"""The differences between the databases."""

from __future__ import annotations

import contextlib
import math
import time
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from blazen_trio._stores.sql.troubles import is_busy
from blazen_trio.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine.interfaces import DBAPICursor, Dialect

__all__ = [
    "PlainTransaction",
    "as_writer",
    "begin",
    "begin_plainly",
    "begins_otherwise",
    "bounds",
    "has_arrays",
    "insert_id",
    "insert_missing",
    "locking",
    "now",
    "prepare_database",
    "prepare_writer",
    "reads_as_of_one_moment",
    "returning_id",
    "schema_lock",
    "socket_of",
    "statement_time",
    "without_transaction",
]

_SCHEMA_LOCK: Final = 0x626C617A
"""An arbitrary number, used for nothing else."""
_SCHEMA_LOCK_WAIT: Final = 60
"""Seconds that another process may take to migrate, or to end a transaction that locks a table."""
_SCHEMA_LOCK_LOOK: Final = 0.1
"""Seconds between two attempts to get the lock, between which the wait can be cancelled."""
_MYSQL: Final = ("mysql", "mariadb")

# The clock of MySQL and MariaDB has a time zone. Where there is summer time, one hour comes twice,
# so only UTC will do, but that function returns when the statement started. How long ago that was
# is the difference of two others in local time. It is right unless the zone's offset changes in
# between, by some quarters of an hour: these are taken off, since no statement takes that long.
_MYSQL_BEGAN: Final = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"
_MYSQL_SINCE: Final = "MOD(TIMESTAMPDIFF(MICROSECOND, NOW(6), SYSDATE(6)) + 86400000000, 900000000)"

# The database's clock, microseconds since the epoch.
_NOW: Final = {
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)",
    **dict.fromkeys(_MYSQL, f"({_MYSQL_BEGAN} + {_MYSQL_SINCE})"),
}


# The same clock, as of the statement's start. A condition that compares an indexed column with it
# can use the index. The clock itself may change from row to row, so the databases would scan them.
_STATEMENT_TIME: Final = {
    "sqlite": _NOW["sqlite"],
    "postgresql": "CAST(extract(epoch FROM statement_timestamp()) * 1000000 AS BIGINT)",
    **dict.fromkeys(_MYSQL, _MYSQL_BEGAN),
}


def statement_time(dialect: str) -> sa.ColumnElement[int]:
    """Return an expression for the statement's start by the database's clock.

    Its unit is microseconds since the epoch.
    """
    return sa.literal_column(_STATEMENT_TIME[dialect], sa.BigInteger)


def now(dialect: str) -> sa.ColumnElement[int]:
    """Return an expression for the database's clock: microseconds since the epoch."""
    return sa.literal_column(_NOW[dialect], sa.BigInteger)


def insert_missing(table: sa.Table, dialect: str) -> sa.Insert:
    """Return an INSERT that skips rows that already exist."""
    if dialect == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    if dialect == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sa.insert(table).prefix_with("IGNORE")


def returning_id(
    statement: sa.Insert, column: sa.Column[int], dialect: str
) -> sa.Insert | sa.sql.dml.ReturningInsert[Any]:
    """Return the INSERT in a form whose generated number `insert_id` can find."""
    return statement.returning(column) if dialect == "postgresql" else statement


def insert_id(cursor: DBAPICursor, dialect: str) -> int:
    """Return the number that the database assigned to the row just inserted."""
    row = cursor.fetchone() if dialect == "postgresql" else (cursor.lastrowid,)
    assert row is not None  # an INSERT of one row returns one
    return int(row[0])


def begin(connection: sa.Connection) -> sa.RootTransaction:
    """Start a transaction.

    On SQLite this is explicit: the driver would not start one, or not of the kind needed.
    """
    begun = connection.begin()
    if connection.dialect.name == "sqlite":
        try:
            _begin_sqlite(connection)
        except BaseException:
            begun.rollback()
            raise
    return begun


def _begin_sqlite(connection: sa.Connection) -> None:
    driver: Any = connection.connection.dbapi_connection
    if driver.in_transaction:
        # An event listener of the engine's owner has started one, perhaps of another kind. Nothing
        # has been done in it yet.
        driver.rollback()
    # A transaction that starts as a reader may be refused when it first writes; one that starts as
    # a writer waits.
    writer = connection.get_execution_options().get("blazen_trio_role") == "writer"
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")


def begins_otherwise(engine: sa.Engine) -> bool:
    """Return whether the engine has listeners for the start of a transaction.

    The engine's owner may set a role or a search path there, which our transactions need too.
    """
    return engine.dialect.name != "sqlite" and bool(list(engine.dispatch.begin))


class PlainTransaction:
    """A transaction on the driver's own connection, for statements on the driver's own cursor.

    SQLAlchemy's share of starting and ending a transaction costs as much as writing a small row.
    The transaction starts with its first statement.
    """

    def __init__(self, connection: sa.Connection) -> None:
        driver = connection.connection.dbapi_connection
        assert driver is not None  # the writer's connection is open
        self._driver = driver

    def commit(self) -> None:
        """Commit."""
        self._driver.commit()

    def rollback(self) -> None:
        """Roll back."""
        self._driver.rollback()


def begin_plainly(connection: sa.Connection, cursor: DBAPICursor) -> None:
    """Start a `PlainTransaction` if none has started and the driver would not start it itself."""
    if connection.dialect.name == "sqlite":
        driver: Any = connection.connection.dbapi_connection
        if not driver.in_transaction:
            cursor.execute("BEGIN IMMEDIATE")


def has_arrays(dialect: Dialect) -> bool:
    """Return whether a statement for many rows gets them as arrays.

    psycopg's own loop would use its pipeline mode, which not every connection pooler supports.
    """
    return dialect.name == "postgresql" and dialect.driver == "psycopg"


@contextlib.contextmanager
def without_transaction(connection: sa.Connection) -> Iterator[None]:
    """Let the block run a statement that commits by itself.

    Switching the mode sends nothing to the server, and a failure leaves no transaction open.
    """
    driver: Any = connection.connection.dbapi_connection
    if connection.dialect.name in _MYSQL:
        try:
            yield
        except BaseException:
            with contextlib.suppress(Exception):  # fails if the connection is lost
                driver.rollback()
            raise
        return
    driver.autocommit = True
    try:
        yield
    except BaseException:
        # This fails only if the connection is lost.
        with contextlib.suppress(Exception):
            driver.autocommit = False
        raise
    driver.autocommit = False


def reads_as_of_one_moment(engine: sa.Engine, *, ours: bool) -> dict[str, Any]:
    """Return options for a reader's connections: a transaction reads as of one moment."""
    # Our own engines on MySQL do so by default, see `make_engine`; setting the option each time
    # would cost statements there.
    if engine.dialect.name == "sqlite" or (ours and engine.dialect.name in _MYSQL):
        return {}
    return {"isolation_level": "REPEATABLE READ"}


def as_writer(connection: sa.Connection) -> sa.Connection:
    """Return this connection set up for writing.

    It waits for locks, and then sees what others committed while it waited.
    """
    level = {} if connection.dialect.name == "sqlite" else {"isolation_level": "READ COMMITTED"}
    return connection.execution_options(blazen_trio_role="writer", **level)


def prepare_writer(connection: sa.Connection, *, busy_timeout: float, lease_ttl: float) -> None:
    """Set up the writer's connection: a commit is on disk when it returns.

    The connection waits `busy_timeout` seconds for locks. Where this is a setting of the session,
    the server ends a transaction that a frozen process leaves open after about `lease_ttl` seconds.
    """
    name = connection.dialect.name
    if name == "sqlite":
        # The driver must not start transactions, so that a statement can be one by itself.
        driver: Any = connection.connection.dbapi_connection
        driver.isolation_level = None
        with contextlib.closing(connection.connection.cursor()) as cursor:
            cursor.execute(f"PRAGMA busy_timeout = {int(busy_timeout * 1000)}")
            cursor.execute("PRAGMA synchronous = FULL")
    elif name in _MYSQL:
        is_mariadb = getattr(connection.dialect, "is_mariadb", False)
        # MySQL can only end idle sessions, in a transaction or not; an ended one is opened again.
        idle = "idle_write_transaction_timeout" if is_mariadb else "wait_timeout"
        locks = max(1, math.ceil(busy_timeout))
        limits = {
            idle: max(1, math.ceil(lease_ttl)),
            "innodb_lock_wait_timeout": locks,
            "lock_wait_timeout": locks,  # for changes of tables
        }
        given = ", ".join(f"SESSION {name} = {limit}" for name, limit in limits.items())
        with contextlib.closing(connection.connection.cursor()) as cursor:
            cursor.execute(f"SET {given}")


def bounds(dialect: str, *, busy_timeout: float, lease_ttl: float) -> list[sa.ColumnElement[Any]]:
    """Return expressions to select so that a transaction is bounded as in `prepare_writer`.

    Only for PostgreSQL, where the bounds are set for the transaction: behind a pooler, another
    client may use the session after it.
    """
    if dialect != "postgresql":
        return []
    limits = {
        "idle_in_transaction_session_timeout": max(1, math.ceil(lease_ttl * 1000)),
        "lock_timeout": max(1, math.ceil(busy_timeout * 1000)),
    }
    texts = (f"set_config('{name}', '{limit}', true)" for name, limit in limits.items())
    return [sa.literal_column(text) for text in texts]


def prepare_database(connection: sa.Connection) -> None:
    """Set persistent options of a database. Must not run in a transaction.

    Raises:
        StoreError: The file system does not support a write-ahead log.
    """
    if connection.dialect.name != "sqlite":
        return
    cursor = connection.connection.cursor()
    try:
        mode = cursor.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    except connection.dialect.loaded_dbapi.OperationalError as error:
        # Another process that opens the same new file locks it for a moment, and SQLite does not
        # wait for that lock.
        if not is_busy(error):
            raise
        time.sleep(0.2)
        mode = cursor.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    finally:
        cursor.close()
    if mode != "wal":
        raise StoreError(
            f"SQLite can't use a write-ahead log for this file (its journal mode stays {mode!r}); "
            "put it on a local disk"
        )


def locking(query: sa.Select[Any], *, wait: bool) -> sa.Select[Any]:
    """Return the query in a form that locks the rows it finds.

    Without `wait`, it skips rows that others have locked.
    """
    # SQLite ignores this: it has one lock, which we already hold.
    return query.with_for_update(skip_locked=not wait)


def socket_of(connection: sa.Connection) -> int | None:
    """Return the file descriptor of a connection's socket; `None` if it is unknown."""
    driver: Any = connection.connection.dbapi_connection
    for having in (driver, getattr(driver, "_sock", None)):  # psycopg's connection; PyMySQL's
        fileno = getattr(having, "fileno", None)
        if fileno is not None:
            number = int(fileno())
            return number if number >= 0 else None
    return None


@contextlib.contextmanager
def schema_lock(
    connection: sa.Connection,
    checkpoint: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Start a transaction during which no other process migrates.

    On SQLite, the write lock serves for this. A server is asked for a lock repeatedly, so that the
    wait can be cancelled.

    Args:
        connection: A connection to SQLite or a server.
        checkpoint: Called while waiting for the lock; raises to end the wait.

    Raises:
        StoreError: Another process has been migrating for too long.
    """
    name = connection.dialect.name
    if name == "sqlite":
        with begin(as_writer(connection)):
            yield
    elif name == "postgresql":
        with begin(connection):
            _wait_for(connection, sa.func.pg_try_advisory_xact_lock(_SCHEMA_LOCK), checkpoint)
            # Bounds the wait for transactions that lock a table to be changed.
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_SCHEMA_LOCK_WAIT}s'")
            yield
    else:
        # Statements that change the schema commit by themselves here, so the session holds the
        # lock, not the transaction.
        with begin(connection):
            connection.exec_driver_sql(f"SET SESSION lock_wait_timeout = {_SCHEMA_LOCK_WAIT}")
            # A lock's name may have 64 characters.
            lock = sa.func.concat("blazen_trio.", sa.func.md5(sa.func.database()))
            _wait_for(connection, sa.func.get_lock(lock, 0), checkpoint)
            try:
                yield
            finally:
                # If the connection is lost, so is the lock.
                with contextlib.suppress(sa.exc.DBAPIError):
                    connection.execute(sa.select(sa.func.release_lock(lock)))


def _wait_for(
    connection: sa.Connection,
    lock: sa.ColumnElement[Any],
    checkpoint: Callable[[], None],
) -> None:
    until = time.monotonic() + _SCHEMA_LOCK_WAIT
    while not connection.execute(sa.select(lock)).scalar():
        checkpoint()
        if time.monotonic() > until:
            raise StoreError(
                f"another process has been upgrading the schema for {_SCHEMA_LOCK_WAIT} s: find "
                "out what blocks it, and try again when it is done"
            )
        time.sleep(_SCHEMA_LOCK_LOOK)
