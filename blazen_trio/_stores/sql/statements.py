"""The statements of the hot path, compiled once per engine and run on the driver's own cursor."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs
import sqlalchemy as sa

from blazen_trio._state.status import RunStatus
from blazen_trio._stores import arguments
from blazen_trio._stores.sql import dialects, wholes
from blazen_trio._stores.sql.ownership import wake_when_given_back
from blazen_trio._stores.sql.schema import (
    STATUS_CODES,
    blob,
    history,
    inbox,
    inbox_key,
    journal,
    lease,
    runs,
    snapshot,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.engine.interfaces import DBAPICursor, Dialect

__all__ = ["Statement", "Statements"]


_LISTED = 500  # values in one statement


@attrs.frozen(eq=False)
class Many:
    """A statement for many rows at once, which are given as one array per parameter.

    Attributes:
        sql: Its text.
        chosen: Which parameters say what row is changed; one statement changes each row once.
            Empty: no matter.
    """

    sql: str
    chosen: tuple[int, ...]


@attrs.frozen(eq=False)
class Statement:
    """One statement in a database's own words, whose parameters are given as tuples, in a fixed
    order.

    Attributes:
        sql: Its text.
        names: The parameters' names, in the order in which they are given.
        order: Where the driver takes them by position: for each of its positions, which one.
            `None`: as they are given.
        by_name: Whether the driver takes them by name.
        many: The same for many rows, where the driver's own loop is not what is wanted.
    """

    sql: str
    names: tuple[str, ...]
    order: tuple[int, ...] | None
    by_name: bool
    many: Many | None = None

    def execute(self, cursor: DBAPICursor, row: tuple[Any, ...]) -> int:
        """Run it; how many rows it found or wrote."""
        cursor.execute(self.sql, self.given(row))
        return cursor.rowcount

    def execute_many(self, cursor: DBAPICursor, rows: list[tuple[Any, ...]]) -> int:
        """Run it for each of these, in this order; in one round trip where the database can. How
        many rows it found or wrote.
        """
        if len(rows) == 1:
            return self.execute(cursor, rows[0])
        if self.many is not None:
            found = 0
            for some in _distinct(rows, self.many.chosen):
                arrays = zip(*some, strict=True)
                cursor.execute(
                    self.many.sql,
                    {name: list(array) for name, array in zip(self.names, arrays, strict=True)},
                )
                found += cursor.rowcount
            return found
        if self.by_name or self.order is not None:
            cursor.executemany(self.sql, [self.given(row) for row in rows])
        else:
            cursor.executemany(self.sql, rows)
        return cursor.rowcount

    def fetch(self, cursor: DBAPICursor, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """All rows that it finds for these values of its only parameter, the last thing in it."""
        if self.many is not None and len(values) > 1:
            cursor.execute(self.many.sql, {self.names[0]: list(values)})
            return list(cursor.fetchall())
        found: list[tuple[Any, ...]] = []
        head, place = self.listing
        for start in range(0, len(values), _LISTED):
            some = values[start : start + _LISTED]
            names = [f"{self.names[0]}_{index}" for index in range(len(some))]
            places = ", ".join(place.replace(self.names[0], name) for name in names)
            given: Any = dict(zip(names, some, strict=True)) if self.by_name else tuple(some)
            cursor.execute(f"{head}{places})", given)
            found += cursor.fetchall()
        return found

    @property
    def listing(self) -> tuple[str, str]:
        """Of one whose only parameter stands last, the same for a list of values: its text up to
        them, and the place of one.
        """
        head, _, place = self.sql.rpartition(" = ")
        return f"{head} IN (", place

    def given(self, row: tuple[Any, ...]) -> Any:
        """The parameters as the driver takes them."""
        if self.by_name:
            return dict(zip(self.names, row, strict=True))
        return row if self.order is None else tuple(row[index] for index in self.order)


class Statements:
    """All of them, for one dialect.

    Args:
        dialect: What they are compiled for.
        bounds: See `dialects.bounds`.
    """

    def __init__(self, dialect: Dialect, bounds: Sequence[sa.ColumnElement[Any]] = ()) -> None:
        name = dialect.name
        payload = ("part", "format", "data")

        def insert(table: sa.Table, *columns: str) -> Statement:
            return _compile(sa.insert(table), columns, dialect, columns)

        def insert_numbered(table: sa.Table, number: sa.Column[int], *columns: str) -> Statement:
            return _compile(
                dialects.returning_id(sa.insert(table), number, name), columns, dialect, columns
            )

        def insert_missing(table: sa.Table, *columns: str) -> Statement:
            return _compile(dialects.insert_missing(table, name), columns, dialect, columns)

        self.add_entry = insert(journal, "run_no", "seq", *payload)
        self.add_snapshot = insert(snapshot, "run_no", "seq", *payload)
        self.add_history = insert(history, "run_no", "seq", *payload)
        self.add_blob = insert_missing(blob, "run_no", "digest", *payload)
        self.add_key = insert_missing(inbox_key, "run_no", "key")
        self.add_mail = insert_numbered(
            inbox, inbox.c.mail_id, "run_no", "kind", "key", "format", "data"
        )
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
        self._compile_mail(dialect)
        self._compile_fold(dialect)
        renew: Any = (
            sa.update(lease)
            .where(
                lease.c.lease_id == sa.bindparam("me"),
                lease.c.state == sa.literal_column("1"),
                # What comes late, after its connection was given up and its batch written anew,
                # finds another batch there.
                lease.c.batch == sa.bindparam("last"),
            )
            .values(expires=dialects.now(name) + sa.bindparam("ttl"), batch=sa.bindparam("number"))
        )
        # The fence bounds its transaction by the way; whoever has no lease yet has to ask for it.
        self.renew = _compile(
            renew.returning(*bounds) if bounds else renew, ("ttl", "number", "me", "last"), dialect
        )
        self.append_checked = wholes.Checked.of(dialect, self.add_entry)
        self.append_whole = wholes.Whole.of(dialect, self.renew, self.add_entry)
        self.bound = _compile(sa.select(*bounds), (), dialect) if bounds else None

    def _compile_row(self, dialect: Dialect) -> None:
        """What changes a run's row."""
        of_run = runs.c.run_no == sa.bindparam("the_run")
        row = ("status", "error", "updated")
        self.set_status = _compile(sa.update(runs).where(of_run), (*row, "the_run"), dialect, row)
        given_back: dict[Any, Any] = {
            runs.c.owner: sa.null(),
            runs.c.wake: sa.null(),
            runs.c.hold: sa.literal_column("0"),
        }
        given: dict[Any, Any] = {runs.c[name]: sa.bindparam(name) for name in row}
        self.end = _compile(
            sa.update(runs).where(of_run).values({**given, **given_back}),
            (*row, "the_run"),
            dialect,
        )
        self.set_version = _compile(
            sa.update(runs).where(of_run), ("version", "the_run"), dialect, ("version",)
        )
        self.set_status_only = _compile(
            sa.update(runs).where(of_run),
            ("status", "updated", "the_run"),
            dialect,
            ("status", "updated"),
        )
        self._compile_giving_back(
            dialect, of_run & (runs.c.owner == sa.bindparam("me")), given_back
        )
        # Where a later commit of the batch has ended the run, its error is that one's.
        ended = runs.c.status.in_(
            [sa.literal_column(str(STATUS_CODES[status])) for status in arguments.ENDED]
        )
        self.clear_crashes = _compile(
            sa.update(runs)
            .where(of_run)
            .values(
                crashes=sa.literal_column("0"),
                error=sa.case((ended, runs.c.error), else_=sa.null()),
            ),
            ("the_run",),
            dialect,
        )

    def _compile_mail(self, dialect: Dialect) -> None:
        """What finds a run to post to it, and takes its mail."""
        self.find_run = _compile(
            sa.select(runs.c.run_id, runs.c.run_no, runs.c.status).where(
                runs.c.run_id == sa.bindparam("the_id")
            ),
            ("the_id",),
            dialect,
        )
        self.find_key = _compile(
            sa.select(inbox_key.c.run_no).where(
                inbox_key.c.run_no == sa.bindparam("the_run"),
                inbox_key.c.key == sa.bindparam("its_key"),
            ),
            ("the_run", "its_key"),
            dialect,
        )
        self.drop_mail = _compile(
            sa.delete(inbox).where(inbox.c.run_no == sa.bindparam("the_run")), ("the_run",), dialect
        )
        self.take_mail = _compile(
            sa.delete(inbox).where(
                inbox.c.mail_id == sa.bindparam("mail"), inbox.c.run_no == sa.bindparam("the_run")
            ),
            ("mail", "the_run"),
            dialect,
        )

    def _compile_giving_back(
        self, dialect: Dialect, of_ours: Any, given_back: dict[Any, Any]
    ) -> None:
        """What gives a run back that a lease of ours has."""
        looked_at = {
            "owner": sa.null(),
            "wake": wake_when_given_back(
                dialect.name, sa.bindparam("its_wake", type_=sa.BigInteger())
            ),
            "hold": sa.bindparam("its_hold", type_=sa.BigInteger()),
        }
        its_error = sa.bindparam("its_error", type_=runs.c.error.type)
        self.give_back = _compile(
            sa.update(runs).where(of_ours).values(looked_at),
            ("its_wake", "its_hold", "the_run", "me"),
            dialect,
        )
        crashed = {
            **looked_at,
            "crashes": runs.c.crashes + sa.literal_column("1"),
            "error": its_error,
        }
        self.give_back_crashed = _compile(
            sa.update(runs).where(of_ours).values(crashed),
            ("its_error", "its_wake", "its_hold", "the_run", "me"),
            dialect,
        )
        failed: dict[Any, Any] = {
            **given_back,
            runs.c.status: sa.literal_column(str(STATUS_CODES[RunStatus.FAILED])),
            runs.c.error: its_error,
            runs.c.updated: sa.bindparam("at", type_=sa.BigInteger()),
        }
        self.set_aside = _compile(
            sa.update(runs).where(of_ours).values(failed),
            ("its_error", "at", "the_run", "me"),
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
            sa.select(blob.c.digest).distinct().where(blob.c.run_no == sa.bindparam("the_run")),
            ("the_run",),
            dialect,
        )
        self.drop_blob = _compile(
            sa.delete(blob).where(
                blob.c.run_no == sa.bindparam("the_run"),
                blob.c.digest == sa.bindparam("the_digest"),
            ),
            ("the_run", "the_digest"),
            dialect,
        )


def _up_to(table: sa.Table, condition: sa.ColumnElement[bool]) -> sa.Delete:
    return sa.delete(table).where(table.c.run_no == sa.bindparam("the_run"), condition)


def _compile(
    statement: Any, names: Sequence[str], dialect: Dialect, columns: Sequence[str] | None = None
) -> Statement:
    """Compile a statement for parameters given in the order of `names`; `columns` are those that it
    sets from them.
    """
    compiled = statement.compile(dialect=dialect, column_keys=columns)
    positions = compiled.positiontup
    if positions is None:
        many = _many(str(compiled), names) if dialects.has_arrays(dialect) else None
        return Statement(str(compiled), tuple(names), None, by_name=True, many=many)
    order = tuple(names.index(position) for position in positions)
    plain = order == tuple(range(len(names)))
    return Statement(str(compiled), tuple(names), None if plain else order, by_name=False)


_PARAMETER = re.compile(r"%\((\w+)\)s(?:::(\w+))?")


def _many(sql: str, names: Sequence[str]) -> Many | None:
    """PostgreSQL's statement for many rows, from that for one: its parameters become the columns of
    a table `many`.
    """
    kinds = {name: kind or "BYTEA" for name, kind in _PARAMETER.findall(sql)}
    arrays = ", ".join(f"%({name})s::{kinds[name]}[]" for name in names)
    columns = ", ".join(f'"{name}"' for name in names)
    rows = f"unnest({arrays}) AS many({columns})"
    taken = _PARAMETER.sub(r'many."\1"', sql.replace("\n", ""))
    if taken.startswith("INSERT"):
        head, _, values = taken.partition(" VALUES (")
        values, _, conflict = values.partition(")")
        selected = f"{head} SELECT {values} FROM {rows}{conflict}"  # noqa: S608  # our own
        return Many(selected, ())
    head, _, condition = taken.partition(" WHERE ")
    if taken.startswith("SELECT"):
        return Many(f"{head}, {rows} WHERE {condition}", ())
    if taken.startswith("UPDATE"):
        _, _, of_row = sql.partition(" WHERE ")
        chosen = tuple(names.index(name) for name, _ in _PARAMETER.findall(of_row))
        return Many(f"{head} FROM {rows} WHERE {condition}", chosen)
    return (
        Many(f"{head} USING {rows} WHERE {condition}", ()) if taken.startswith("DELETE") else None
    )


def _distinct(
    rows: list[tuple[Any, ...]], chosen: tuple[int, ...]
) -> Iterator[list[tuple[Any, ...]]]:
    """The rows in order, in as few pieces as it takes that none chooses a row twice."""
    if not chosen:
        yield rows
        return
    some: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for row in rows:
        key = tuple(row[index] for index in chosen)
        if key in some:
            yield list(some.values())
            some = {}
        some[key] = row
    yield list(some.values())
