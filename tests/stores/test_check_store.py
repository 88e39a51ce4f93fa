"""Both stores keep every promise of the protocol. `check_store` detects a store that does not."""

from __future__ import annotations

import operator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio.testing

from blazen_trio._stores.driver import Driver, Mail
from blazen_trio._stores.memory import MemoryStore
from blazen_trio._stores.open_store import open_store
from blazen_trio._stores.protocol import Commit, NewRun, Poll, StoredRun
from blazen_trio.testing.check import check_store
from tests.databases import KINDS, fresh_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from blazen_trio._stores.protocol import CheckpointStore


async def test_memory_store_keeps_every_promise() -> None:
    await check_store(MemoryStore, reopen=operator.methodcaller("beside"))


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
    """Forgets the keys of messages that were taken."""

    async def commit(self, driver: Driver, commit: Commit) -> None:
        await super().commit(driver, commit)
        if commit.taken:
            self._runs[commit.run_id].keys.clear()


class _Lax(MemoryStore):
    """Lets two drivers drive one run."""

    async def claim(self, run_id: str) -> StoredRun:
        if (kept := self._runs.get(run_id)) is not None:
            kept.give_back()
        return await super().claim(run_id)


class _Sloppy(MemoryStore):
    """Loses blobs."""

    async def load(self, run_id: str) -> StoredRun:
        return attrs.evolve(await super().load(run_id), blobs={})


class _Doubling(MemoryStore):
    """Takes all rows older than the one to be taken, too."""

    async def commit(self, driver: Driver, commit: Commit) -> None:
        older = range(1, max(commit.taken, default=0) + 1)
        taken = [each for each in older if each in self._runs[driver.run_id].inbox]
        await super().commit(driver, attrs.evolve(commit, taken=taken))


class _Narrow(MemoryStore):
    """Lists only the first of several statuses."""

    async def list_runs(self, *, status: Any = None, **options: Any) -> Any:
        return await super().list_runs(
            status=status[:1] if isinstance(status, list | tuple) else status, **options
        )


class _AnyDriver(MemoryStore):
    """Checks the id of the run, not its driver."""

    def _current(self, driver: Driver) -> Driver:
        kept = self._runs.get(driver.run_id)
        return driver if kept is None or kept.driver is None else kept.driver

    async def commit(self, driver: Driver, commit: Commit) -> None:
        await super().commit(self._current(driver), commit)

    async def release(self, driver: Driver, **how: Any) -> None:
        await super().release(self._current(driver), **how)


class _Repeating(MemoryStore):
    """Delivers the whole inbox at each poll."""

    async def poll(self, *given: Any) -> Poll:
        for kept in self._runs.values():
            if kept.driver is not None and kept.inbox:
                kept.driver.deliver(list(kept.inbox.values()))
        return await super().poll(*given)


class _Blind(MemoryStore):
    """Does not check that the messages to be taken are there."""

    async def commit(self, driver: Driver, commit: Commit) -> None:
        kept = self._runs.get(driver.run_id)
        there = [] if kept is None else [each for each in commit.taken if each in kept.inbox]
        await super().commit(driver, attrs.evolve(commit, taken=there))


class _Forgetting(MemoryStore):
    """Forgets to release a run whose commit has failed."""

    async def release(self, driver: Driver, **how: Any) -> None:
        if driver.lost is None:
            await super().release(driver, **how)
        else:
            await trio.lowlevel.checkpoint()


class _Ruthless(MemoryStore):
    """Deletes runs that are being driven."""

    async def delete_run(self, run_id: str) -> None:
        if run_id in self._runs:
            self._runs[run_id].give_back()
        await super().delete_run(run_id)


class _Silent(MemoryStore):
    """Does not notify the driver that a run is lost."""

    async def commit(self, driver: Driver, commit: Commit) -> None:
        listener, driver._listener = driver._listener, None
        try:
            await super().commit(driver, commit)
        finally:
            driver._listener = listener


class _Uncounting(MemoryStore):
    """Ignores the crash that a driver reports."""

    async def release(self, driver: Driver, *, crash: str | None = None, **how: Any) -> None:
        await super().release(driver, **how)


class _Whole(MemoryStore):
    """Delivers only the first page of an inbox."""

    async def claim(self, run_id: str) -> StoredRun:
        stored = await super().claim(run_id)
        if stored.driver is not None:
            stored.driver._unheard.clear()
        return stored


@pytest.mark.parametrize(
    ("kind", "promise"),
    [
        (_AnyDriver, "a released run can't be written|an earlier driver does not commit"),
        (_Repeating, "each row is delivered once"),
        (_Blind, "a row is taken once"),
        (_Forgetting, "a driver whose commit failed can release the run"),
        (_Ruthless, "can't be deleted"),
        (_Silent, "is notified of the reason"),
        (_Uncounting, "counts as a crash"),
        (_Whole, "the driver gets the other messages"),
        (_Narrow, "several statuses"),
        (_Forgetful, "a key stays used"),
        (_Lax, "can't be claimed"),
        (_Sloppy, "the blobs that a run is created with are stored"),
        (_Doubling, "by its id"),
    ],
)
async def test_a_broken_store_fails_at_the_promise_that_it_breaks(
    kind: type[MemoryStore], promise: str
) -> None:
    with pytest.raises(AssertionError, match=promise):
        await check_store(kind, reopen=lambda store: store.beside())  # type: ignore[attr-defined]


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
async def test_a_cancelled_post_writes_nothing(kind: str, tmp_path: Path) -> None:
    async with _opened(kind, tmp_path) as store:
        await store.create(NewRun("w", "1", 1.0), Commit("a", [(1, b"")]))
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.post("a", "event", b"")
        assert tuple((await store.load("a")).inbox) == ()


@pytest.mark.parametrize("kind", ["memory", *KINDS])
async def test_a_commit_and_a_release_can_not_be_cancelled(kind: str, tmp_path: Path) -> None:
    async with _opened(kind, tmp_path) as store:
        driver = await store.create(NewRun("w", "1", 1.0), Commit("a", [(1, b"")]))
        assert driver is not None
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.commit(driver, Commit("a", [(2, b"")]))
            await store.release(driver)
        assert not scope.cancelled_caught
        assert [seq for seq, _ in (await store.claim("a")).entries] == [1, 2]


async def test_a_submitted_post_is_written_although_its_caller_is_cancelled(
    tmp_path: Path,
) -> None:
    async with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        await store.create(NewRun("w", "1", 1.0), Commit("a", [(1, b"")]))
        posted: list[Mail | None] = []
        async with trio.open_nursery() as nursery:

            async def post() -> None:
                posted.append(await store.post("a", "event", b"x"))

            nursery.start_soon(post)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert posted == list((await store.load("a")).inbox)
        assert len(posted) == 1


async def test_invalid_arguments_are_refused() -> None:
    store = MemoryStore()
    with pytest.raises(ValueError, match="'queued', 'running'"):
        await store.list_runs(status="broken")
    with pytest.raises(ValueError, match="at least 1"):
        await store.list_runs(limit=0)
