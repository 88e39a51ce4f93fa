"""MariaDB and MySQL: the SQL that a commit sends there, and how it is packed."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any, Final

import attrs
import sqlalchemy as sa

from blazen_trio._stores.sql.databases import base
from blazen_trio._stores.sql.databases.base import Database, Echo
from blazen_trio._stores.sql.schema import PART_SIZE
from blazen_trio._stores.sql.statements import (
    Finder,
    Placeholders,
    Row,
    Statement,
    Statements,
    Whole,
    in_one_line,
)
from blazen_trio.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy.engine.interfaces import DBAPICursor, Dialect

__all__ = ["MULTI_STATEMENTS", "MySQL", "takes_packets"]

MULTI_STATEMENTS: Final = 1 << 16
"""The client's flag that requests packets of several statements."""

_PACKET = 1_000_000
"""Characters per packet, unless a single row has more; a server accepts rows that it can store."""
_LEAST_PACKET: Final = 2 * PART_SIZE + 64 * 1024
"""Bytes: a part of a payload, each byte of which may be escaped, plus the statement around it."""

# The clock has a time zone. Where there is summer time, one hour comes twice, so only UTC will do,
# but that function returns when the statement started. How long ago that was is the difference of
# two others in local time. It is right unless the zone's offset changes in between, by some
# quarters of an hour: these are taken off, since no statement takes that long.
_BEGAN: Final = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"
_SINCE: Final = "MOD(TIMESTAMPDIFF(MICROSECOND, NOW(6), SYSDATE(6)) + 86400000000, 900000000)"


class MySQL(Database):
    """MariaDB and MySQL.

    On MariaDB, a batch of one entry is `append_whole`, a block that also commits. Any other batch
    is `renew` and each statement for all of its rows in one packet, then COMMIT. A connection that
    takes no packets gets one statement after the other.

    In the SQL below, a name in braces is a parameter, such as `%(run_no)s`, and `{now}` is the
    clock. `{rows}` is a list of rows, `(%(run_no)s, %(seq)s, ...), ...`. In a packet, a statement
    without it is repeated for each row. Statuses are written as `schema.STATUS_CODES`: 1 is queued,
    2 running, 4 waiting, 6 failed, 5 to 8 ended.
    """

    clock = f"({_BEGAN} + {_SINCE})"
    statement_clock = _BEGAN

    # The fence.
    renew = """
        UPDATE blazen_lease SET expires = {now} + {ttl}, batch = {number}
        WHERE lease_id = {lease_id} AND state = 1 AND batch = {last}"""

    # The lease has this batch's number only if the UPDATE has just set it, so a closed fence
    # selects nothing. If the block is refused half-way, its COMMIT is not reached, and
    # `without_transaction` rolls back. MySQL has no blocks.
    append_whole = """
        BEGIN NOT ATOMIC
          UPDATE blazen_lease SET expires = {now} + {ttl}, batch = {number}
          WHERE lease_id = {lease_id} AND state = 1 AND batch = {last};
          INSERT INTO blazen_journal (run_no, seq, part, format, data)
          SELECT {run_no}, {seq}, {part}, {format}, {data}
          FROM blazen_lease WHERE lease_id = {lease_id} AND batch = {number};
          COMMIT;
        END"""

    # What a commit appends.
    add_entry = "INSERT INTO blazen_journal (run_no, seq, part, format, data) VALUES {rows}"
    add_snapshot = "INSERT INTO blazen_snapshot (run_no, seq, part, format, data) VALUES {rows}"
    add_history = "INSERT INTO blazen_history (run_no, seq, part, format, data) VALUES {rows}"
    add_blob = "INSERT IGNORE INTO blazen_blob (run_no, digest, part, format, data) VALUES {rows}"

    # A run's row.
    add_run = """
        INSERT INTO blazen_run
          (run_id, workflow, version, status, owner, created, updated, error, wake, listed)
        VALUES {rows}"""
    find_runs = "SELECT run_id, run_no, status FROM blazen_run WHERE run_id IN ({values})"
    set_status = """
        UPDATE blazen_run SET status = {status}, error = {error}, updated = {updated}
        WHERE run_no = {run_no}"""
    set_status_only = """
        UPDATE blazen_run SET status = {status}, updated = {updated} WHERE run_no = {run_no}"""
    set_version = "UPDATE blazen_run SET version = {version} WHERE run_no = {run_no}"
    clear_crashes = """
        UPDATE blazen_run
        SET crashes = 0, error = CASE WHEN status IN (5, 6, 7, 8) THEN error END
        WHERE run_no IN ({rows})"""

    # The end of a run, and its release. A `wake` of NULL means now, and -1 (`leases.NEVER`) means
    # that only an inbox message wakes it, so NULL is stored. A run that is queued or running always
    # gets a time, and one that is paused or has ended never does, whatever is given.
    end = """
        UPDATE blazen_run
        SET status = {status}, error = {error}, updated = {updated},
            owner = NULL, wake = NULL, hold = 0
        WHERE run_no = {run_no}"""
    give_back = """
        UPDATE blazen_run
        SET error = coalesce({error}, error), crashes = crashes + {crashed}, owner = NULL,
            wake = CASE
              WHEN status IN (1, 2) THEN coalesce(nullif(CAST({wake} AS SIGNED), -1), {now})
              WHEN status = 4 THEN nullif(coalesce(CAST({wake} AS SIGNED), {now}), -1)
            END,
            hold = {hold}
        WHERE run_no = {run_no} AND owner = {lease_id}"""
    set_aside = """
        UPDATE blazen_run
        SET status = 6, error = {error}, updated = {updated}, owner = NULL, wake = NULL, hold = 0
        WHERE run_no = {run_no} AND owner = {lease_id}"""

    # Inboxes.
    add_mail = "INSERT INTO blazen_inbox (run_no, kind, `key`, format, data) VALUES {rows}"
    add_mail_part = """
        INSERT INTO blazen_inbox_part (run_no, mail_id, part, format, data) VALUES {rows}"""
    take_mail = "DELETE FROM blazen_inbox WHERE mail_id = {mail_id} AND run_no = {run_no}"
    take_mail_parts = """
        DELETE FROM blazen_inbox_part WHERE run_no = {run_no} AND mail_id = {mail_id}"""
    drop_mail = "DELETE FROM blazen_inbox WHERE run_no IN ({rows})"
    drop_mail_parts = "DELETE FROM blazen_inbox_part WHERE run_no IN ({rows})"
    add_key = "INSERT IGNORE INTO blazen_inbox_key (run_no, `key`) VALUES {rows}"
    find_key = "SELECT run_no FROM blazen_inbox_key WHERE run_no = {run_no} AND `key` = {key}"
    drop_key = "DELETE FROM blazen_inbox_key WHERE run_no = {run_no} AND `key` = {key}"

    # The open questions of a run.
    add_question = """
        INSERT INTO blazen_question (run_no, digest, question_id, format, data) VALUES {rows}"""
    drop_question = """
        DELETE FROM blazen_question
        WHERE run_no = {run_no} AND digest = {digest} AND question_id = {question_id}"""
    drop_questions = "DELETE FROM blazen_question WHERE run_no = {run_no}"
    set_listed = "UPDATE blazen_run SET listed = 1 WHERE run_no IN ({rows})"

    # What a snapshot replaces.
    fold_entries = "DELETE FROM blazen_journal WHERE run_no = {run_no} AND seq <= {seq}"
    drop_snapshots = "DELETE FROM blazen_snapshot WHERE run_no = {run_no} AND seq < {seq}"
    find_digests = "SELECT DISTINCT digest FROM blazen_blob WHERE run_no = {run_no}"
    drop_blob = "DELETE FROM blazen_blob WHERE run_no = {run_no} AND digest = {digest}"

    def __init__(self, name: str) -> None:
        self.name = name  # SQLAlchemy has two dialects for it

    def statements(self, dialect: Dialect, *, busy_timeout: float, lease_ttl: float) -> Statements:
        """See `Database.statements`."""

        def prepare(sql: str, *names: str, of: str | None = None, once: bool = False) -> Statement:
            open_end = Placeholders(dialect.paramstyle, now=self.clock, rows="{rows}")
            packed = in_one_line(sql.format_map(open_end))
            places = _WithRows(dialect.paramstyle, names, now=self.clock)
            one = Statement.of(sql, names, places)
            row = places.row_of_list
            return _Statement(one.sql, one.names, one.order, one.by_name, packed, row)

        whole: Whole | None = None
        if dialect.driver == "pymysql" and getattr(dialect, "is_mariadb", False):
            both = prepare(self.append_whole, *Whole.FENCE, *Whole.ENTRY)
            whole = Whole(both.sql, None, counted=1)  # the driver counts the lease's row, too
        return Statements(
            self,
            prepare,
            find_runs=Finder(in_one_line(self.find_runs), dialect.paramstyle),
            append_whole=whole,
        )

    def insert_missing(self, table: sa.Table) -> sa.Insert:
        """See `Database.insert_missing`."""
        return sa.insert(table).prefix_with("IGNORE")

    def run_all(
        self,
        connection: sa.Connection,
        cursor: DBAPICursor,
        work: Iterable[tuple[Statement, list[Row]]],
        first: Callable[[int], None],
    ) -> dict[Statement, int]:
        """See `Database.run_all`. Sends all of it in one packet, if the connection takes those.

        The server runs the statements of a packet in order, and stops at the first that it refuses:
        those before it are done, those behind it are not. It does not stop at a fence that finds no
        lease, so it also does the others, which must not be. Either way this raises. Nothing is
        left once the caller has rolled back, since no packet has a COMMIT.
        """
        if not takes_packets(connection):
            return super().run_all(connection, cursor, work, first)
        found: dict[Statement, int] = {}
        packet: list[tuple[Statement, str]] = []
        size = 0
        for statement, text in _texts(cursor, work):
            if packet and size + len(text) > _PACKET:
                _send(cursor, packet, first, found)
                packet, size, first = [], 0, _ignore
            packet.append((statement, text))
            size += len(text)
        if packet:
            _send(cursor, packet, first, found)
        return found

    @contextlib.contextmanager
    def without_transaction(self, connection: sa.Connection) -> Iterator[None]:
        """See `Database.without_transaction`. The block's statement commits; no mode is needed."""
        driver: Any = connection.connection.dbapi_connection
        try:
            yield
        except BaseException:
            with contextlib.suppress(Exception):  # fails if the connection is lost
                driver.rollback()
            raise

    def commits_by_itself(self, connection: sa.Connection) -> bool:
        """See `Database.commits_by_itself`."""
        driver: Any = connection.connection.dbapi_connection
        if hasattr(driver, "get_autocommit"):
            return bool(driver.get_autocommit())
        return super().commits_by_itself(connection)

    def reads_as_of_one_moment(self, *, ours: bool) -> dict[str, Any]:
        """See `Database.reads_as_of_one_moment`."""
        # Our own engines do so by default, see `make_engine`; setting the option each time would
        # cost statements.
        return {} if ours else super().reads_as_of_one_moment(ours=ours)

    def prepare_writer(
        self, connection: sa.Connection, *, busy_timeout: float, lease_ttl: float
    ) -> None:
        """See `Database.prepare_writer`."""
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

    def check_settings(self, connection: sa.Connection, cursor: DBAPICursor) -> None:
        """Refuse a server whose packets are too small for a part of a payload."""
        cursor.execute("SELECT @@max_allowed_packet")
        row = cursor.fetchone()
        if row is not None and int(row[0]) < _LEAST_PACKET:
            raise StoreError(
                f"this server accepts packets of {row[0]} bytes, but a part of a large payload "
                f"needs {_LEAST_PACKET}: raise its max_allowed_packet to 16 MB, the default"
            )

    def echo(self, dialect: Dialect) -> Echo:
        """See `Database.echo`."""
        advice = "make its connections with charset=utf8mb4, which is the default"
        return Echo("SELECT CONVERT(%s USING utf8mb4), %s", advice)

    def identify(self, connection: sa.Connection, cursor: DBAPICursor) -> tuple[Any, ...]:
        """See `Database.identify`."""
        return base.identify_server(
            "mysql",
            connection,
            cursor,
            "SELECT @@server_uuid, database()",
            "SELECT @@server_uid, database()",
            "SELECT @@hostname, @@port, @@socket, database()",
        )

    def first_of(self, table: sa.Table, run_no: int, count: int) -> sa.Select[Any]:
        """See `Database.first_of`."""
        index = "FORCE INDEX (ix_blazen_inbox_run_no_mail_id)"
        query = sa.select(table.c.run_no, table.c.mail_id).with_hint(table, index)
        return query.where(table.c.run_no == run_no).order_by(table.c.mail_id).limit(count)

    def following(self, run_no: sa.Column[int], last: int, count: int) -> sa.Select[Any]:
        """See `Database.following`. These databases skip from value to value on their own."""
        query = sa.select(run_no).distinct().where(run_no > last)
        return query.order_by(run_no).limit(count)

    @contextlib.contextmanager
    def schema_lock(
        self, connection: sa.Connection, checkpoint: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """See `Database.schema_lock`."""
        # Statements that change the schema commit by themselves here, so the session holds the
        # lock, not the transaction.
        with self.begin(connection):
            wait = base.SCHEMA_LOCK_WAIT
            connection.exec_driver_sql(f"SET SESSION lock_wait_timeout = {wait}")
            # A lock's name may have 64 characters.
            lock = sa.func.concat("blazen_trio.", sa.func.md5(sa.func.database()))
            base.wait_for_schema_lock(connection, sa.func.get_lock(lock, 0), checkpoint)
            try:
                yield
            finally:
                # If the connection is lost, so is the lock.
                with contextlib.suppress(sa.exc.DBAPIError):
                    connection.execute(sa.select(sa.func.release_lock(lock)))


class _WithRows(Placeholders):
    """Placeholders of which `{rows}` is one row of a list."""

    def __init__(self, style: str, names: tuple[str, ...], **texts: str) -> None:
        super().__init__(style, **texts)
        self._names = names
        self.row_of_list: str | None = None

    def __missing__(self, name: str) -> str:
        if name != "rows":
            return super().__missing__(name)
        values = ", ".join(super(_WithRows, self).__missing__(each) for each in self._names)
        self.row_of_list = values if len(self._names) == 1 else f"({values})"
        return self.row_of_list


@attrs.frozen(eq=False)
class _Statement(Statement):
    """A statement that can be a part of a packet.

    Attributes:
        packed: Its text but for its rows.
        row: A row of its list; `None`: it has no list.
    """

    packed: str
    row: str | None

    def texts(self, cursor: Any, rows: list[Row]) -> Iterator[str]:
        """Yield the statement with these rows. The driver itself writes values into the text."""
        if self.row is None:
            yield from (cursor.mogrify(self.sql, self.given(row)) for row in rows)
            return
        some: list[str] = []
        size = least = len(self.packed)
        for row in rows:
            text = cursor.mogrify(self.row, self.given(row))
            if some and size + len(text) > _PACKET:
                yield self.packed.format(rows=",".join(some))
                some, size = [], least
            some.append(text)
            size += len(text) + 1
        yield self.packed.format(rows=",".join(some))


def takes_packets(connection: sa.Connection) -> bool:
    """Return whether this connection was made with the flag, and its server supports it."""
    if connection.dialect.driver != "pymysql":
        return False
    driver: Any = connection.connection.dbapi_connection
    return bool(driver.client_flag & driver.server_capabilities & MULTI_STATEMENTS)


def _texts(
    cursor: Any, work: Iterable[tuple[Statement, list[Row]]]
) -> Iterator[tuple[Statement, str]]:
    for statement, rows in work:
        assert isinstance(statement, _Statement)  # this module prepared it
        for text in statement.texts(cursor, rows):
            yield statement, text


def _ignore(_found: int) -> None:
    pass


def _send(
    cursor: Any,
    packet: list[tuple[Statement, str]],
    first: Callable[[int], None],
    found: dict[Statement, int],
) -> None:
    cursor.execute(";".join(text for _, text in packet))
    try:
        first(cursor.rowcount)
    except BaseException:
        # The connection can be used again, for the rollback, once all answers have been read.
        with contextlib.suppress(Exception):
            while cursor.nextset():
                pass
        raise
    # Wait until everything is done. A refused statement raises here.
    for statement, _ in packet:
        found[statement] = found.get(statement, 0) + cursor.rowcount
        cursor.nextset()
