"""How statements get to a database: each is compiled once, and run on the driver's own cursor, for one
row or many; several go in one packet, where a connection takes such; and the fence, an INSERT
behind it and the commit go all at once, which is what a step costs that has nothing but an entry to
write.

Packets are MySQL's and MariaDB's, asked for when the connection is made. Values become part of a
statement's text only as the driver itself would write them into it.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, Final

import attrs

from blazen_trio._stores.sql import dialects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import sqlalchemy as sa
    from sqlalchemy.engine.interfaces import DBAPICursor, Dialect

__all__ = [
    "MULTI_STATEMENTS",
    "Checked",
    "Many",
    "Statement",
    "Whole",
    "compile_statement",
    "send",
    "takes_packets",
]


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


Row = tuple[Any, ...]


@attrs.frozen(eq=False)
class Checked:
    """SQLite: an INSERT that looks at the lease and leaves it as it is, which is a page less on disk. It is a transaction by itself
    where none has begun.

    Nobody else writes at the same time and nothing comes late here, so the lease needs no number of this batch.

    Attributes:
        one: Its text.
    """

    one: str

    @classmethod
    def of(cls, dialect: Dialect, insert: Statement) -> Checked | None:
        """Made of the INSERT, where this is SQLite."""
        if dialect.driver != "pysqlite":
            return None
        now = dialects.now(dialect.name)
        # One that lasts for longer than its time was renewed before the clock was set back.
        good = f"lease_id = ? AND state = 1 AND expires BETWEEN {now} + ? AND {now} + ?"
        return cls(f"{_selecting(insert)} blazen_lease WHERE {good}")

    def execute(self, cursor: Any, lease_id: int | None, lease_ttl: int, rows: list[Row]) -> bool:
        """Run it, for what is one row; whether that was written.

        It was not where the lease is lost, or is to be renewed, as is any that has lasted for a third of its time.
        """
        if len(rows) != 1:
            return False
        cursor.execute(self.one, (*rows[0], lease_id, lease_ttl * 2 // 3, lease_ttl))
        return bool(cursor.rowcount == 1)


@attrs.frozen(eq=False)
class Whole:
    """A server: in one round trip. No row is written where the fence is closed.

    Attributes:
        one: Its text for one row.
        many: Its text for many; `None`: it is for one row only.
        fence: The names of the fence's parameters, in the order in which they are given.
        columns: Those of a row.
        counted: How many rows are counted besides those written.
    """

    one: str
    many: str | None
    fence: tuple[str, ...]
    columns: tuple[str, ...]
    counted: int

    @classmethod
    def of(cls, dialect: Dialect, fence: Statement, insert: Statement) -> Whole | None:
        """Made of these two, where this server and its driver can do it."""
        if dialect.driver == "pymysql" and getattr(dialect, "is_mariadb", False):
            # This number is there only where the fence has just been passed.
            passed = "blazen_lease WHERE lease_id = %(me)s AND batch = %(number)s"
            block = f"BEGIN NOT ATOMIC {fence.sql};{_selecting(insert)} {passed};COMMIT;END"
            return cls(block, None, fence.names, insert.names, 1)
        # On PostgreSQL it is a transaction by itself, which has the isolation that the database has by default. At any but this one
        # it is not looked at again what a row says after it was waited for.
        if insert.many is not None and dialect.default_isolation_level == "READ COMMITTED":
            begun = f"WITH fence AS ({fence.sql})"
            one, many = f"{begun} {_selecting(insert)} fence", f"{begun} {insert.many.sql}, fence"
            return cls(one, many, fence.names, insert.names, 0)
        return None

    def execute(self, cursor: Any, fence: Row, rows: list[Row]) -> bool:
        """Run it; whether the rows were written."""
        given = dict(zip(self.fence, fence, strict=True))
        if len(rows) == 1:
            cursor.execute(self.one, {**given, **dict(zip(self.columns, rows[0], strict=True))})
        else:
            arrays = map(list, zip(*rows, strict=True))
            cursor.execute(self.many, {**given, **dict(zip(self.columns, arrays, strict=True))})
        return bool(cursor.rowcount == len(rows) + self.counted)


def _selecting(insert: Statement) -> str:
    """The INSERT, of its values if there is something in what is named next."""
    head, _, values = insert.sql.partition(" VALUES (")
    return f"{head} SELECT {values.removesuffix(')')} FROM"


MULTI_STATEMENTS = 1 << 16
"""The client's flag that asks for it."""

_PACKET = 1_000_000
"""Characters, unless one row alone has more; a server that can store a large row takes it."""


def takes_packets(connection: sa.Connection) -> bool:
    """Whether this connection was made with the flag, and to a server that knows it."""
    if connection.dialect.driver != "pymysql":
        return False
    driver: Any = connection.connection.dbapi_connection
    return bool(driver.client_flag & driver.server_capabilities & MULTI_STATEMENTS)


def send(
    cursor: Any,
    work: Iterable[tuple[Statement, list[tuple[Any, ...]]]],
    first: Callable[[int], None],
) -> dict[Statement, int]:
    """Run these statements, each for all of its rows, in this order.

    Args:
        cursor: The driver's.
        work: The statements, none of which returns rows.
        first: Is told how many rows the first one found; what follows may have been run by then, so
            if this raises, all of it is to be rolled back.

    Returns:
        How many rows each found or wrote.
    """
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
        # The connection can be used again once all that it was asked is answered.
        with contextlib.suppress(Exception):
            while cursor.nextset():
                pass
        raise
    # Wait until all was done. What was refused is raised, and nothing after it was done.
    for statement, _ in packet:
        found[statement] = found.get(statement, 0) + cursor.rowcount
        cursor.nextset()


def _texts(
    cursor: Any, work: Iterable[tuple[Statement, list[tuple[Any, ...]]]]
) -> Iterator[tuple[Statement, str]]:
    for statement, rows in work:
        insert, _, values = statement.sql.partition(" VALUES ")
        texts: Iterable[str]
        if values:
            head = f"{cursor.mogrify(insert, ())} VALUES "
            texts = _joined(head, (cursor.mogrify(values, statement.given(row)) for row in rows))
        elif len(statement.names) == 1:
            head, value = statement.listing
            places = (cursor.mogrify(value, statement.given(row)) for row in rows)
            texts = _joined(cursor.mogrify(head, ()), places, ")")
        else:
            texts = (cursor.mogrify(statement.sql, statement.given(row)) for row in rows)
        for text in texts:
            yield statement, text


def _joined(head: str, rows: Iterable[str], end: str = "") -> Iterator[str]:
    """Statements of as many rows at once as a packet holds."""
    some: list[str] = []
    size = len(head)
    for row in rows:
        if some and size + len(row) > _PACKET:
            yield head + ",".join(some) + end
            some, size = [], len(head)
        some.append(row)
        size += len(row) + 1
    if some:
        yield head + ",".join(some) + end
