"""Everything in which the databases differ."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from blazen_trio.errors import StoreError

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPICursor

__all__ = [
    "PlainTransaction",
    "begin",
    "insert_id",
    "insert_missing",
    "is_busy",
    "is_record_fault",
    "lock_schema",
    "now",
    "prepare_database",
    "prepare_writer",
    "returning_id",
]

_SCHEMA_LOCK = 0x626C617A  # any number that is ours

# The database's clock, microseconds since the epoch.
_NOW = {
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)",
    "mysql": "CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)",
    "mariadb": "CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)",
}


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


def begin(connection: sa.Connection) -> None:
    """Begin a transaction where the driver would not, or not in the way that is needed."""
    if connection.dialect.name == "sqlite":
        # A writer that begins as a reader can be refused when it comes to write; one that begins as a writer waits.
        writer = connection.get_execution_options().get("blazen_trio_role") == "writer"
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")


class PlainTransaction:
    """A transaction on the driver's own connection, for statements that run on its own cursor: SQLAlchemy's part in
    beginning and ending one costs as much as writing a small row.
    """

    def __init__(self, connection: sa.Connection, cursor: DBAPICursor) -> None:
        driver = connection.connection.dbapi_connection
        assert driver is not None  # the writer's connection is open
        self._driver = driver
        if connection.dialect.name == "sqlite":
            cursor.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Commit."""
        self._driver.commit()

    def rollback(self) -> None:
        """Roll back."""
        self._driver.rollback()


def prepare_writer(connection: sa.Connection, busy_timeout: float) -> None:
    """Set the writer's connection up: a commit is on disk when it returns, and waits `busy_timeout` seconds for locks."""
    if connection.dialect.name == "sqlite":
        cursor = connection.connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {int(busy_timeout * 1000)}")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()


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
        # Whoever opens the same new file beside us holds it for a moment, and SQLite does not wait here.
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


def lock_schema(connection: sa.Connection) -> None:
    """Wait until nobody else migrates. On SQLite whoever has begun to write has that lock."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))


def is_busy(error: BaseException) -> bool:
    """Whether this is likely to pass: another connection holds a lock."""
    text = str(error).lower()
    return "database is locked" in text or "database table is locked" in text or "deadlock" in text


def is_record_fault(error: BaseException) -> bool:
    """Whether the fault lies in one of the records, so that the others can be written without it."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"IntegrityError", "DataError", "ProgrammingError", "InterfaceError", "OverflowError"})
