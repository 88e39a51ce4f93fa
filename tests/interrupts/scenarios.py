"""The programs to interrupt, by name."""

from __future__ import annotations

import importlib
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import attrs
import sqlalchemy as sa
import trio

from blazen_trio import Context, Event, StartEvent, StopEvent, Workflow, open_runtime, step
from blazen_trio._stores.open_store import open_store
from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio._stores.sql.schema import STATUS_OF_CODE
from tests.interrupts.harness import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_NEW = NewRun("w", "1", 1.0)


@attrs.frozen
class Page(Event):
    """A page of the run."""

    number: int


@attrs.frozen
class Approved(Event):
    """An event that a run waits for."""


@step
async def split(_event: StartEvent) -> list[Page]:
    """Make a fan-out."""
    return [Page(number) for number in range(3)]


@step
async def read(event: Page, context: Context) -> Approved | None:
    """Write a cell; the last page approves them all."""
    context.set(f"page {event.number}", event.number)
    return Approved() if event.number == 2 else None


@step
async def finish(_event: Approved) -> StopEvent:
    """End the run."""
    return StopEvent("done")


@step
async def wait(_event: StartEvent) -> None:
    """Leave the run waiting."""


_pages = Workflow("pages", [split, read, finish])
_waits = Workflow("waits", [wait, finish], external=[Approved])


def _load() -> None:
    """Import the modules that the store imports late, so that their lines are not counted."""
    for name in (
        "alembic.operations",
        "blazen_trio._stores.sql.opening",
        "blazen_trio._stores.sql.idempotent_ops",
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


async def _run(folder: Path, acknowledge: Callable[[str], None]) -> None:
    async with open_store(f"sqlite:///{folder}/runs.db") as store:
        await _pages.run(store=store, run_id="run")
        acknowledge("completed run")


async def _entered(folder: Path, acknowledge: Callable[[str], None]) -> None:
    async with open_store(f"sqlite:///{folder}/runs.db") as store:
        async with _waits.run(store=store, run_id="run") as run:
            await run.pause()
            await run.snapshot()
            await run.unpause()
            await run.send(Approved(), key="approved")
            acknowledge("key approved")
            await run.result()
            acknowledge("completed run")
        async with _waits.run(store=store, run_id="left") as run:
            acknowledge("run left")
            await run.pause()
        async with _waits.resume_from("left", store=store) as run:
            run.cancel()
        acknowledge("cancelled left")


async def _served(folder: Path, acknowledge: Callable[[str], None]) -> None:
    async with (
        open_store(f"sqlite:///{folder}/runs.db") as store,
        open_runtime(store, [_pages, _waits], poll_interval=0.02) as runtime,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(runtime.serve)
        run_id = await runtime.submit(_pages)
        acknowledge(f"run {run_id}")
        await runtime.result(run_id)
        acknowledge(f"completed {run_id}")
        run = await runtime.start(_waits, run_id="waits")
        acknowledge("run waits")
        await runtime.send("waits", Approved(), key="approved")
        acknowledge("key approved")
        await run.result()
        acknowledge("completed waits")
        nursery.cancel_scope.cancel()


def _check(folder: Path, acknowledged: list[str]) -> None:
    if not acknowledged:
        return
    with closing(sqlite3.connect(folder / "runs.db")) as database:
        rows = database.execute("SELECT run_id, status FROM blazen_run")
        runs = [(name, STATUS_OF_CODE[status].value) for name, status in rows]
        there = {f"run {name}" for name, _ in runs} | {f"{status} {name}" for name, status in runs}
        entries = database.execute("SELECT seq FROM blazen_journal")
        there |= {f"entry {seq}" for (seq,) in entries}
        keys = database.execute("SELECT key FROM blazen_inbox_key")
        there |= {f"key {key}" for (key,) in keys}
    lost = set(acknowledged) - there
    assert not lost, f"acknowledged, and not on disk: {lost}"


SCENARIOS = {
    "store": Scenario(_store, _check, _load),
    "tasks": Scenario(_tasks, _check, _load, grouped=True),
    "run": Scenario(_run, _check, _load),
    "entered": Scenario(_entered, _check, _load),
    "served": Scenario(_served, _check, _load, grouped=True),
    "own-rows": Scenario(_own_rows, _check, _load),
}
