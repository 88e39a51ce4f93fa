"""Several statements in one packet, for connections that take such: one round trip for all of them.

These are MySQL's and MariaDB's, asked for when the connection is made. Values become part of a statement's text only as the driver
itself would write them into it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import sqlalchemy as sa

    from blazen_trio._stores.sql.statements import Statement

__all__ = ["MULTI_STATEMENTS", "send", "takes_packets"]

MULTI_STATEMENTS = 1 << 16
"""The client's flag that asks for it."""

_PACKET = (
    1_000_000  # characters, unless one row alone has more; a server that is set up so as to store a large row takes it
)


def takes_packets(connection: sa.Connection) -> bool:
    """Whether this connection was made with the flag, and to a server that knows it."""
    if connection.dialect.driver != "pymysql":
        return False
    driver: Any = connection.connection.dbapi_connection
    return bool(driver.client_flag & driver.server_capabilities & MULTI_STATEMENTS)


def send(cursor: Any, work: Iterable[tuple[Statement, list[tuple[Any, ...]]]], first: Callable[[int], None]) -> None:
    """Run these statements, each for all of its rows, in this order.

    Args:
        cursor: The driver's.
        work: The statements, none of which returns rows.
        first: Is told how many rows the first one found; what follows may have been run by then, so if this raises, all of it is to
            be rolled back.
    """
    packet: list[str] = []
    size = 0
    for text in _texts(cursor, work):
        if packet and size + len(text) > _PACKET:
            _send(cursor, packet, first)
            packet, size, first = [], 0, _ignore
        packet.append(text)
        size += len(text)
    if packet:
        _send(cursor, packet, first)


def _ignore(_found: int) -> None:
    pass


def _send(cursor: Any, packet: list[str], first: Callable[[int], None]) -> None:
    cursor.execute(";".join(packet))
    try:
        first(cursor.rowcount)
    except BaseException:
        # The connection can be used again once all that it was asked is answered.
        with contextlib.suppress(Exception):
            _skip_results(cursor)
        raise
    _skip_results(cursor)


def _skip_results(cursor: Any) -> None:
    """Wait until all was done. What was refused is raised, and nothing after it was done."""
    while cursor.nextset():
        pass


def _texts(cursor: Any, work: Iterable[tuple[Statement, list[tuple[Any, ...]]]]) -> Iterator[str]:
    for statement, rows in work:
        insert, _, values = statement.sql.partition(" VALUES ")
        if values:
            head = f"{cursor.mogrify(insert, ())} VALUES "
            yield from _joined(head, (cursor.mogrify(values, statement.given(row)) for row in rows))
        elif len(statement.names) == 1:
            head, value = statement.listing
            yield from _joined(
                cursor.mogrify(head, ()), (cursor.mogrify(value, statement.given(row)) for row in rows), ")"
            )
        else:
            for row in rows:
                yield cursor.mogrify(statement.sql, statement.given(row))


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
