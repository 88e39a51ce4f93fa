"""Stores for the tests of this folder: opened again and again over what is stored, and seen from beneath."""

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
    """Where runs are kept: each `opened()` is another opening of it, as another process would have."""

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
        """What an SQL query over the SQLite file gives."""
        connection = sqlite3.connect(self.file)
        try:
            with connection:
                return connection.execute(query).fetchall()
        finally:
            connection.close()
