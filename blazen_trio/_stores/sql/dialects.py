"""Everything in which the databases differ."""

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
"""Any number that is ours."""
_SCHEMA_LOCK_WAIT: Final = 60
"""Seconds for which another process may take to migrate, or to end what locks a table."""
_SCHEMA_LOCK_LOOK: Final = 0.1
"""Seconds between two attempts to get the lock, between which the wait can be cancelled."""
_MYSQL: Final = ("mysql", "mariadb")

# MySQL's and MariaDB's clock is told in a zone. In one with summer time an hour comes twice, so
# only UTC will do, and that function tells when the statement began. How long ago that is, is told
# by two others in local time, whose difference is right but for a change of the zone in between,
# which is of some quarters of an hour: these are taken off. A statement does not take a quarter.
_MYSQL_BEGAN: Final = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"
_MYSQL_SINCE: Final = "MOD(TIMESTAMPDIFF(MICROSECOND, NOW(6), SYSDATE(6)) + 86400000000, 900000000)"

# The database's clock, microseconds since the epoch.
_NOW: Final = {
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)",
    **dict.fromkeys(_MYSQL, f"({_MYSQL_BEGAN} + {_MYSQL_SINCE})"),
}


# The same, as of when the statement began. What compares an indexed column with it can use the
# index; the clock itself may change from row to row, so the databases would look at every one.
_STATEMENT_TIME: Final = {
    "sqlite": _NOW["sqlite"],
    "postgresql": "CAST(extract(epoch FROM statement_timestamp()) * 1000000 AS BIGINT)",
    **dict.fromkeys(_MYSQL, _MYSQL_BEGAN),
}


def statement_time(dialect: str) -> sa.ColumnElement[int]:
    """When the statement began, by the database's clock, as an expression: microseconds since the
    epoch.
    """
    return sa.literal_column(_STATEMENT_TIME[dialect], sa.BigInteger)


def now(dialect: str) -> sa.ColumnElement[int]:
    """The database's clock, as an expression: microseconds since the epoch."""
    return sa.literal_column(_NOW[dialect], sa.BigInteger)


def insert_missing(table: sa.Table, dialect: str) -> sa.Insert:
    """An INSERT that leaves alone what is there already."""
    if dialect == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    if dialect == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sa.insert(table).prefix_with("IGNORE")


def returning_id(
    statement: sa.Insert, column: sa.Column[int], dialect: str
) -> sa.Insert | sa.sql.dml.ReturningInsert[Any]:
    """The INSERT, made so that `insert_id` finds the number that the database gave the row."""
    return statement.returning(column) if dialect == "postgresql" else statement


def insert_id(cursor: DBAPICursor, dialect: str) -> int:
    """The number that the database gave the row just inserted."""
    row = cursor.fetchone() if dialect == "postgresql" else (cursor.lastrowid,)
    assert row is not None  # an INSERT of one row returns one
    return int(row[0])


def begin(connection: sa.Connection) -> sa.RootTransaction:
    """Begin a transaction: here, as the driver for SQLite would not, or not in the way that is
    needed.
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
        # A listener of the engine's owner has begun one, and perhaps not as we need it. Nothing was
        # done in it yet.
        driver.rollback()
    # A writer that begins as a reader can be refused when it comes to write; one that begins as a
    # writer waits.
    writer = connection.get_execution_options().get("blazen_trio_role") == "writer"
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")


def begins_otherwise(engine: sa.Engine) -> bool:
    """Whether something is done at each beginning of a transaction that ours need too: by listeners
    of the engine's owner, who may set the role there, or where tables are looked for.
    """
    return engine.dialect.name != "sqlite" and bool(list(engine.dispatch.begin))


class PlainTransaction:
    """A transaction on the driver's own connection, for statements that run on its own cursor:
    SQLAlchemy's part in beginning and ending one costs as much as writing a small row. It begins
    with its first statement.
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
    """Begin a `PlainTransaction`, unless one has begun, where the driver would not do so."""
    if connection.dialect.name == "sqlite":
        driver: Any = connection.connection.dbapi_connection
        if not driver.in_transaction:
            cursor.execute("BEGIN IMMEDIATE")


def has_arrays(dialect: Dialect) -> bool:
    """Whether many rows are given to a statement as arrays. psycopg's own loop would use its
    pipeline mode, which not every pooler of connections knows.
    """
    return dialect.name == "postgresql" and dialect.driver == "psycopg"


@contextlib.contextmanager
def without_transaction(connection: sa.Connection) -> Iterator[None]:
    """For running something that commits by itself. Nothing is sent for that, and nothing is left
    of it where it fails.
    """
    driver: Any = connection.connection.dbapi_connection
    if connection.dialect.name in _MYSQL:
        try:
            yield
        except BaseException:
            with contextlib.suppress(Exception):  # a connection that is lost
                driver.rollback()
            raise
        return
    driver.autocommit = True
    try:
        yield
    except BaseException:
        # Only a connection that is lost refuses this.
        with contextlib.suppress(Exception):
            driver.autocommit = False
        raise
    driver.autocommit = False


def reads_as_of_one_moment(engine: sa.Engine, *, ours: bool) -> dict[str, Any]:
    """The options of a reader's connections: all that a transaction reads is as of one moment."""
    # An engine of ours on MySQL reads so by itself, see `make_engine`; saying so each time costs
    # statements there.
    if engine.dialect.name == "sqlite" or (ours and engine.dialect.name in _MYSQL):
        return {}
    return {"isolation_level": "REPEATABLE READ"}


def as_writer(connection: sa.Connection) -> sa.Connection:
    """Use this connection for writing: it waits for locks and then sees what others have committed
    while it waited.
    """
    level = {} if connection.dialect.name == "sqlite" else {"isolation_level": "READ COMMITTED"}
    return connection.execution_options(blazen_trio_role="writer", **level)


def prepare_writer(connection: sa.Connection, *, busy_timeout: float, lease_ttl: float) -> None:
    """Set the writer's connection up: a commit is on disk when it returns, and waits `busy_timeout`
    seconds for locks.

    Where the session keeps it, a transaction that a frozen process leaves open is ended after about
    `lease_ttl` seconds.
    """
    name = connection.dialect.name
    if name == "sqlite":
        # Transactions are begun by us alone, so that a statement can be one by itself.
        driver: Any = connection.connection.dbapi_connection
        driver.isolation_level = None
        with contextlib.closing(connection.connection.cursor()) as cursor:
            cursor.execute(f"PRAGMA busy_timeout = {int(busy_timeout * 1000)}")
            cursor.execute("PRAGMA synchronous = FULL")
    elif name in _MYSQL:
        is_mariadb = getattr(connection.dialect, "is_mariadb", False)
        # MySQL ends sessions that are idle only, in a transaction or not; one that was is opened
        # again.
        idle = "idle_write_transaction_timeout" if is_mariadb else "wait_timeout"
        locks = max(1, math.ceil(busy_timeout))
        limits = {
            idle: max(1, math.ceil(lease_ttl)),
            "innodb_lock_wait_timeout": locks,
            "lock_wait_timeout": locks,  # for whoever changes a table
        }
        given = ", ".join(f"SESSION {name} = {limit}" for name, limit in limits.items())
        with contextlib.closing(connection.connection.cursor()) as cursor:
            cursor.execute(f"SET {given}")


def bounds(dialect: str, *, busy_timeout: float, lease_ttl: float) -> list[sa.ColumnElement[Any]]:
    """What to select so that this transaction is bounded as `prepare_writer` says, where that is
    not done there.

    For PostgreSQL, and for the transaction only: a session may be somebody else's after it, behind
    a pooler.
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
    """Set what a database keeps for good. Not in a transaction.

    Raises:
        StoreError: The file system can't do what is needed.
    """
    if connection.dialect.name != "sqlite":
        return
    cursor = connection.connection.cursor()
    try:
        mode = cursor.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    except connection.dialect.loaded_dbapi.OperationalError as error:
        # Whoever opens the same new file beside us holds it for a moment, and SQLite does not wait
        # here.
        if not is_busy(error):
            raise
        time.sleep(0.2)
        mode = cursor.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    finally:
        cursor.close()
    if mode != "wal":
        raise StoreError(
            f"SQLite can't keep a write-ahead log for this file (its journal mode stays {mode!r}); "
            "put it on a local disk"
        )


def locking(query: sa.Select[Any], *, wait: bool) -> sa.Select[Any]:
    """The query, made so that it locks what it finds; where not to wait, it finds only what nobody
    else has locked.
    """
    # SQLite has one lock for all, and ours already.
    return query.with_for_update(skip_locked=not wait)


def socket_of(connection: sa.Connection) -> int | None:
    """Return the file number of a connection's socket; `None` where none is known."""
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
    """Begin a transaction in which nobody else migrates.

    On SQLite whoever has begun to write has that lock. A server is asked for it again and again, so
    the wait for it can be given up.

    Args:
        connection: It may be a server's.
        checkpoint: Is called while the lock is waited for, and raises where that is to end.

    Raises:
        StoreError: Somebody else has been migrating for too long.
    """
    name = connection.dialect.name
    if name == "sqlite":
        with begin(as_writer(connection)):
            yield
    elif name == "postgresql":
        with begin(connection):
            _wait_for(connection, sa.func.pg_try_advisory_xact_lock(_SCHEMA_LOCK), checkpoint)
            # What locks a table that is to be changed is waited for no longer than that.
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_SCHEMA_LOCK_WAIT}s'")
            yield
    else:
        # Its statements that change the schema commit by themselves, so the session has the lock,
        # not the transaction.
        with begin(connection):
            connection.exec_driver_sql(f"SET SESSION lock_wait_timeout = {_SCHEMA_LOCK_WAIT}")
            # A name may have 64 letters.
            lock = sa.func.concat("blazen_trio.", sa.func.md5(sa.func.database()))
            _wait_for(connection, sa.func.get_lock(lock, 0), checkpoint)
            try:
                yield
            finally:
                # A connection that is lost has lost the lock too.
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
                f"another process has been upgrading the schema for {_SCHEMA_LOCK_WAIT} s: see "
                "what keeps it, and try again when it is done"
            )
        time.sleep(_SCHEMA_LOCK_LOOK)
