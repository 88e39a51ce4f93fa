"""The statements of the hot path, compiled once per engine and run on the driver's own cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import sqlalchemy as sa

from blazen_trio._stores.sql import dialects
from blazen_trio._stores.sql.ownership import wake_when_given_back
from blazen_trio._stores.sql.schema import blob, history, inbox, inbox_key, journal, lease, runs, snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine.interfaces import DBAPICursor, Dialect

__all__ = ["Statement", "Statements"]


@attrs.frozen(eq=False)
class Statement:
    """One statement in a database's own words, whose parameters are given as tuples, in a fixed order.

    Attributes:
        sql: Its text.
        names: The parameters' names, in the order in which they are given.
        order: Where the driver takes them by position: for each of its positions, which one. `None`: as they are given.
        by_name: Whether the driver takes them by name.
    """

    sql: str
    names: tuple[str, ...]
    order: tuple[int, ...] | None
    by_name: bool

    def execute(self, cursor: DBAPICursor, row: tuple[Any, ...]) -> int:
        """Run it; how many rows it found or wrote."""
        cursor.execute(self.sql, self._given(row))
        return cursor.rowcount

    def execute_many(self, cursor: DBAPICursor, rows: list[tuple[Any, ...]]) -> None:
        """Run it for each of these, in the driver's own loop."""
        if self.by_name or self.order is not None:
            cursor.executemany(self.sql, [self._given(row) for row in rows])
        else:
            cursor.executemany(self.sql, rows)

    def _given(self, row: tuple[Any, ...]) -> Any:
        if self.by_name:
            return dict(zip(self.names, row, strict=True))
        return row if self.order is None else tuple(row[index] for index in self.order)


class Statements:
    """All of them, for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        name = dialect.name
        payload = ("part", "format", "data")

        def insert(table: sa.Table, *columns: str) -> Statement:
            return _compile(sa.insert(table), columns, dialect, columns)

        def insert_numbered(table: sa.Table, number: sa.Column[int], *columns: str) -> Statement:
            return _compile(dialects.returning_id(sa.insert(table), number, name), columns, dialect, columns)

        def insert_missing(table: sa.Table, *columns: str) -> Statement:
            return _compile(dialects.insert_missing(table, name), columns, dialect, columns)

        self.add_entry = insert(journal, "run_no", "seq", *payload)
        self.add_snapshot = insert(snapshot, "run_no", "seq", *payload)
        self.add_history = insert(history, "run_no", "seq", *payload)
        self.add_blob = insert_missing(blob, "run_no", "digest", *payload)
        self.add_key = insert_missing(inbox_key, "run_no", "key")
        self.add_mail = insert_numbered(inbox, inbox.c.mail_id, "run_no", "kind", "key", "format", "data")
        self.add_run = insert_numbered(
            runs,
            runs.c.run_no,
            "run_id",
            "workflow",
            "version",
            "status",
            "owner",
            "created",
            "updated",
            "error",
            "wake",
        )
        self._compile_row(dialect)
        self._compile_fold(dialect)
        self.renew = _compile(
            sa.update(lease)
            .where(lease.c.lease_id == sa.bindparam("me"), lease.c.state == sa.literal_column("1"))
            .values(expires=dialects.now(name) + sa.bindparam("ttl"), batch=sa.bindparam("number")),
            ("ttl", "number", "me"),
            dialect,
        )

    def _compile_row(self, dialect: Dialect) -> None:
        """What finds and changes a run's row, and takes its mail."""
        of_run = runs.c.run_no == sa.bindparam("the_run")
        self.find_run = _compile(
            sa.select(runs.c.run_no, runs.c.status).where(runs.c.run_id == sa.bindparam("id")), ("id",), dialect
        )
        self.set_status = _compile(
            sa.update(runs).where(of_run),
            ("status", "error", "updated", "the_run"),
            dialect,
            ("status", "error", "updated"),
        )
        self.set_version = _compile(sa.update(runs).where(of_run), ("version", "the_run"), dialect, ("version",))
        self.give_back = _compile(
            sa.update(runs)
            .where(of_run, runs.c.owner == sa.bindparam("me"))
            .values(
                owner=sa.null(),
                wake=wake_when_given_back(dialect.name, sa.bindparam("its_wake", type_=sa.BigInteger())),
                hold=sa.bindparam("its_hold", type_=sa.BigInteger()),
            ),
            ("its_wake", "its_hold", "the_run", "me"),
            dialect,
        )
        self.clear_crashes = _compile(
            sa.update(runs).where(of_run).values(crashes=sa.literal_column("0")), ("the_run",), dialect
        )
        self.drop_mail = _compile(
            sa.delete(inbox).where(inbox.c.run_no == sa.bindparam("the_run")), ("the_run",), dialect
        )
        self.take_mail = _compile(
            sa.delete(inbox).where(inbox.c.mail_id == sa.bindparam("mail"), inbox.c.run_no == sa.bindparam("the_run")),
            ("mail", "the_run"),
            dialect,
        )

    def _compile_fold(self, dialect: Dialect) -> None:
        """What a snapshot replaces."""
        self.fold_entries = _compile(
            _up_to(journal, journal.c.seq <= sa.bindparam("last")), ("the_run", "last"), dialect
        )
        self.drop_snapshots = _compile(
            _up_to(snapshot, snapshot.c.seq < sa.bindparam("last")), ("the_run", "last"), dialect
        )
        self.digests = _compile(
            sa.select(blob.c.digest).distinct().where(blob.c.run_no == sa.bindparam("the_run")), ("the_run",), dialect
        )
        self.drop_blob = _compile(
            sa.delete(blob).where(
                blob.c.run_no == sa.bindparam("the_run"), blob.c.digest == sa.bindparam("the_digest")
            ),
            ("the_run", "the_digest"),
            dialect,
        )


def _up_to(table: sa.Table, condition: sa.ColumnElement[bool]) -> sa.Delete:
    return sa.delete(table).where(table.c.run_no == sa.bindparam("the_run"), condition)


def _compile(statement: Any, names: Sequence[str], dialect: Dialect, columns: Sequence[str] | None = None) -> Statement:
    """Compile a statement for parameters given in the order of `names`; `columns` are those that it sets from them."""
    compiled = statement.compile(dialect=dialect, column_keys=columns)
    positions = compiled.positiontup
    if positions is None:
        return Statement(str(compiled), tuple(names), None, by_name=True)
    order = tuple(names.index(position) for position in positions)
    plain = order == tuple(range(len(names)))
    return Statement(str(compiled), tuple(names), None if plain else order, by_name=False)
