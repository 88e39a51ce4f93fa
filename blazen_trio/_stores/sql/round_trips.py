"""Statements and round trips: how statements are sent to a database.

Each statement is compiled once, and run on the driver's own cursor, for one row or many. Where a
connection supports it, several go in one packet. The fence, an INSERT behind it and the commit can
be sent at once, so a batch that only appends entries costs one round trip.

Packets of several statements exist on MySQL and MariaDB, and are requested when the connection is
made. Values are written into a statement's text only by the driver's own function for that.
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
"""At most this many values in one statement."""


@attrs.frozen(eq=False)
class Many:
    """A statement for many rows, which are passed as one array per parameter.

    Attributes:
        sql: Its text.
        chosen: The parameters that select the row to change, since one execution changes each row
            only once. Empty: any rows may be passed together.
    """

    sql: str
    chosen: tuple[int, ...]


@attrs.frozen(eq=False)
class Statement:
    """A compiled statement. Its parameters are passed as tuples, in a fixed order.

    Attributes:
        sql: Its text, in the database's dialect.
        names: The parameters' names, in the order in which they are passed.
        order: For a driver with positional parameters: the index of the parameter for each
            position. `None`: the order in which they are passed.
        by_name: Whether the driver has named parameters.
        many: The statement for many rows, if it replaces the driver's own loop.
    """

    sql: str
    names: tuple[str, ...]
    order: tuple[int, ...] | None
    by_name: bool
    many: Many | None = None

    def execute(self, cursor: DBAPICursor, row: tuple[Any, ...]) -> int:
        """Run the statement. Returns how many rows it found or wrote."""
        cursor.execute(self.sql, self.given(row))
        return cursor.rowcount

    def execute_many(self, cursor: DBAPICursor, rows: list[tuple[Any, ...]]) -> int:
        """Run the statement for each of these rows, in order; in one round trip if possible.

        Returns how many rows it found or wrote.
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
        """Return all rows for these values of its only parameter, which is last in the text."""
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
        """The statement for a list of values: its text up to the list, and a value's placeholder.

        Only for a statement whose single parameter is last in the text.
        """
        head, _, place = self.sql.rpartition(" = ")
        return f"{head} IN (", place

    def given(self, row: tuple[Any, ...]) -> Any:
        """Return the parameters in the form that the driver expects."""
        if self.by_name:
            return dict(zip(self.names, row, strict=True))
        return row if self.order is None else tuple(row[index] for index in self.order)


def compile_statement(
    statement: Any, names: Sequence[str], dialect: Dialect, columns: Sequence[str] | None = None
) -> Statement:
    """Compile a statement whose parameters are passed in the order of `names`.

    `columns` are the columns that it sets from them.
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
    """Turn PostgreSQL's statement for one row into one for many.

    Its parameters become the columns of a table `many`.
    """
    kinds = {name: kind or "BYTEA" for name, kind in _PARAMETER.findall(sql)}
    # Arrays of bytes are sent in binary (`b`). As text they would be escaped twice, which takes
    # twenty times as long, and once more if the session treats backslashes as escapes.
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
    """Split the rows, in order, into the fewest pieces of which none selects a row twice."""
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
    """On SQLite, an INSERT that checks the lease without changing it.

    This writes one page less. The statement is a transaction by itself if none has been started.
    SQLite has one writer at a time and no statement arrives late, so the lease does not need the
    number of this batch.

    Attributes:
        one: Its text, for one row.
    """

    one: str

    @classmethod
    def of(cls, dialect: Dialect, insert: Statement) -> Checked | None:
        """Make it from the INSERT; `None` if the database is not SQLite."""
        if dialect.driver != "pysqlite":
            return None
        now = dialects.now(dialect.name)
        # A lease that expires later than `lease_ttl` from now was renewed before the clock was set
        # back. It is not valid here, so that the fence renews it by the clock as it is now.
        good = f"lease_id = ? AND state = 1 AND expires BETWEEN {now} + ? AND {now} + ?"
        return cls(f"{_selecting(insert)} blazen_lease WHERE {good}")

    def execute(self, cursor: Any, lease_id: int | None, lease_ttl: int, rows: list[Row]) -> bool:
        """Run it if there is exactly one row. Returns whether the row was written.

        It is not if the lease is lost, or is due for renewal because a third of its time has
        passed.
        """
        if len(rows) != 1:
            return False
        cursor.execute(self.one, (*rows[0], lease_id, lease_ttl * 2 // 3, lease_ttl))
        return bool(cursor.rowcount == 1)


@attrs.frozen(eq=False)
class Whole:
    """On a server, the fence, an INSERT and the commit in one round trip.

    No row is written if the fence is closed.

    Attributes:
        one: Its text for one row.
        many: Its text for many rows; `None`: it can only write one.
        fence: The names of the fence's parameters, in the order in which they are passed.
        columns: The names of a row's parameters.
        counted: How many rows the driver counts in addition to those written.
    """

    one: str
    many: str | None
    fence: tuple[str, ...]
    columns: tuple[str, ...]
    counted: int

    @classmethod
    def of(cls, dialect: Dialect, fence: Statement, insert: Statement) -> Whole | None:
        """Make it from these two; `None` if the server or its driver does not support it."""
        if dialect.driver == "pymysql" and getattr(dialect, "is_mariadb", False):
            # The lease has this batch's number only if the fence has just been passed.
            passed = "blazen_lease WHERE lease_id = %(me)s AND batch = %(number)s"
            block = f"BEGIN NOT ATOMIC {fence.sql};{_selecting(insert)} {passed};COMMIT;END"
            return cls(block, None, fence.names, insert.names, 1)
        # On PostgreSQL the statement is a transaction by itself, with the database's default
        # isolation level. Only at READ COMMITTED is a row that was waited for checked again in its
        # current version.
        if insert.many is not None and dialect.default_isolation_level == "READ COMMITTED":
            begun = f"WITH fence AS ({fence.sql})"
            one, many = f"{begun} {_selecting(insert)} fence", f"{begun} {insert.many.sql}, fence"
            return cls(one, many, fence.names, insert.names, 0)
        return None

    def execute(self, cursor: Any, fence: Row, rows: list[Row]) -> bool:
        """Run it. Returns whether the rows were written."""
        given = dict(zip(self.fence, fence, strict=True))
        if len(rows) == 1:
            cursor.execute(self.one, {**given, **dict(zip(self.columns, rows[0], strict=True))})
        else:
            arrays = map(list, zip(*rows, strict=True))
            cursor.execute(self.many, {**given, **dict(zip(self.columns, arrays, strict=True))})
        return bool(cursor.rowcount == len(rows) + self.counted)


def _selecting(insert: Statement) -> str:
    """Return the INSERT as INSERT ... SELECT, up to FROM: it writes its row if FROM has one."""
    head, _, values = insert.sql.partition(" VALUES (")
    return f"{head} SELECT {values.removesuffix(')')} FROM"


MULTI_STATEMENTS = 1 << 16
"""The client's flag that requests packets of several statements."""

_PACKET = 1_000_000
"""Characters per packet, unless a single row has more; a server accepts rows that it can store."""


def takes_packets(connection: sa.Connection) -> bool:
    """Return whether this connection was made with the flag, and its server supports it."""
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
        cursor: The driver's cursor.
        work: The statements, none of which returns rows, with their rows.
        first: Called with the number of rows that the first statement found. Later statements may
            already have been run, so if this raises, the transaction must be rolled back.

    Returns:
        How many rows each statement found or wrote.
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
        # The connection can be used again once all answers have been read.
        with contextlib.suppress(Exception):
            while cursor.nextset():
                pass
        raise
    # Wait until everything is done. A refused statement raises here; later ones are not run.
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
    """Yield statements, each for as many rows as a packet holds."""
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
