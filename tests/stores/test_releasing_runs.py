"""A failed release is owed and repeated. The driver of a lost run is notified immediately."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
import trio

from blazen_trio import MemoryStore
from blazen_trio._state.status import RunStatus
from blazen_trio._stores.driver import Driver
from blazen_trio._stores.open_store import open_store
from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio.errors import RunLockedError, StaleRunError, StoreError
from blazen_trio.testing.promises import Heard
from tests.databases import execute, mark_holders_dead

if TYPE_CHECKING:
    from pathlib import Path

    from blazen_trio._stores.protocol import CheckpointStore, StoredRun

_NEW = NewRun("w", "1", 1.0)


async def _create(store: CheckpointStore, run_id: str = "a") -> Driver:
    driver = await store.create(_NEW, Commit(run_id, [(1, b"1")], status=RunStatus.RUNNING))
    assert driver is not None
    return driver


async def _taken(store: CheckpointStore) -> StoredRun:
    with trio.fail_after(120):
        # The store does not notify us.
        while not (taken := await store.take(["w"], 1)):  # noqa: ASYNC110
            await trio.sleep(0.05)
    return taken[0]


@pytest.mark.parametrize("how", ["release", "crash", "set aside", "after a commit"])
async def test_a_failed_release_is_owed(tmp_path: Path, how: str) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    async with open_store(url, busy_timeout=0.01) as store, open_store(url) as other:
        driver = await _create(store)
        with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as theirs:
            theirs.execute("BEGIN IMMEDIATE")
            if how == "after a commit":
                with pytest.raises(StoreError, match="locked"):
                    end = Commit("a", [(2, b"2")], release=True)
                    await store.commit(driver, end)
            with pytest.raises(StoreError, match="locked"):
                if how == "set aside":
                    await store.set_aside(driver, "unreadable")
                else:
                    await store.release(driver, crash="broke" if how == "crash" else None)
            assert store.statistics().driven == 0
            theirs.execute("ROLLBACK")
        # The store keeps trying by itself.
        if how == "set aside":
            with trio.fail_after(120):
                while (await other.get_run("a")).error != "unreadable":  # noqa: ASYNC110
                    await trio.sleep(0.05)
            assert (await other.claim("a")).info.status is RunStatus.FAILED
        else:
            taken = await _taken(other)
            crashed = how == "crash"
            assert (taken.crashes, taken.info.error) == (int(crashed), "broke" if crashed else None)
            assert [seq for seq, _ in taken.entries] == [1]


async def test_a_run_whose_release_is_owed_can_be_claimed_by_the_same_store(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    async with open_store(url, busy_timeout=0.01) as store, open_store(url) as other:
        driver = await _create(store)
        with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as theirs:
            theirs.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="locked"):
                await store.release(driver)
            theirs.execute("ROLLBACK")
        claimed = await store.claim("a")
        assert claimed.driver is not None
        # The owed release does not affect the claimed run.
        await store.post("a", "event", b"")
        with pytest.raises(RunLockedError):
            await other.claim("a")
        await store.commit(claimed.driver, Commit("a", [(2, b"2")]))
        await store.release(driver)
        await store.commit(claimed.driver, Commit("a", [(3, b"3")]))


async def test_owed_releases_are_written_by_the_next_batch_or_on_closing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    async with open_store(url) as other:
        async with open_store(url, busy_timeout=0.01) as store:
            drivers = [await _create(store, run_id) for run_id in ("a", "b")]
            later = time.time() + 3600
            with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as theirs:
                theirs.execute("BEGIN IMMEDIATE")
                for driver in drivers:
                    with pytest.raises(StoreError, match="locked"):
                        await store.release(driver, hold=later, crash="broke")
                theirs.execute("ROLLBACK")
        # Giving back the whole lease would not record the crashes.
        rows = execute(url, "SELECT error, crashes, hold > 0 FROM blazen_run WHERE owner IS NULL")
        assert rows == [("broke", 1, 1)] * 2
        assert await other.take(["w"], 5) == []


async def test_a_failed_commit_notifies_its_driver(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    async with open_store(url, busy_timeout=0.01) as store:
        driver = await _create(store)
        heard = Heard(driver)
        reported: list[Any] = []
        with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as theirs:
            theirs.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="locked") as raised:
                await store.commit(driver, Commit("a", [(2, b"2")]))
            reported += heard.lost
            assert reported == [raised.value]
            theirs.execute("ROLLBACK")
        assert driver.lost is reported[0]


async def test_drivers_are_notified_of_a_lost_lease_although_no_call_waits(url: str) -> None:
    async with open_store(url, lease_ttl=0.6, migrate=True) as loser, open_store(url) as winner:
        drivers = {run_id: await _create(loser, run_id) for run_id in ("a", "b")}
        heard = {run_id: Heard(driver) for run_id, driver in drivers.items()}
        with trio.fail_after(120):
            while True:
                mark_holders_dead(url)
                with suppress(RunLockedError):  # renewed in between
                    await winner.claim("a")
                    break
            # A listener can't wake this task.
            while not all(each.lost for each in heard.values()):  # noqa: ASYNC110
                await trio.sleep(0.01)
        for run_id, each in heard.items():
            assert [type(error) for error in each.lost] == [StaleRunError]
            assert run_id in str(each.lost[0])
            with pytest.raises(StaleRunError):
                await loser.commit(drivers[run_id], Commit(run_id, [(2, b"late")]))
            assert len(each.lost) == 1
        # The store takes a new lease when it needs one, and a late listener is notified, too.
        claimed = await loser.claim("b")
        await loser.release(drivers["b"])
        assert claimed.driver is not None
        await loser.commit(claimed.driver, Commit("b", [(2, b"again")]))
        late = Heard(drivers["a"])
        assert late.lost == heard["a"].lost


async def test_the_driver_of_a_lost_run_in_memory_is_notified_immediately() -> None:
    store = MemoryStore()
    other = store.beside()
    driver = await _create(store)
    heard = Heard(driver)
    store.expire()
    await other.take(["another"], 1)
    assert [type(error) for error in heard.lost] == [StaleRunError]
    await store.release(driver)
    claimed = await store.claim("a")
    assert claimed.driver is not None
    with pytest.raises(StaleRunError):
        await store.commit(driver, Commit("a", [(2, b"late")]))
    await store.commit(claimed.driver, Commit("a", [(2, b"2")]))


async def test_a_closing_store_notifies_its_drivers(url: str) -> None:
    async with open_store(url, migrate=True) as store:
        heard = Heard(await _create(store))
    assert [type(error) for error in heard.lost] == [StoreError]


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_an_error_that_the_database_can_not_encode_is_stored_in_ascii(url: str) -> None:
    name = sa.make_url(url).database
    server = sa.make_url(url).set(database="postgres").render_as_string(hide_password=False)
    execute(server, f"DROP DATABASE {name}")
    options = "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    execute(server, f"CREATE DATABASE {name} {options}")
    async with open_store(url, migrate=True) as store:
        drivers = [await _create(store, run_id) for run_id in ("a", "b", "c", "d")]
        async with trio.open_nursery() as nursery:
            end = Commit("a", [(2, b"2")], status=RunStatus.FAILED, error="na\u00efve \u2603")
            nursery.start_soon(store.commit, drivers[0], end)
            nursery.start_soon(store.commit, drivers[1], Commit("b", [(2, b"2")]))
            nursery.start_soon(lambda: store.release(drivers[2], crash="\u2603"))
            nursery.start_soon(store.set_aside, drivers[3], "\u2603")
        found = {run.run_id: run.error for run in await store.list_runs()}
    assert found == {"a": "na\\xefve \\u2603", "b": None, "c": "\\u2603", "d": "\\u2603"}
