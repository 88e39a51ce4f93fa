from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from blazen_trio import MemoryStore, open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Openings:
    """Open one storage several times, as several processes would."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.url = f"sqlite:///{folder / 'runs.db'}"
        self._memory = MemoryStore()

    @asynccontextmanager
    async def __call__(self, **options: Any) -> AsyncIterator[Any]:
        if self.kind == "memory":
            async with self._memory.beside() as store:
                yield store
        else:
            async with open_store(self.url, **options) as store:
                yield store


@pytest.fixture(params=["memory", "sqlite"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Openings:
    return Openings(request.param, tmp_path)


@pytest.fixture
def opened_in_memory(tmp_path: Path) -> Openings:
    return Openings("memory", tmp_path)


@pytest.fixture
def opened_in_sqlite(tmp_path: Path) -> Openings:
    return Openings("sqlite", tmp_path)
