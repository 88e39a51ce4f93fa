"""Every wait for a database is bounded, and its error says what was waited for."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
import trio

from blazen_trio._stores.open_store import open_store
from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio._stores.sql import batches, databases, engine, migrate, opening, troubles
from blazen_trio._stores.sql.databases import base
from blazen_trio._stores.sql.migrate import read_schema
from blazen_trio.errors import StoreError
from tests.databases import SERVERS, an_engine, execute
from tests.stores.proxy import Proxy, a_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from blazen_trio._stores.sql.store import SqlStore

_NEW = NewRun("w", "1", 1.0)
on_servers = pytest.mark.parametrize("kind", SERVERS)


def _opened(proxy: Proxy) -> AbstractAsyncContextManager[SqlStore]:
    return open_store(proxy.url, migrate=True, busy_timeout=0.5)


async def _create(store: SqlStore, run_id: str) -> None:
    await store.create(_NEW, Commit(run_id, [(1, b"1")]))


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the bounds shorter than usual. `busy_timeout` is another one."""
    for module in (batches, opening, migrate):
        monkeypatch.setattr(module, "ANSWER_WITHIN", 1.0)
    monkeypatch.setattr(engine, "CONNECT_WITHIN", 2)
    monkeypatch.setattr(troubles, "RECONNECT_FOR", 1.0)


@on_servers
async def test_a_server_that_goes_silent_raises_errors_and_the_block_can_be_left(
    url: str, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(troubles, "_REST", 60.0)  # long enough for a slow machine
    async with a_proxy(url) as proxy:
        with trio.fail_after(60):
            async with _opened(proxy) as store:
                await _create(store, "a")
                await store.get_run("a")
                proxy.silent = True
                with pytest.raises(StoreError):
                    await _create(store, "b")
                # The next call fails without waiting for the silent server again.
                with pytest.raises(StoreError, match="a moment ago"):
                    await _create(store, "c")


@on_servers
async def test_a_store_whose_server_is_silent_can_be_left(url: str, hasty: None) -> None:
    async with a_proxy(url) as proxy:
        with trio.fail_after(60):
            async with _opened(proxy) as store:
                await _create(store, "a")
                proxy.silent = True
    assert execute(url, "SELECT run_id FROM blazen_run") == [("a",)]


@on_servers
async def test_abandoned_reads_eventually_give_up_their_places(
    url: str, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "ANSWER_WITHIN", 4.0)
    async with a_proxy(url) as proxy, _opened(proxy) as store:
        await _create(store, "a")
        proxy.silent = True
        began = time.monotonic()
        with trio.move_on_after(0.2):
            async with trio.open_nursery() as nursery:
                for _ in range(9):
                    nursery.start_soon(store.get_run, "a")
        assert time.monotonic() - began < 4  # the calls were cancelled before the reads had ended
        proxy.silent = False
        with trio.fail_after(60):
            while True:
                try:
                    assert (await store.get_run("a")).run_id == "a"
                except StoreError:
                    continue
                break


@on_servers
async def test_reading_the_schema_of_a_silent_server_raises_an_error(url: str, hasty: None) -> None:
    async with open_store(url, migrate=True):
        pass
    async with a_proxy(url) as proxy:
        proxy.silent = True
        with trio.fail_after(60), pytest.raises(StoreError):
            await trio.to_thread.run_sync(read_schema, proxy.url)


@on_servers
async def test_a_dead_connection_costs_one_wait(url: str, hasty: None) -> None:
    async with a_proxy(url) as proxy, _opened(proxy) as store:
        await _create(store, "a")
        proxy.forget()
        with trio.fail_after(60):
            await _create(store, "b")
            assert (await store.get_run("b")).run_id == "b"


@on_servers
async def test_a_long_answer_does_not_count_as_silence(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer comes in parts, and takes longer in total than a server may be silent."""
    monkeypatch.setattr(opening, "ANSWER_WITHIN", 1.0)
    async with a_proxy(url) as proxy, _opened(proxy) as store:
        entries = [(seq, os.urandom(100_000)) for seq in range(1, 9)]
        await store.create(_NEW, Commit("a", entries))
        proxy.pause, proxy.part = 0.2, 50_000
        began = time.monotonic()
        assert list((await store.load("a")).entries) == entries
        proxy.pause = 0.0
        assert time.monotonic() - began > 2


@pytest.fixture
def small(url: str) -> Iterator[sa.Engine]:
    with an_engine(url, pool_size=2, max_overflow=0, pool_timeout=0.2) as small:
        yield small


async def test_a_read_from_an_exhausted_pool_raises_an_error(small: sa.Engine) -> None:
    async with open_store(small, migrate=True) as store:
        await _create(store, "a")
        with small.connect():
            with pytest.raises(StoreError, match="pool_size="):
                await store.get_run("a")
            await _create(store, "b")  # the writer has its own connection
        assert (await store.get_run("b")).run_id == "b"


async def test_a_writer_waits_for_an_exhausted_pool(small: sa.Engine) -> None:
    async with open_store(small, migrate=True) as store:
        held = [small.connect(), small.connect()]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_create, store, "a")
            await trio.sleep(0.5)
            for each in held:
                each.close()
        assert (await store.get_run("a")).run_id == "a"


async def test_a_writer_waits_for_an_exhausted_pool_for_a_bounded_time(
    small: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(troubles, "RECONNECT_FOR", 0.5)
    async with open_store(small, migrate=True) as store:
        held = [small.connect(), small.connect()]
        with trio.fail_after(60), pytest.raises(StoreError, match="pool_size="):
            await _create(store, "a")
        for each in held:
            each.close()


@on_servers
async def test_waiting_for_another_process_to_migrate_can_be_cancelled(url: str) -> None:
    with (
        an_engine(url) as engine,
        engine.connect() as connection,
        databases.of(engine).schema_lock(connection),
    ):
        began = time.monotonic()
        with trio.move_on_after(0.5) as scope:
            async with open_store(url, migrate=True):
                raise AssertionError
        assert scope.cancelled_caught
        assert time.monotonic() - began < 5


@on_servers
async def test_a_migration_that_another_process_does_not_end_raises_an_error(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "SCHEMA_LOCK_WAIT", 1)
    with (
        an_engine(url) as engine,
        engine.connect() as connection,
        databases.of(engine).schema_lock(connection),
        pytest.raises(StoreError, match="another process"),
    ):
        async with open_store(url, migrate=True):
            raise AssertionError


@pytest.mark.parametrize("kind", ["mariadb"])
async def test_a_writer_waits_for_a_table_lock_for_a_bounded_time(url: str) -> None:
    async with open_store(url, migrate=True, busy_timeout=0.5) as store:
        await _create(store, "a")
        with an_engine(url) as engine, engine.connect() as connection:
            connection.exec_driver_sql("LOCK TABLES blazen_run WRITE")
            with trio.fail_after(120), pytest.raises(StoreError, match="locked"):
                await _create(store, "b")


@pytest.mark.parametrize("how", ["deleted", "replaced"])
async def test_nothing_is_acknowledged_if_the_file_is_gone(tmp_path: Path, how: str) -> None:
    file = tmp_path / "a.db"
    async with open_store(f"sqlite:///{file}") as store:
        await _create(store, "a")
        aside = file.rename(tmp_path / "aside.db")
        if how == "replaced":
            file.write_bytes(aside.read_bytes())
        for run_id in ("b", "c"):
            with pytest.raises(StoreError, match="deleted or replaced"):
                await _create(store, run_id)
        with pytest.raises(StoreError, match="deleted or replaced"):
            await store.get_run("a")
        aside.rename(file)
        await _create(store, "d")
    assert execute(f"sqlite:///{file}", "SELECT run_id FROM blazen_run ORDER BY 1")[0] == ("a",)


async def test_an_error_in_the_block_is_not_lost_next_to_a_cancellation(tmp_path: Path) -> None:
    error = ValueError("the body's")
    with pytest.raises(ValueError, match="the body's") as raised, trio.CancelScope() as scope:
        async with open_store(f"sqlite:///{tmp_path}/a.db") as store:
            await store.list_runs()
            scope.cancel()
            raise error
    assert raised.value is error
    assert error.__context__ is None
