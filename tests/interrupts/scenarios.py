"""The programs that are interrupted, by their names."""

from __future__ import annotations

import importlib
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import sqlalchemy as sa
import trio

from blazen_trio._stores.open import open_store
from blazen_trio._stores.protocol import Commit, NewRun
from tests.interrupts.harness import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_NEW = NewRun("w", "1", 1.0)


def _load() -> None:
    """Load what the store loads late, so that its lines are not counted."""
    for name in (
        "alembic.operations",
        "blazen_trio._stores.sql.opening",
        "blazen_trio._stores.sql.again",
        "sqlalchemy.dialects.sqlite",
    ):
        importlib.import_module(name)


async def _store(folder: Path, acknowledge: Callable[[str], None]) -> None:
    async with open_store(f"sqlite:///{folder}/runs.db") as store:
        driver = await store.create(_NEW, Commit("mine", [(1, b"1")]))
        assert driver is not None
        acknowledge("run mine")
        await store.create(_NEW, Commit("queued", [(1, b"1")], release=True))
        acknowledge("run queued")
        for number in range(2):
            await store.post("mine", "event", b"x", key=f"k{number}")
            acknowledge(f"key k{number}")
        for seq in (2, 3):
            await store.commit(driver, Commit("mine", [(seq, b"x")]))
            acknowledge(f"entry {seq}")
        await store.get_run("mine")
        await store.load("queued")
        await store.list_runs()
        await store.poll(["w"])
        claimed = await store.claim("queued")
        assert claimed.driver is not None
        await store.release(claimed.driver)
        await store.take(["w"], 1)


async def _tasks(folder: Path, acknowledge: Callable[[str], None]) -> None:
    async with open_store(f"sqlite:///{folder}/runs.db") as store:
        await store.create(_NEW, Commit("mine", [(1, b"1")]))
        acknowledge("run mine")

        async def post(name: str) -> None:
            for number in range(2):
                key = f"{name}{number}"
                await store.post("mine", "event", b"x", key=key)
                acknowledge(f"key {key}")

        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(post, name)


async def _own_rows(folder: Path, acknowledge: Callable[[str], None]) -> None:
    url = f"sqlite:///{folder}/runs.db"
    engine = sa.create_engine(url, poolclass=sa.NullPool)  # noqa: ASYNC200  # it connects later
    async with open_store(url) as store:
        with engine.connect() as connection:
            with connection.begin():
                first = Commit("mine", [(1, b"1")], release=True)
                await store.create(_NEW, first, connection=connection)
                await store.post("mine", "event", b"x", key="k", connection=connection)
            acknowledge("run mine")
            acknowledge("key k")


def _check(folder: Path, acknowledged: list[str]) -> None:
    if not acknowledged:
        return
    with closing(sqlite3.connect(folder / "runs.db")) as database:
        there = {f"run {name}" for (name,) in database.execute("SELECT run_id FROM blazen_run")}
        entries = database.execute("SELECT seq FROM blazen_journal")
        there |= {f"entry {seq}" for (seq,) in entries}
        keys = database.execute("SELECT key FROM blazen_inbox_key")
        there |= {f"key {key}" for (key,) in keys}
    lost = set(acknowledged) - there
    assert not lost, f"acknowledged, and not on disk: {lost}"


SCENARIOS = {
    "store": Scenario(_store, _check, _load),
    "tasks": Scenario(_tasks, _check, _load, grouped=True),
    "own-rows": Scenario(_own_rows, _check, _load),
}
