"""Which databases a store can be opened in: what does not suit is refused then, by name.

An engine of somebody's comes with whatever they have set on it, and a database with whatever its
server's configuration says. What would only be noticed when rows are written or read is looked at
here.
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
"""What has a meaning somewhere between here and the database."""
_LETTERS: Final = "\u00e9\u2713\u8868\U0001f680"
"""Of two, three and four bytes; the third is one that ends with a backslash in some encodings."""
_LEAST_PACKET: Final = 2 * PART_SIZE + 64 * 1024
"""Bytes: a part of a payload, each letter of which may be escaped, and what is around it."""


def check_engine(engine: sa.Engine) -> None:
    """Refuse an engine of somebody's that leaves a store no tables or connections of its own.

    Raises:
        StoreError: It does not.
        SQLAlchemyError: It can't connect.
    """
    _check_tables(engine)
    try:
        connecting = engine.connect()
    except TypeError as error:  # out of SQLAlchemy, which reads the server's version as a text
        raise StoreError(
            f"this engine can't connect ({error}). Where it is PostgreSQL and the database's "
            "encoding is SQL_ASCII, its connections need to be made with client_encoding=utf8"
        ) from error
    with connecting as one:
        _check_pool(engine, one)


def _check_tables(engine: sa.Engine) -> None:
    translated = engine.get_execution_options().get("schema_translate_map") or {}
    if None in translated:
        raise StoreError(
            f"this engine translates schemas (schema_translate_map={dict(translated)!r:.200}), and "
            "the store's statements and migrations are not translated: give open_store an engine "
            "without that; on PostgreSQL its connections can have a search_path, e.g. by "
            f'connect_args={{"options": "-csearch_path={translated[None]}"}}'
        )


def _check_pool(engine: sa.Engine, one: sa.Connection) -> None:
    """Refuse a pool that has no second connection, as the writer and a reader need two at once."""
    pool = type(engine.pool).__name__
    refusal = StoreError(
        f"this engine gives out one connection to several users at once (its pool is a {pool}): a "
        "store's transactions need connections of their own. Make the engine with the pool that "
        "SQLAlchemy takes by itself, or give open_store the URL"
    )
    try:
        with engine.connect() as other:
            if _driver(one) is _driver(other):
                raise refusal
    except AssertionError as error:  # so says a pool that has one connection
        raise refusal from error


def check_connection(connection: sa.Connection) -> None:
    """Refuse a database, or connections to it, in which a store can't write what is to be read.

    Raises:
        StoreError: So it is.
    """
    _check_transactions(connection)
    with contextlib.closing(connection.connection.cursor()) as cursor:
        _check_values(connection, cursor)
        if connection.dialect.name in ("mysql", "mariadb"):
            _check_packets(cursor)


def _check_transactions(connection: sa.Connection) -> None:
    """Refuse connections that begin and end transactions in a way that ours can't be begun and
    ended in.
    """
    # Python 3.12 has this attribute; -1 is what all versions do by default.
    autocommit = getattr(_driver(connection), "autocommit", -1)
    if connection.dialect.name == "sqlite" and autocommit != -1:
        raise StoreError(
            f"this engine makes SQLite's connections with autocommit={autocommit}, which leaves no "
            "room for transactions of a store's own: make it without, or give open_store the URL"
        )


def _check_values(connection: sa.Connection, cursor: DBAPICursor) -> None:
    """Refuse connections by which what is written is not what is read, as the settings of a
    session, of a driver or of a server may have it: whatever their names are.
    """
    name = connection.dialect.name
    if name == "sqlite":
        query, advice = "SELECT ?, ?", "make the engine without a text_factory of your own"
        given: list[Any] = [_TEXT + _LETTERS, _EVERY_BYTE]
    elif name == "postgresql":
        # Letters that the database's encoding lacks are refused where they are names, and escaped
        # where they are texts for people.
        query, given = "SELECT CAST(%s AS TEXT), CAST(%s AS BYTEA)", [_TEXT, _EVERY_BYTE]
        if dialects.has_arrays(connection.dialect):
            query += ", (CAST(%b AS BYTEA[]))[2]"
            given.append([b"", _EVERY_BYTE])
        advice = (
            "have the connections made with client_encoding=utf8, and set nothing on the session "
            "by which texts are read otherwise than SQL says"
        )
    else:
        query = "SELECT CONVERT(%s USING utf8mb4), %s"
        given = [_TEXT + _LETTERS, _EVERY_BYTE]
        advice = "have the connections made with charset=utf8mb4, as they are by default"
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
            f"this database does not give back {what} as they were given: {advice}"
        ) from cause


def _check_packets(cursor: DBAPICursor) -> None:
    """Refuse a server that takes too little at once to be given what is large in parts."""
    cursor.execute("SELECT @@max_allowed_packet")
    row = cursor.fetchone()
    if row is not None and int(row[0]) < _LEAST_PACKET:
        raise StoreError(
            f"this server takes {row[0]} bytes at once, and what is large is written in parts that "
            f"need {_LEAST_PACKET}: raise its max_allowed_packet to 16 MB, as it is by default"
        )


def _driver(connection: sa.Connection) -> Any:
    return connection.connection.dbapi_connection
