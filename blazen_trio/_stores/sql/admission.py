"""Checks of engines and databases when a store is opened; an unsuitable setting is refused by name.

A user's engine comes with the user's settings, and a database with its server's configuration.
These checks find problems that would otherwise show only when rows are written or read.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from blazen_trio._stores.sql import databases
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
    with contextlib.closing(connection.connection.cursor()) as cursor:
        databases.of(connection).check_settings(connection, cursor)
        _check_values(connection, cursor)


def _check_values(connection: sa.Connection, cursor: DBAPICursor) -> None:
    """Refuse connections that don't return values as they were written.

    Settings of a session, a driver or a server can cause this. A round trip of test values finds
    them all, whatever their names are.
    """
    echo = databases.of(connection).echo(connection.dialect)
    given: list[Any] = [_TEXT + _LETTERS if echo.any_letter else _TEXT, _EVERY_BYTE]
    if echo.in_array:
        given.append([b"", _EVERY_BYTE])
    row: tuple[Any, ...] = ()
    cause: UnicodeError | None = None
    try:
        cursor.execute(echo.sql, tuple(given))
        row = cursor.fetchone() or ()
    except UnicodeError as error:
        cause = error
    expected = [given[0], *[_EVERY_BYTE] * (len(given) - 1)]
    found = [bytes(each) if isinstance(each, memoryview) else each for each in row]
    if found != expected:
        what = "texts" if found[:1] != expected[:1] else "bytes"
        raise StoreError(
            f"this database does not return {what} as they were written: {echo.advice}"
        ) from cause


def _driver(connection: sa.Connection) -> Any:
    return connection.connection.dbapi_connection
