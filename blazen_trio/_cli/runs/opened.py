"""Stores that are open for as long as a command needs them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, TypeVar

import trio

from blazen_trio import open_store
from blazen_trio._cli.exits import ConfigError
from blazen_trio._concurrency import bare_errors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blazen_trio._stores.sql.reading import SqlLooks
    from blazen_trio._stores.sql.store import SqlStore

__all__ = ["look", "with_store"]

T = TypeVar("T")


def with_store(url: str, use: Callable[[SqlStore], Awaitable[T]], *, create: bool = False) -> T:
    """Run an async function with an open store.

    Args:
        url: The database.
        use: The function.
        create: Whether an SQLite file may be created. Otherwise, a mistyped name creates no file,
            and a query does not upgrade a database.

    Raises:
        ConfigError: The URL names a database that can't be used, or its schema is not the one
            needed.
        StoreError: The database failed.
    """

    async def main() -> T:
        async with AsyncExitStack() as stack:
            try:
                store = await stack.enter_async_context(open_store(url))
            except ValueError as error:
                raise ConfigError(str(error)) from error
            return await use(store)

    _check_schema(url, create=create)
    with bare_errors():
        return trio.run(main)


def look(url: str, use: Callable[[SqlLooks], Awaitable[T]]) -> T:
    """Run an async function with read-only access to a database.

    Raises:
        ConfigError: The URL names a database that can't be used.
        StoreError: The database can't be read, or its schema is not the one needed.
    """
    # A database library, which --help does not need.
    from blazen_trio._stores.sql.opening import open_to_look

    async def main() -> T:
        async with AsyncExitStack() as stack:
            try:
                looks = await stack.enter_async_context(open_to_look(url))
            except ValueError as error:
                raise ConfigError(str(error)) from error
            return await use(looks)

    with bare_errors():
        return trio.run(main)


def _check_schema(url: str, *, create: bool) -> None:
    from blazen_trio._stores.sql.migrate import (
        read_schema,  # a database library, which --help does not need
    )

    try:
        schema = read_schema(url)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    problem = schema.problem
    if problem is not None and not (create and schema.standing == "missing"):
        raise ConfigError(problem)
