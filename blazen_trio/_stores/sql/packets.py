"""Several statements in one packet, for connections that take such: one round trip for all of them.

These are MySQL's and MariaDB's, asked for when the connection is made. Values become part of a
statement's text only as the driver itself would write them into it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import sqlalchemy as sa

    from blazen_trio._stores.sql.compiled import Statement

__all__ = ["MULTI_STATEMENTS", "send", "takes_packets"]

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
