"""The interface of a database: where the three that the store knows differ."""

from __future__ import annotations

import contextlib
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Final

import attrs
import sqlalchemy as sa

from blazen_trio._stores.sql.statements import Sql
from blazen_trio.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy.engine.interfaces import DBAPICursor, Dialect

    from blazen_trio._stores.sql.statements import Row, Statement, Statements

__all__ = [
    "KINDS",
    "SCHEMA_LOCK_WAIT",
    "Database",
    "Echo",
    "PlainTransaction",
    "of",
    "wait_for_schema_lock",
]

SCHEMA_LOCK_WAIT: Final = 60
"""Seconds that another process may take to migrate, or to end a transaction that locks a table."""
_SCHEMA_LOCK_LOOK: Final = 0.1
"""Seconds between two attempts to get the lock, between which the wait can be cancelled."""


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


@attrs.frozen
class Echo:
    """A query that returns its parameters, to test whether a connection keeps them as they are.

    Attributes:
        sql: Its text. The first parameter is text, the others are bytes.
        advice: What to do if it does not.
        any_letter: Whether every letter of Unicode must be kept.
        in_array: Whether a third parameter is an array, of whose second element it returns.
    """

    sql: str
    advice: str
    any_letter: bool = True
    in_array: bool = False


class Database(Sql):
    """A kind of database: its SQL, and everything else in which it differs from the others.

    Has no state: there is one object of each kind.

    Attributes:
        name: The name of SQLAlchemy's dialect.
        clock: SQL for the database's clock: microseconds since the epoch, UTC.
        statement_clock: SQL for the same clock, as of the statement's start. A condition that
            compares an indexed column with it can use the index. The clock itself may change from
            row to row, so databases would scan the rows.
        in_a_file: Whether a database is a file of this host, which its user creates and upgrades.
    """

    name: str
    clock: ClassVar[str]
    statement_clock: ClassVar[str]
    in_a_file: ClassVar[bool] = False

    @abstractmethod
    def statements(self, dialect: Dialect, *, busy_timeout: float, lease_ttl: float) -> Statements:
        """Return the statements of the hot path for a driver.

        Where a session's settings are not enough, they bound each transaction as `prepare_writer`
        says.
        """

    def now(self) -> sa.ColumnElement[int]:
        """Return an expression for the database's clock."""
        return sa.literal_column(self.clock, sa.BigInteger)

    def statement_time(self) -> sa.ColumnElement[int]:
        """Return an expression for the clock as of the statement's start."""
        return sa.literal_column(self.statement_clock, sa.BigInteger)

    @abstractmethod
    def insert_missing(self, table: sa.Table) -> sa.Insert:
        """Return an INSERT that skips rows that already exist."""

    def insert_id(self, cursor: DBAPICursor) -> int:
        """Return the number that the database gave to the row just inserted."""
        return int(cursor.lastrowid)

    def run_all(
        self,
        connection: sa.Connection,
        cursor: DBAPICursor,
        work: Iterable[tuple[Statement, list[Row]]],
        first: Callable[[int], None],
    ) -> dict[Statement, int]:
        """Run these statements, each for all of its rows, in this order.

        Args:
            connection: The connection.
            cursor: Its driver's cursor.
            work: The statements, none of which returns rows that matter, with their rows.
            first: Called with the number of rows that the first statement found. Later statements
                may already have been run, so if it raises, the transaction must be rolled back.

        Returns:
            How many rows each statement found or wrote.
        """
        found: dict[Statement, int] = {}
        for statement, rows in work:
            found[statement] = statement.execute_many(cursor, rows)
            if len(found) == 1:
                first(found[statement])
        return found

    # Transactions.

    def begin(self, connection: sa.Connection) -> sa.RootTransaction:
        """Start a transaction."""
        return connection.begin()

    def begin_plainly(self, connection: sa.Connection, cursor: DBAPICursor) -> None:
        """Start a `PlainTransaction` if none has started and the driver would not start it."""

    def begins_otherwise(self, engine: sa.Engine) -> bool:
        """Return whether the engine has listeners for the start of a transaction.

        The engine's owner may set a role or a search path there, which our transactions need too.
        """
        return bool(list(engine.dispatch.begin))

    @contextlib.contextmanager
    def without_transaction(self, connection: sa.Connection) -> Iterator[None]:
        """Let the block run a statement that commits by itself.

        Switching the mode sends nothing to the server, and a failure leaves no transaction open.
        """
        driver: Any = connection.connection.dbapi_connection
        driver.autocommit = True
        try:
            yield
        except BaseException:
            # This fails only if the connection is lost.
            with contextlib.suppress(Exception):
                driver.autocommit = False
            raise
        driver.autocommit = False

    def become_writer(self, connection: sa.Connection, cursor: DBAPICursor) -> None:
        """Get ready to write in a caller's own transaction, before anything is read."""

    def commits_by_itself(self, connection: sa.Connection) -> bool:
        """Return whether the driver commits each statement, even in SQLAlchemy's transaction."""
        driver: Any = connection.connection.dbapi_connection
        return bool(getattr(driver, "autocommit", False))

    # Connections.

    def reads_as_of_one_moment(self, *, ours: bool) -> dict[str, Any]:
        """Return options for a reader's connections: a transaction reads as of one moment.

        Args:
            ours: Whether the engine is one of ours.
        """
        return {"isolation_level": "REPEATABLE READ"}

    def as_writer(self, connection: sa.Connection) -> sa.Connection:
        """Return this connection set up for writing.

        It waits for locks, and then sees what others committed while it waited.
        """
        return connection.execution_options(isolation_level="READ COMMITTED")

    def prepare_writer(
        self, connection: sa.Connection, *, busy_timeout: float, lease_ttl: float
    ) -> None:
        """Set up the writer's connection: a commit is on disk when it returns.

        The connection waits `busy_timeout` seconds for locks. Where this is a setting of the
        session, the server ends a transaction that a frozen process leaves open after about
        `lease_ttl` seconds.
        """

    def prepare_database(self, connection: sa.Connection) -> None:
        """Set persistent options of a database. Must not run in a transaction.

        Raises:
            StoreError: The database can't have them.
        """

    def check_settings(self, connection: sa.Connection, cursor: DBAPICursor) -> None:
        """Refuse settings of a connection or a server with which a store would fail later.

        Raises:
            StoreError: A setting is unsuitable.
        """

    @abstractmethod
    def echo(self, dialect: Dialect) -> Echo:
        """Return a query that returns its parameters."""

    @abstractmethod
    def identify(self, connection: sa.Connection, cursor: DBAPICursor) -> tuple[Any, ...]:
        """Return a value that distinguishes this database from any other."""

    # Queries whose plan must not be left to chance.

    @abstractmethod
    def first_of(self, table: sa.Table, run_no: int, count: int) -> sa.Select[Any]:
        """Return a query for the first rows of an inbox, by the index that has them in order.

        It keeps planners from using the primary key, which would scan the rows of all other runs.
        """

    @abstractmethod
    def following(self, run_no: sa.Column[int], last: int, count: int) -> sa.Select[Any]:
        """Return a query for the next different values after `last` of an indexed column.

        One row of the index is read for each of them, no matter how many rows have it.
        """

    # Migrations.

    @abstractmethod
    def schema_lock(
        self, connection: sa.Connection, checkpoint: Callable[[], None] = ...
    ) -> contextlib.AbstractContextManager[None]:
        """Start a transaction during which no other process migrates.

        A server is asked for a lock repeatedly, so that the wait can be cancelled.

        Args:
            connection: A connection to the database.
            checkpoint: Called while waiting for the lock; raises to end the wait.

        Raises:
            StoreError: Another process has been migrating for too long.
        """


KINDS: Final[dict[str, Database]] = {}
"""Each database by the name of SQLAlchemy's dialect."""


def of(bind: sa.Engine | sa.Connection) -> Database:
    """Return the database that an engine or a connection is for."""
    return KINDS[bind.dialect.name]


def wait_for_schema_lock(
    connection: sa.Connection, lock: sa.ColumnElement[Any], checkpoint: Callable[[], None]
) -> None:
    """Ask for a lock of the server until it is granted.

    Args:
        connection: A connection to a server.
        lock: The expression that tries to get the lock, and says whether it did.
        checkpoint: Called between two attempts; raises to end the wait.

    Raises:
        StoreError: Another process has had it for too long.
    """
    until = time.monotonic() + SCHEMA_LOCK_WAIT
    while not connection.execute(sa.select(lock)).scalar():
        checkpoint()
        if time.monotonic() > until:
            raise StoreError(
                f"another process has been upgrading the schema for {SCHEMA_LOCK_WAIT} s: find "
                "out what blocks it, and try again when it is done"
            )
        time.sleep(_SCHEMA_LOCK_LOOK)


def next_different(run_no: sa.Column[int], last: int, count: int) -> sa.Select[Any]:
    """Return a query that leaps through an index from one value to the next.

    For databases that would otherwise read every row: their DISTINCT does not skip.
    """
    one: sa.ColumnElement[int] = sa.literal_column("1", sa.Integer)
    first = sa.select(sa.func.min(run_no).label("run_no"), one.label("number")).where(run_no > last)
    leaps = first.cte("mailed", recursive=True)
    following = sa.select(sa.func.min(run_no)).where(run_no > leaps.c.run_no).scalar_subquery()
    more = leaps.c.run_no.is_not(None) & (leaps.c.number < count)
    leaps = leaps.union_all(sa.select(following, leaps.c.number + 1).where(more))
    return sa.select(leaps.c.run_no).where(leaps.c.run_no.is_not(None))


def first_by_range(table: sa.Table, run_no: int, count: int) -> sa.Select[Any]:
    """Return a query for the first rows of an inbox, by a range of one run.

    The order starts with the run: only the index on both columns has both.
    """
    query = sa.select(table.c.run_no, table.c.mail_id).where(table.c.run_no.between(run_no, run_no))
    return query.order_by(table.c.run_no, table.c.mail_id).limit(count)


def identify_server(
    kind: str, connection: sa.Connection, cursor: DBAPICursor, *queries: str
) -> tuple[Any, ...]:
    """Return what the first of these queries says, best first, that the server answers.

    One that it does not know, or does not allow, is skipped.
    """
    for query in queries:
        cursor.execute("SAVEPOINT blazen_trio_whose")
        try:
            cursor.execute(query)
            row = cursor.fetchone()
        except connection.dialect.loaded_dbapi.Error:
            cursor.execute("ROLLBACK TO SAVEPOINT blazen_trio_whose")
        else:
            cursor.execute("RELEASE SAVEPOINT blazen_trio_whose")
            return (kind, query, *(row or ()))
    return (kind, connection.engine.url.host, connection.engine.url.database)
