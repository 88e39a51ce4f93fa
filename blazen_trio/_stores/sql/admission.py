"""Checks of engines and databases when a store is opened; an unsuitable setting is refused by name.

A user's engine comes with the user's settings, and a database with its server's configuration.
These checks find problems that would otherwise show only when rows are written or read.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from blazen_trio._stores.sql import dialects
from blazen_trio._stores.sql.schema import PART_SIZE
from blazen_trio.errors import StoreError

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.engine.interfaces import DBAPICursor

__all__ = ["check_connection", "check_engine"]

_EVERY_BYTE: Final = bytes(range(256))
_TEXT: Final = "\\ \\\\ ' \" %s ? :x \n"
"""Characters with a special meaning somewhere between this process and the database."""
_LETTERS: Final = "\u00e9\u2713\u8868\U0001f680"
"""Characters of two, three and four bytes; in some encodings, the third ends with a backslash."""
_LEAST_PACKET: Final = 2 * PART_SIZE + 64 * 1024
"""Bytes: a part of a payload, each byte of which may be escaped, plus the statement around it."""


def check_engine(engine: sa.Engine) -> None:
    """Refuse a user's engine that leaves a store no tables or connections of its own.

    Raises:
        StoreError: The engine is unsuitable.
        SQLAlchemyError: It can't connect.
    """
    _check_tables(engine)
    try:
        connecting = engine.connect()
    except TypeError as error:  # from SQLAlchemy, which parses the server's version as text
        raise StoreError(
            f"this engine can't connect ({error}). If the database is PostgreSQL with the "
            "encoding SQL_ASCII, make its connections with client_encoding=utf8"
        ) from error
    with connecting as one:
        _check_pool(engine, one)


def _check_tables(engine: sa.Engine) -> None:
    translated = engine.get_execution_options().get("schema_translate_map") or {}
    if None in translated:
        raise StoreError(
            f"this engine translates schemas (schema_translate_map={dict(translated)!r:.200}), but "
            "the store's statements and migrations are not translated: give open_store an engine "
            "without that; on PostgreSQL, set the search_path of its connections instead, e.g. "
            f'connect_args={{"options": "-csearch_path={translated[None]}"}}'
        )


def _check_pool(engine: sa.Engine, one: sa.Connection) -> None:
    """Refuse a pool without a second connection: the writer and a reader need two at once."""
    pool = type(engine.pool).__name__
    refusal = StoreError(
        f"this engine gives one connection to several users at once (its pool is a {pool}), but a "
        "store's transactions need connections of their own. Make the engine with SQLAlchemy's "
        "default pool, or give open_store the URL"
    )
    try:
        with engine.connect() as other:
            if _driver(one) is _driver(other):
                raise refusal
    except AssertionError as error:  # raised by a pool with a single connection
        raise refusal from error


def check_connection(connection: sa.Connection) -> None:
    """Refuse a database, or connections to it, that would not return data as it was written.

    Raises:
        StoreError: A setting is unsuitable.
    """
    _check_transactions(connection)
    with contextlib.closing(connection.connection.cursor()) as cursor:
        _check_values(connection, cursor)
        if connection.dialect.name in ("mysql", "mariadb"):
            _check_packets(cursor)


def _check_transactions(connection: sa.Connection) -> None:
    """Refuse connections whose transaction mode rules out transactions of the store's own."""
    # Python 3.12 added this attribute; -1 is the default behaviour of all versions.
    autocommit = getattr(_driver(connection), "autocommit", -1)
    if connection.dialect.name == "sqlite" and autocommit != -1:
        raise StoreError(
            f"this engine makes SQLite connections with autocommit={autocommit}, which rules out "
            "transactions of the store's own: make it without, or give open_store the URL"
        )


def _check_values(connection: sa.Connection, cursor: DBAPICursor) -> None:
    """Refuse connections that don't return values as they were written.

    Settings of a session, a driver or a server can cause this. A round trip of test values finds
    them all, whatever their names are.
    """
    name = connection.dialect.name
    if name == "sqlite":
        query, advice = "SELECT ?, ?", "make the engine without a text_factory of your own"
        given: list[Any] = [_TEXT + _LETTERS, _EVERY_BYTE]
    elif name == "postgresql":
        # Characters that the database's encoding lacks are not tested: they are refused in names,
        # and escaped in texts for people.
        query, given = "SELECT CAST(%s AS TEXT), CAST(%s AS BYTEA)", [_TEXT, _EVERY_BYTE]
        if dialects.has_arrays(connection.dialect):
            query += ", (CAST(%b AS BYTEA[]))[2]"
            given.append([b"", _EVERY_BYTE])
        advice = (
            "make its connections with client_encoding=utf8, and set nothing on the session that "
            "makes it read text literals in a non-standard way"
        )
    else:
        query = "SELECT CONVERT(%s USING utf8mb4), %s"
        given = [_TEXT + _LETTERS, _EVERY_BYTE]
        advice = "make its connections with charset=utf8mb4, which is the default"
    row: tuple[Any, ...] = ()
    cause: UnicodeError | None = None
    try:
        cursor.execute(query, tuple(given))
        row = cursor.fetchone() or ()
    except UnicodeError as error:
        cause = error
    expected = [given[0], *[_EVERY_BYTE] * (len(given) - 1)]
    found = [bytes(each) if isinstance(each, memoryview) else each for each in row]
    if found != expected:
        what = "texts" if found[:1] != expected[:1] else "bytes"
        raise StoreError(
            f"this database does not return {what} as they were written: {advice}"
        ) from cause


def _check_packets(cursor: DBAPICursor) -> None:
    """Refuse a server whose packets are too small for a part of a payload."""
    cursor.execute("SELECT @@max_allowed_packet")
    row = cursor.fetchone()
    if row is not None and int(row[0]) < _LEAST_PACKET:
        raise StoreError(
            f"this server accepts packets of {row[0]} bytes, but a part of a large payload needs "
            f"{_LEAST_PACKET}: raise its max_allowed_packet to 16 MB, the default"
        )


def _driver(connection: sa.Connection) -> Any:
    return connection.connection.dbapi_connection
