"""A statement that is compiled once and run on the driver's own cursor, for one row or many."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import attrs

from blazen_trio._stores.sql import dialects

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.engine.interfaces import DBAPICursor, Dialect

__all__ = ["Many", "Statement", "compile_statement"]

_LISTED: Final = 500
"""Values in one statement."""


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


def compile_statement(
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
    # An array of bytes goes as it is (`b`). As a text it is escaped twice, which takes twenty times
    # as long, and once more where the session says that a backslash in a text is no plain letter.
    arrays = ", ".join(
        f"%({name}){'b' if kinds[name] == 'BYTEA' else 's'}::{kinds[name]}[]" for name in names
    )
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
