"""SQLite: the SQL that a commit sends there, and how its files are locked."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects import sqlite

from blazen_trio._stores.sql.databases.base import (
    Database,
    Echo,
    first_by_range,
    next_different,
)
from blazen_trio._stores.sql.statements import (
    Checked,
    Finder,
    Placeholders,
    Statement,
    Statements,
    Whole,
    in_one_line,
)
from blazen_trio._stores.sql.troubles import is_busy
from blazen_trio.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import sqlalchemy as sa
    from sqlalchemy.engine.interfaces import DBAPICursor, Dialect

__all__ = ["SQLite"]


class SQLite(Database):
    """SQLite.

    A batch of one entry is `append_checked`, which is a transaction by itself. Any other is BEGIN
    IMMEDIATE, `renew`, each statement for all of its rows (the driver's `executemany`), COMMIT.

    In the SQL below, a name in braces is a parameter, `?`, and `{now}` is the clock. Statuses are
    written as `schema.STATUS_CODES`: 1 is queued, 2 running, 4 waiting, 6 failed, 5 to 8 ended.
    """

    name = "sqlite"
    in_a_file = True

    clock = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"
    statement_clock = clock

    # The fence, behind BEGIN IMMEDIATE.
    renew = """
        UPDATE blazen_lease SET expires = {now} + {ttl}, batch = {number}
        WHERE lease_id = {lease_id} AND state = 1 AND batch = {last}"""

    # A lease that expires later than its whole time from now was renewed before the clock was set
    # back. It is not valid here, so that the fence renews it by the clock as it is now.
    append_checked = """
        INSERT INTO blazen_journal (run_no, seq, part, format, data)
        SELECT {run_no}, {seq}, {part}, {format}, {data} FROM blazen_lease
        WHERE lease_id = {lease_id} AND state = 1
          AND expires BETWEEN {now} + {least} AND {now} + {most}"""

    # What a commit appends.
    add_entry = """
        INSERT INTO blazen_journal (run_no, seq, part, format, data)
        VALUES ({run_no}, {seq}, {part}, {format}, {data})"""
    add_snapshot = """
        INSERT INTO blazen_snapshot (run_no, seq, part, format, data)
        VALUES ({run_no}, {seq}, {part}, {format}, {data})"""
    add_history = """
        INSERT INTO blazen_history (run_no, seq, part, format, data)
        VALUES ({run_no}, {seq}, {part}, {format}, {data})"""
    add_blob = """
        INSERT INTO blazen_blob (run_no, digest, part, format, data)
        VALUES ({run_no}, {digest}, {part}, {format}, {data}) ON CONFLICT DO NOTHING"""

    # A run's row.
    add_run = """
        INSERT INTO blazen_run
          (run_id, workflow, version, status, owner, created, updated, error, wake, listed)
        VALUES ({run_id}, {workflow}, {version}, {status}, {owner}, {created}, {updated}, {error},
          {wake}, {listed})"""
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
        WHERE run_no = {run_no}"""

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
              WHEN status IN (1, 2) THEN coalesce(nullif({wake}, -1), {now})
              WHEN status = 4 THEN nullif(coalesce({wake}, {now}), -1)
            END,
            hold = {hold}
        WHERE run_no = {run_no} AND owner = {lease_id}"""
    set_aside = """
        UPDATE blazen_run
        SET status = 6, error = {error}, updated = {updated}, owner = NULL, wake = NULL, hold = 0
        WHERE run_no = {run_no} AND owner = {lease_id}"""

    # Inboxes.
    add_mail = """
        INSERT INTO blazen_inbox (run_no, kind, "key", format, data)
        VALUES ({run_no}, {kind}, {key}, {format}, {data})"""
    add_mail_part = """
        INSERT INTO blazen_inbox_part (run_no, mail_id, part, format, data)
        VALUES ({run_no}, {mail_id}, {part}, {format}, {data})"""
    take_mail = "DELETE FROM blazen_inbox WHERE mail_id = {mail_id} AND run_no = {run_no}"
    take_mail_parts = """
        DELETE FROM blazen_inbox_part WHERE run_no = {run_no} AND mail_id = {mail_id}"""
    drop_mail = "DELETE FROM blazen_inbox WHERE run_no = {run_no}"
    drop_mail_parts = "DELETE FROM blazen_inbox_part WHERE run_no = {run_no}"
    add_key = """
        INSERT INTO blazen_inbox_key (run_no, "key") VALUES ({run_no}, {key})
        ON CONFLICT DO NOTHING"""
    find_key = 'SELECT run_no FROM blazen_inbox_key WHERE run_no = {run_no} AND "key" = {key}'
    drop_key = 'DELETE FROM blazen_inbox_key WHERE run_no = {run_no} AND "key" = {key}'

    # The open questions of a run.
    add_question = """
        INSERT INTO blazen_question (run_no, digest, question_id, format, data)
        VALUES ({run_no}, {digest}, {question_id}, {format}, {data})"""
    drop_question = """
        DELETE FROM blazen_question
        WHERE run_no = {run_no} AND digest = {digest} AND question_id = {question_id}"""
    drop_questions = "DELETE FROM blazen_question WHERE run_no = {run_no}"
    set_listed = "UPDATE blazen_run SET listed = 1 WHERE run_no = {run_no}"

    # What a snapshot replaces.
    fold_entries = "DELETE FROM blazen_journal WHERE run_no = {run_no} AND seq <= {seq}"
    drop_snapshots = "DELETE FROM blazen_snapshot WHERE run_no = {run_no} AND seq < {seq}"
    find_digests = "SELECT DISTINCT digest FROM blazen_blob WHERE run_no = {run_no}"
    drop_blob = "DELETE FROM blazen_blob WHERE run_no = {run_no} AND digest = {digest}"

    def statements(self, dialect: Dialect, *, busy_timeout: float, lease_ttl: float) -> Statements:
        """See `Database.statements`."""

        def prepare(sql: str, *names: str, of: str | None = None, once: bool = False) -> Statement:
            return Statement.of(sql, names, Placeholders(dialect.paramstyle, now=self.clock))

        checked = (*Whole.ENTRY, "lease_id", "least", "most")
        return Statements(
            self,
            prepare,
            find_runs=Finder(in_one_line(self.find_runs), dialect.paramstyle),
            append_checked=(
                Checked(prepare(self.append_checked, *checked))
                if dialect.driver == "pysqlite"
                else None
            ),
        )

    def insert_missing(self, table: sa.Table) -> sa.Insert:
        """See `Database.insert_missing`."""
        return sqlite.insert(table).on_conflict_do_nothing()

    # Transactions. The driver would not start one, or not of the kind needed.

    def begin(self, connection: sa.Connection) -> sa.RootTransaction:
        """See `Database.begin`."""
        begun = connection.begin()
        try:
            driver: Any = connection.connection.dbapi_connection
            if driver.in_transaction:
                # An event listener of the engine's owner has started one, perhaps of another kind.
                # Nothing has been done in it yet.
                driver.rollback()
            # A transaction that starts as a reader may be refused when it first writes; one that
            # starts as a writer waits.
            writer = connection.get_execution_options().get("blazen_trio_role") == "writer"
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")
        except BaseException:
            begun.rollback()
            raise
        return begun

    def begin_plainly(self, connection: sa.Connection, cursor: DBAPICursor) -> None:
        """See `Database.begin_plainly`."""
        driver: Any = connection.connection.dbapi_connection
        if not driver.in_transaction:
            cursor.execute("BEGIN IMMEDIATE")

    def begins_otherwise(self, engine: sa.Engine) -> bool:
        """Return `False`: a file has no roles and no search path."""
        return False

    def become_writer(self, connection: sa.Connection, cursor: DBAPICursor) -> None:
        """Become the file's only writer before anything is read.

        A transaction that reads first and writes later is refused at once if another connection has
        written in between.
        """
        driver: Any = connection.connection.dbapi_connection
        if not driver.in_transaction:
            # The driver starts a transaction with the first row, but not for a savepoint. The
            # savepoint would then be a transaction of its own, and be committed when it is
            # released.
            cursor.execute("BEGIN")
        cursor.execute("UPDATE blazen_lease SET state = state WHERE 0")

    def commits_by_itself(self, connection: sa.Connection) -> bool:
        """See `Database.commits_by_itself`."""
        # Without a level, transactions are started explicitly, as in SQLAlchemy's own recipe.
        driver: Any = connection.connection.dbapi_connection
        by_itself = driver.isolation_level is None or getattr(driver, "autocommit", -1) is True
        return bool(by_itself and not driver.in_transaction)

    # Connections.

    def reads_as_of_one_moment(self, *, ours: bool) -> dict[str, Any]:
        """Return no options: every transaction on the write-ahead log does."""
        return {}

    def as_writer(self, connection: sa.Connection) -> sa.Connection:
        """See `Database.as_writer`."""
        return connection.execution_options(blazen_trio_role="writer")

    def prepare_writer(
        self, connection: sa.Connection, *, busy_timeout: float, lease_ttl: float
    ) -> None:
        """See `Database.prepare_writer`. Nothing ends the transaction of a frozen process."""
        # The driver must not start transactions, so that a statement can be one by itself.
        driver: Any = connection.connection.dbapi_connection
        driver.isolation_level = None
        with contextlib.closing(connection.connection.cursor()) as cursor:
            cursor.execute(f"PRAGMA busy_timeout = {int(busy_timeout * 1000)}")
            cursor.execute("PRAGMA synchronous = FULL")

    def prepare_database(self, connection: sa.Connection) -> None:
        """Switch the file to a write-ahead log.

        Raises:
            StoreError: The file system does not support one.
        """
        cursor: Any = connection.connection.cursor()
        try:
            mode = cursor.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except connection.dialect.loaded_dbapi.OperationalError as error:
            # Another process that opens the same new file locks it for a moment, and SQLite does
            # not wait for that lock.
            if not is_busy(error):
                raise
            time.sleep(0.2)
            mode = cursor.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        finally:
            cursor.close()
        if mode != "wal":
            raise StoreError(
                f"SQLite can't use a write-ahead log for this file (its journal mode stays "
                f"{mode!r}); put it on a local disk"
            )

    def check_settings(self, connection: sa.Connection, cursor: DBAPICursor) -> None:
        """Refuse connections whose transaction mode rules out transactions of the store's own."""
        # Python 3.12 added this attribute; -1 is the default behaviour of all versions.
        driver: Any = connection.connection.dbapi_connection
        autocommit = getattr(driver, "autocommit", -1)
        if autocommit != -1:
            raise StoreError(
                f"this engine makes SQLite connections with autocommit={autocommit}, which rules "
                "out transactions of the store's own: make it without, or give open_store the URL"
            )

    def echo(self, dialect: Dialect) -> Echo:
        """See `Database.echo`."""
        return Echo("SELECT ?, ?", "make the engine without a text_factory of your own")

    def identify(self, connection: sa.Connection, cursor: DBAPICursor) -> tuple[Any, ...]:
        """Return the file's device and number on it."""
        cursor.execute("PRAGMA database_list")
        file = next(row[2] for row in cursor.fetchall() if row[1] == "main")
        found = os.stat(file) if file else None  # noqa: PTH116  # "" is in memory
        return (self.name, *((found.st_dev, found.st_ino) if found else (id(connection),)))

    # Queries.

    def first_of(self, table: sa.Table, run_no: int, count: int) -> sa.Select[Any]:
        """See `Database.first_of`."""
        return first_by_range(table, run_no, count)

    def following(self, run_no: sa.Column[int], last: int, count: int) -> sa.Select[Any]:
        """See `Database.following`."""
        return next_different(run_no, last, count)

    @contextlib.contextmanager
    def schema_lock(
        self, connection: sa.Connection, checkpoint: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """Start a transaction that writes. The lock of SQLite's only writer serves for this."""
        with self.begin(self.as_writer(connection)):
            yield
