"""PostgreSQL: the SQL that a commit sends there, and how its sessions are set up."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any, Final

import attrs
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from blazen_trio._stores.sql.databases import base
from blazen_trio._stores.sql.databases.base import Database, Echo
from blazen_trio._stores.sql.statements import (
    Finder,
    Placeholders,
    Row,
    Statement,
    Statements,
    Whole,
    in_one_line,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy.engine.interfaces import DBAPICursor, Dialect

__all__ = ["PostgreSQL"]

_SCHEMA_LOCK: Final = 0x626C617A
"""An arbitrary number, used for nothing else."""
_IDLE: Final = 0
"""The transaction status of the drivers for a session that is not in a transaction."""
_TYPES: Final = {
    **dict.fromkeys(("status", "part", "format", "listed"), "SMALLINT"),
    **dict.fromkeys(("run_id", "workflow", "version", "error"), "VARCHAR"),
    **dict.fromkeys(("kind", "key", "digest"), "VARCHAR"),
    "data": "BYTEA",
}
"""The types of parameters; any other is a BIGINT."""


class PostgreSQL(Database):
    """PostgreSQL.

    A batch that only appends entries is `append_whole`, which is a transaction by itself. Any other
    is BEGIN, `renew`, each statement for all of its rows, COMMIT.

    In the SQL below, a name in braces is a parameter with its type, such as
    `%(run_no)s::BIGINT`, and `{now}` is the clock. `{from_rows}`, `{using_rows}` and `{and_rows}`
    are nothing if the statement is for one row. For many rows they add a table of them, made of
    one array per parameter, and a name in braces is a column of that table, such as `given.run_no`:

        FROM unnest(%(run_no)s::BIGINT[], %(seq)s::BIGINT[], ...) AS given (run_no, seq, ...)

    Statuses are written as `schema.STATUS_CODES`: 1 is queued, 2 running, 4 waiting, 6 failed,
    5 to 8 ended.
    """

    name = "postgresql"

    clock = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"
    statement_clock = "CAST(extract(epoch FROM statement_timestamp()) * 1000000 AS BIGINT)"

    # The fence, which also bounds the transaction. Both limits, in milliseconds, hold for this
    # transaction only: behind a pooler, another client may use the session after it.
    renew = """
        UPDATE blazen_lease SET expires = {now} + {ttl}, batch = {number}
        WHERE lease_id = {lease_id} AND state = 1 AND batch = {last}
        RETURNING set_config('idle_in_transaction_session_timeout', '{idle}', true),
                  set_config('lock_timeout', '{locks}', true)"""

    # If the fence is closed, `fence` has no row, so nothing is selected.
    append_whole = """
        WITH fence AS (
          UPDATE blazen_lease SET expires = {now} + {ttl}, batch = {number}
          WHERE lease_id = {lease_id} AND state = 1 AND batch = {last}
          RETURNING set_config('idle_in_transaction_session_timeout', '{idle}', true),
                    set_config('lock_timeout', '{locks}', true))
        INSERT INTO blazen_journal (run_no, seq, part, format, data)
        SELECT {run_no}, {seq}, {part}, {format}, {data} FROM fence {and_rows}"""

    # In place of the fence, where there is no lease yet.
    bound = """
        SELECT set_config('idle_in_transaction_session_timeout', '{idle}', true),
               set_config('lock_timeout', '{locks}', true)"""

    # What a commit appends.
    add_entry = """
        INSERT INTO blazen_journal (run_no, seq, part, format, data)
        SELECT {run_no}, {seq}, {part}, {format}, {data} {from_rows}"""
    add_snapshot = """
        INSERT INTO blazen_snapshot (run_no, seq, part, format, data)
        SELECT {run_no}, {seq}, {part}, {format}, {data} {from_rows}"""
    add_history = """
        INSERT INTO blazen_history (run_no, seq, part, format, data)
        SELECT {run_no}, {seq}, {part}, {format}, {data} {from_rows}"""
    add_blob = """
        INSERT INTO blazen_blob (run_no, digest, part, format, data)
        SELECT {run_no}, {digest}, {part}, {format}, {data} {from_rows} ON CONFLICT DO NOTHING"""

    # A run's row.
    add_run = """
        INSERT INTO blazen_run
          (run_id, workflow, version, status, owner, created, updated, error, wake, listed)
        SELECT {run_id}, {workflow}, {version}, {status}, {owner}, {created}, {updated}, {error},
          {wake}, {listed}
        {from_rows} RETURNING run_no"""
    find_runs = """
        SELECT run_id, run_no, status FROM blazen_run
        WHERE run_id = ANY(CAST({values} AS VARCHAR[]))"""
    set_status = """
        UPDATE blazen_run SET status = {status}, error = {error}, updated = {updated}
        {from_rows} WHERE blazen_run.run_no = {run_no}"""
    set_status_only = """
        UPDATE blazen_run SET status = {status}, updated = {updated}
        {from_rows} WHERE blazen_run.run_no = {run_no}"""
    set_version = """
        UPDATE blazen_run SET version = {version}
        {from_rows} WHERE blazen_run.run_no = {run_no}"""
    clear_crashes = """
        UPDATE blazen_run
        SET crashes = 0, error = CASE WHEN status IN (5, 6, 7, 8) THEN error END
        {from_rows} WHERE blazen_run.run_no = {run_no}"""

    # The end of a run, and its release. A `wake` of NULL means now, and -1 (`leases.NEVER`) means
    # that only an inbox message wakes it, so NULL is stored. A run that is queued or running always
    # gets a time, and one that is paused or has ended never does, whatever is given.
    end = """
        UPDATE blazen_run
        SET status = {status}, error = {error}, updated = {updated},
            owner = NULL, wake = NULL, hold = 0
        {from_rows} WHERE blazen_run.run_no = {run_no}"""
    give_back = """
        UPDATE blazen_run
        SET error = coalesce({error}, blazen_run.error), crashes = crashes + {crashed},
            owner = NULL,
            wake = CASE
              WHEN status IN (1, 2) THEN coalesce(nullif({wake}, -1), {now})
              WHEN status = 4 THEN nullif(coalesce({wake}, {now}), -1)
            END,
            hold = {hold}
        {from_rows} WHERE blazen_run.run_no = {run_no} AND owner = {lease_id}"""
    set_aside = """
        UPDATE blazen_run
        SET status = 6, error = {error}, updated = {updated}, owner = NULL, wake = NULL, hold = 0
        {from_rows} WHERE blazen_run.run_no = {run_no} AND owner = {lease_id}"""

    # Inboxes.
    add_mail = """
        INSERT INTO blazen_inbox (run_no, kind, key, format, data)
        VALUES ({run_no}, {kind}, {key}, {format}, {data}) RETURNING mail_id"""
    add_mail_part = """
        INSERT INTO blazen_inbox_part (run_no, mail_id, part, format, data)
        SELECT {run_no}, {mail_id}, {part}, {format}, {data} {from_rows}"""
    take_mail = """
        DELETE FROM blazen_inbox {using_rows}
        WHERE blazen_inbox.mail_id = {mail_id} AND blazen_inbox.run_no = {run_no}"""
    take_mail_parts = """
        DELETE FROM blazen_inbox_part {using_rows}
        WHERE blazen_inbox_part.run_no = {run_no} AND blazen_inbox_part.mail_id = {mail_id}"""
    drop_mail = "DELETE FROM blazen_inbox {using_rows} WHERE blazen_inbox.run_no = {run_no}"
    drop_mail_parts = """
        DELETE FROM blazen_inbox_part {using_rows} WHERE blazen_inbox_part.run_no = {run_no}"""
    add_key = """
        INSERT INTO blazen_inbox_key (run_no, key) VALUES ({run_no}, {key})
        ON CONFLICT DO NOTHING"""
    find_key = "SELECT run_no FROM blazen_inbox_key WHERE run_no = {run_no} AND key = {key}"
    drop_key = "DELETE FROM blazen_inbox_key WHERE run_no = {run_no} AND key = {key}"

    # The open questions of a run.
    add_question = """
        INSERT INTO blazen_question (run_no, digest, question_id, format, data)
        SELECT {run_no}, {digest}, {question_id}, {format}, {data} {from_rows}"""
    drop_question = """
        DELETE FROM blazen_question {using_rows}
        WHERE blazen_question.run_no = {run_no} AND blazen_question.digest = {digest}
          AND blazen_question.question_id = {question_id}"""
    drop_questions = "DELETE FROM blazen_question WHERE run_no = {run_no}"
    set_listed = """
        UPDATE blazen_run SET listed = 1 {from_rows} WHERE blazen_run.run_no = {run_no}"""

    # What a snapshot replaces.
    fold_entries = "DELETE FROM blazen_journal WHERE run_no = {run_no} AND seq <= {seq}"
    drop_snapshots = "DELETE FROM blazen_snapshot WHERE run_no = {run_no} AND seq < {seq}"
    find_digests = "SELECT DISTINCT digest FROM blazen_blob WHERE run_no = {run_no}"
    drop_blob = """
        DELETE FROM blazen_blob {using_rows}
        WHERE blazen_blob.run_no = {run_no} AND blazen_blob.digest = {digest}"""

    def statements(self, dialect: Dialect, *, busy_timeout: float, lease_ttl: float) -> Statements:
        """See `Database.statements`."""
        arrays = _has_arrays(dialect)
        texts = {
            "now": self.clock,
            "idle": str(max(1, math.ceil(lease_ttl * 1000))),
            "locks": str(max(1, math.ceil(busy_timeout * 1000))),
        }

        def prepare(sql: str, *names: str, of: str | None = None, once: bool = False) -> Statement:
            places = _Typed(dialect.paramstyle, **texts, **_NO_ROWS)
            many = None if once or not arrays else in_one_line(sql.format_map(_rows(names, texts)))
            one = Statement.of(sql, names, places)
            index = None if of is None else names.index(of)
            return _Statement(one.sql, one.names, one.order, one.by_name, many, index)

        whole: Whole | None = None
        # A statement that is a transaction by itself has the database's default isolation level.
        # Only at READ COMMITTED is a row that was waited for checked again in its current version;
        # elsewhere, an UPDATE that waited for another of the same row fails.
        if arrays and dialect.default_isolation_level == "READ COMMITTED":
            both = prepare(self.append_whole, *Whole.FENCE, *Whole.ENTRY, once=True)
            many = self.append_whole.format_map(_rows(Whole.ENTRY, texts))
            whole = Whole(both.sql, in_one_line(many), counted=0)
        return Statements(
            self,
            prepare,
            find_runs=_Finder(in_one_line(self.find_runs), dialect.paramstyle),
            bound=prepare(self.bound, once=True),
            append_whole=whole,
        )

    def insert_missing(self, table: sa.Table) -> sa.Insert:
        """See `Database.insert_missing`."""
        return postgresql.insert(table).on_conflict_do_nothing()

    def insert_id(self, cursor: DBAPICursor) -> int:
        """See `Database.insert_id`."""
        row = cursor.fetchone()
        assert row is not None  # an INSERT of one row returns one
        return int(row[0])

    def commits_by_itself(self, connection: sa.Connection) -> bool:
        """See `Database.commits_by_itself`."""
        driver: Any = connection.connection.dbapi_connection
        if not getattr(driver, "autocommit", False):
            return False
        # In this mode, a transaction may still have been started by a statement.
        info = getattr(driver, "info", None)
        return info is None or int(info.transaction_status) == _IDLE

    def echo(self, dialect: Dialect) -> Echo:
        """See `Database.echo`."""
        # Letters that the database's encoding lacks are not tested: they are refused in names, and
        # escaped in texts for people.
        sql, arrays = "SELECT CAST(%s AS TEXT), CAST(%s AS BYTEA)", _has_arrays(dialect)
        advice = (
            "make its connections with client_encoding=utf8, and set nothing on the session that "
            "makes it read text literals in a non-standard way"
        )
        if arrays:
            sql += ", (CAST(%b AS BYTEA[]))[2]"
        return Echo(sql, advice, any_letter=False, in_array=arrays)

    def identify(self, connection: sa.Connection, cursor: DBAPICursor) -> tuple[Any, ...]:
        """See `Database.identify`."""
        return base.identify_server(
            self.name,
            connection,
            cursor,
            "SELECT system_identifier, current_database() FROM pg_control_system()",
            "SELECT inet_server_addr(), inet_server_port(), current_database()",
        )

    def first_of(self, table: sa.Table, run_no: int, count: int) -> sa.Select[Any]:
        """See `Database.first_of`."""
        return base.first_by_range(table, run_no, count)

    def following(self, run_no: sa.Column[int], last: int, count: int) -> sa.Select[Any]:
        """See `Database.following`."""
        return base.next_different(run_no, last, count)

    @contextlib.contextmanager
    def schema_lock(
        self, connection: sa.Connection, checkpoint: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """See `Database.schema_lock`."""
        with self.begin(connection):
            lock = sa.func.pg_try_advisory_xact_lock(_SCHEMA_LOCK)
            base.wait_for_schema_lock(connection, lock, checkpoint)
            # Bounds the wait for transactions that lock a table to be changed.
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{base.SCHEMA_LOCK_WAIT}s'")
            yield


def _has_arrays(dialect: Dialect) -> bool:
    """Return whether a statement for many rows gets them as arrays.

    psycopg's own loop would use its pipeline mode, which not every connection pooler supports.
    """
    return dialect.driver == "psycopg"


_NO_ROWS: Final = dict.fromkeys(("from_rows", "using_rows", "and_rows"), "")


class _Typed(Placeholders):
    """Placeholders with their types: a server can't infer the type of NULL, or of a selection."""

    def __missing__(self, name: str) -> str:
        return f"{super().__missing__(name)}::{_TYPES.get(name, 'BIGINT')}"


def _rows(names: Sequence[str], texts: dict[str, str]) -> Placeholders:
    """Return the replacements that make a statement one for many rows, with these parameters."""
    # Arrays of bytes are sent in binary (`b`). As text they would be escaped twice, which takes
    # twenty times as long, and once more if the session treats backslashes as escapes.
    arrays = ", ".join(
        f"%({name}){'b' if name == 'data' else 's'}::{_TYPES.get(name, 'BIGINT')}[]"
        for name in names
    )
    given = f"unnest({arrays}) AS given ({', '.join(names)})"
    columns = {name: f"given.{name}" for name in names}
    rows = {"from_rows": f"FROM {given}", "using_rows": f"USING {given}", "and_rows": f", {given}"}
    return _Typed("pyformat", **texts, **columns, **rows)


@attrs.frozen(eq=False)
class _Statement(Statement):
    """A statement for one row or many.

    Attributes:
        many: Its text for many rows; `None`: the driver runs it for one after the other.
        index_of: The index of the parameter by which an UPDATE finds its row; `None`: it is not
            an UPDATE.
    """

    many: str | None
    index_of: int | None

    def execute_many(self, cursor: DBAPICursor, rows: list[Row]) -> int:
        """See `Statement.execute_many`."""
        if len(rows) == 1 or self.many is None:
            return super().execute_many(cursor, rows)
        found = 0
        for some in _distinct(rows, self.index_of):
            arrays = zip(*some, strict=True)
            given: Any = {name: list(array) for name, array in zip(self.names, arrays, strict=True)}
            cursor.execute(self.many, given)
            found += cursor.rowcount
        return found


def _distinct(rows: list[Row], index: int | None) -> Iterator[list[Row]]:
    """Split the rows, in order, into the fewest pieces that have no value twice at this index.

    An UPDATE changes a row once, by any of the rows of `given` that fit it. If a batch has two
    changes of the same run, the later must win.
    """
    if index is None:
        yield rows
        return
    some: dict[Any, Row] = {}
    for row in rows:
        if row[index] in some:
            yield list(some.values())
            some = {}
        some[row[index]] = row
    yield list(some.values())


class _Finder(Finder):
    """A query by an array of values."""

    def fetch(self, cursor: DBAPICursor, values: Sequence[Any]) -> list[Row]:
        """See `Finder.fetch`."""
        places = Placeholders(self.style)
        text = self.sql.format_map(places)
        given: Any = {"values": list(values)} if places.by_name else (list(values),)
        cursor.execute(text, given)
        return list(cursor.fetchall())
