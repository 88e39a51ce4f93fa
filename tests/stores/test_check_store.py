"""Both stores keep every promise of the protocol, and a store that breaks one is found out."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio.testing

from blazen_trio._stores.memory import MemoryStore
from blazen_trio._stores.open import open_store
from blazen_trio._stores.protocol import Commit, Driver, Mail, NewRun, StoredRun
from blazen_trio.testing.check import check_store
from tests.databases import KINDS, fresh_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from blazen_trio._stores.protocol import CheckpointStore


async def test_memory_store_keeps_every_promise() -> None:
    await check_store(MemoryStore, reopen=lambda store: store.beside())  # type: ignore[attr-defined]


async def test_sql_store_keeps_every_promise(kind: str, tmp_path: Path) -> None:
    urls: dict[int, str] = {}

    @asynccontextmanager
    async def fresh() -> AsyncIterator[CheckpointStore]:
        # Dropped when the store is closed, so that closing finds the database.
        with fresh_database(kind, tmp_path) as url:
            async with open_store(url, migrate=True) as store:
                urls[id(store)] = url
                yield store

    await check_store(fresh, reopen=lambda store: open_store(urls[id(store)]))


class _Forgetful(MemoryStore):
    """Forgets the keys of what was taken."""

    async def commit(self, driver: Driver, commit: Commit) -> None:
        await super().commit(driver, commit)
        if commit.taken:
            self._runs[commit.run_id].keys.clear()


class _Lax(MemoryStore):
    """Lets two drive one run."""

    async def claim(self, run_id: str) -> StoredRun:
        if (kept := self._runs.get(run_id)) is not None:
            kept.give_back()
        return await super().claim(run_id)


class _Sloppy(MemoryStore):
    """Loses blobs."""

    async def load(self, run_id: str) -> StoredRun:
        return attrs.evolve(await super().load(run_id), blobs={})


class _Doubling(MemoryStore):
    """Takes all rows that are older than the one to be taken."""

    async def commit(self, driver: Driver, commit: Commit) -> None:
        older = range(1, max(commit.taken, default=0) + 1)
        taken = [each for each in older if each in self._runs[driver.run_id].inbox]
        await super().commit(driver, attrs.evolve(commit, taken=taken))


class _Narrow(MemoryStore):
    """Looks for the first of several statuses only."""

    async def list_runs(self, *, status: Any = None, **options: Any) -> Any:
        return await super().list_runs(status=status[:1] if isinstance(status, list | tuple) else status, **options)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (_Narrow, "several statuses"),
        (_Forgetful, "a key stays used"),
        (_Lax, "can't be claimed"),
        (_Sloppy, "blobs are stored"),
        (_Doubling, "by its id"),
    ],
)
async def test_a_broken_store_is_found_out_by_the_promise_it_breaks(kind: type[MemoryStore], told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        await check_store(kind)


@asynccontextmanager
async def _opened(kind: str, folder: Path) -> AsyncIterator[CheckpointStore]:
    if kind == "memory":
        async with MemoryStore() as store:
            yield store
    else:
        with fresh_database(kind, folder) as url:
            async with open_store(url, migrate=True) as store:
                yield store


@pytest.mark.parametrize("kind", ["memory", *KINDS])
async def test_methods_that_return_are_checkpoints(kind: str, tmp_path: Path) -> None:
    async with _opened(kind, tmp_path) as store:
        calls: list[Any] = [
            lambda: store.create(NewRun("w", "1", 1.0), Commit("a", [(1, b"")])),
            lambda: store.post("a", "event", b""),
            lambda: store.load("a"),
            lambda: store.get_run("a"),
            store.list_runs,
        ]
        for call in calls:
            with trio.testing.assert_checkpoints():
                await call()


@pytest.mark.parametrize("kind", ["memory", *KINDS])
async def test_cancelled_means_that_nothing_was_written(kind: str, tmp_path: Path) -> None:
    async with _opened(kind, tmp_path) as store:
        await store.create(NewRun("w", "1", 1.0), Commit("a", [(1, b"")]))
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.post("a", "event", b"")
        assert tuple((await store.load("a")).inbox) == ()


@pytest.mark.parametrize("kind", ["memory", *KINDS])
async def test_a_commit_and_a_release_can_not_be_cancelled(kind: str, tmp_path: Path) -> None:
    async with _opened(kind, tmp_path) as store:
        await store.create(NewRun("w", "1", 1.0), Commit("a", [(1, b"")]))
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.commit(Commit("a", [(2, b"")]))
            await store.release("a")
        assert not scope.cancelled_caught
        assert [seq for seq, _ in (await store.claim("a")).entries] == [1, 2]


async def test_what_was_handed_over_is_written_although_its_caller_is_cancelled(tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        await store.create(NewRun("w", "1", 1.0), Commit("a", [(1, b"")]))
        told: list[Mail | None] = []
        async with trio.open_nursery() as nursery:

            async def post() -> None:
                told.append(await store.post("a", "event", b"x"))

            nursery.start_soon(post)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert told == list((await store.load("a")).inbox)
        assert len(told) == 1


async def test_a_bad_argument_is_told() -> None:
    store = MemoryStore()
    with pytest.raises(ValueError, match="'queued', 'running'"):
        await store.list_runs(status="broken")
    with pytest.raises(ValueError, match="at least one"):
        await store.list_runs(limit=0)
