"""A store that commits to runs and releases them by id, for tests that are not about drivers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from blazen_trio._stores.driver import Driver
from blazen_trio._stores.open_store import open_store
from blazen_trio._stores.protocol import Commit, NewRun, StoredRun

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from blazen_trio._stores.sql.store import SqlStore

__all__ = ["ById", "open_by_id"]


class ById:
    """A store, and the latest driver that it gave for each run.

    Everything else is the store's own.
    """

    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self.drivers: dict[str, Driver] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def driver(self, run_id: str) -> Driver:
        return self.drivers.get(run_id) or Driver(run_id)

    async def create(self, run: NewRun, first: Commit, **more: Any) -> Driver | None:
        driver = await self.store.create(run, first, **more)
        if driver is not None:
            self.drivers[first.run_id] = driver
        return driver

    async def claim(self, run_id: str) -> StoredRun:
        return self._note(await self.store.claim(run_id))

    async def take(self, workflows: Sequence[str], limit: int, **more: Any) -> list[StoredRun]:
        return [self._note(run) for run in await self.store.take(workflows, limit, **more)]

    def _note(self, run: StoredRun) -> StoredRun:
        if run.driver is not None:
            self.drivers[run.info.run_id] = run.driver
        return run

    async def commit(self, commit: Commit) -> None:
        await self.store.commit(self.driver(commit.run_id), commit)

    async def release(self, run_id: str, **more: Any) -> None:
        await self.store.release(self.driver(run_id), **more)


@asynccontextmanager
async def open_by_id(url: Any, **options: Any) -> AsyncIterator[ById]:
    async with open_store(url, **options) as store:
        yield ById(store)
