"""Storages for the tests of this folder, which open them repeatedly and read what is stored."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from blazen_trio import MemoryStore, open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

__all__ = ["Storage"]


class Storage:
    """A storage of runs. Each `opened()` is another opening, as another process would have."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.file = folder / "runs.db"
        self._memory = MemoryStore() if kind == "memory" else None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Any]:
        if self._memory is not None:
            yield self._memory
        else:
            async with open_store(f"sqlite:///{self.file}") as store:
                yield store

    def rows(self, query: str) -> list[Any]:
        """Return the rows of an SQL query on the SQLite file."""
        connection = sqlite3.connect(self.file)
        try:
            with connection:
                return connection.execute(query).fetchall()
        finally:
            connection.close()
