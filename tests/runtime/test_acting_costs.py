"""The cost of acting on an undriven run does not depend on the size of the run.

The tests count statements, rows and bytes, and measure no time. They compare a run of a few steps
with one of 2,000 steps and 1 MB of state.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import psycopg
import pymysql.cursors
import pytest

from blazen_trio import (
    Context,
    Event,
    InputRequestEvent,
    InputRequiredError,
    InputResponseError,
    InputResponseEvent,
    MemoryStore,
    RunStatus,
    Runtime,
    StartEvent,
    StopEvent,
    Workflow,
    open_runtime,
    open_store,
    step,
)
from tests.databases import KINDS, WRITER_ARGUMENTS, an_engine, fresh_database, trace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from blazen_trio.stores import StoredRun

KEYS = 1000
VALUE = "x" * 1000


@pytest.fixture(autouse=True)
def still(mock_clock: Any) -> None:
    """Stop Trio's clock, so that nothing happens because time passes."""


@attrs.frozen
class Tick(Event):
    n: int


@step
async def begin(ev: StartEvent, ctx: Context) -> Tick:
    steps, keys = ev.data
    for key in range(keys):
        ctx.set(f"key {key}", VALUE)
    return Tick(steps)


@step
async def tick(ev: Tick) -> Tick | InputRequestEvent:
    return Tick(ev.n - 1) if ev.n else InputRequestEvent("sure?", request_id="q")


@step
async def answered(ev: InputResponseEvent) -> StopEvent:
    return StopEvent(ev.response)


FLOW = Workflow("flow", [begin, tick, answered], timeout=None, history=True)

ACTS: dict[str, Callable[[Runtime, str], Awaitable[Any]]] = {
    "answer": lambda runtime, run_id: runtime.respond(run_id, InputResponseEvent("q", "yes")),
    "value": lambda runtime, run_id: runtime.respond(run_id, "yes"),
    "cancel": lambda runtime, run_id: runtime.cancel(run_id, "why not"),
    "pause": lambda runtime, run_id: runtime.pause(run_id),
}
READ: Counter[str] = Counter()
"""The number of rows that the cursors of this test returned, and of bytes in them."""


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes | memoryview) else 8


def _is_time(row: Any) -> bool:
    """Return whether this row is a reading of the database's clock, which is due now and then."""
    return len(row) == 1 and isinstance(row[0], int) and row[0] > 10**15


class Counting:
    """A cursor of any driver that counts what it returns."""

    def fetchone(self) -> Any:
        row = super().fetchone()  # type: ignore[misc]
        self.count([] if row is None else [row])
        return row

    def fetchmany(self, *args: Any, **options: Any) -> Any:
        return self.count(super().fetchmany(*args, **options))  # type: ignore[misc]

    def fetchall(self) -> Any:
        return self.count(super().fetchall())  # type: ignore[misc]

    def count(self, rows: Any) -> Any:
        found = [row for row in rows if not _is_time(row)]
        READ["rows"] += len(found)
        READ["bytes"] += sum(_size(value) for row in found for value in row)
        return rows


class SqliteCursor(Counting, sqlite3.Cursor): ...


class SqliteConnection(sqlite3.Connection):
    def cursor(self, factory: Any = SqliteCursor) -> Any:
        return super().cursor(factory)


class PsycopgCursor(Counting, psycopg.Cursor[Any]): ...


class PymysqlCursor(Counting, pymysql.cursors.Cursor): ...


COUNTING: dict[str, dict[str, Any]] = {
    "sqlite": {"factory": SqliteConnection},
    "postgresql": {"cursor_factory": PsycopgCursor},
    "mariadb": {"cursorclass": PymysqlCursor},
}


@asynccontextmanager
async def counted(kind: str, folder: Path) -> AsyncIterator[tuple[Any, Callable[..., list[str]]]]:
    """Open a store whose statements are traced and whose rows are counted."""
    given = {**WRITER_ARGUMENTS[kind].get("connect_args", {}), **COUNTING[kind]}
    with (
        fresh_database(kind, folder) as url,
        an_engine(url, connect_args=given) as engine,
        trace(engine, folder) as traced,
    ):
        async with open_store(engine, migrate=True) as store:
            yield store, traced


async def wait_for_an_answer(store: Any, run_id: str, steps: int, keys: int) -> None:
    with pytest.raises(InputRequiredError):
        await FLOW.run([steps, keys], store=store, run_id=run_id, durability="async")


async def make_runs(store: Any, act: str) -> None:
    for run_id, steps, keys in (("first", 1, 1), ("small", 10, 1), ("large", 2000, KEYS)):
        await wait_for_an_answer(store, run_id, steps, keys)
    async with open_runtime(store) as runtime:
        await ACTS[act](runtime, "first")  # opens the connections, takes the lease


def reads_payloads(statement: str) -> bool:
    """Return whether a statement reads data from the tables that grow with a run."""
    tables = "journal|snapshot|blob|history"
    return bool(re.search(rf"SELECT.*\bdata\b.*FROM blazen_({tables})\b", statement, re.DOTALL))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("act", ["answer", "value", "cancel"])
async def test_acting_on_a_large_run_costs_as_much_as_on_a_small_one(
    kind: str, act: str, tmp_path: Path
) -> None:
    async with counted(kind, tmp_path) as (store, traced):
        await make_runs(store, act)
        costs = []
        async with open_runtime(store) as runtime:
            for run_id in ("small", "large"):
                traced()
                READ.clear()
                await ACTS[act](runtime, run_id)
                read = dict(READ)
                statements = [one for one in traced() if "blazen_" in one or one[:6] != "SELECT"]
                assert not any(reads_payloads(statement) for statement in statements)
                costs.append((read, Counter(each.split()[0] for each in statements)))
        assert costs[0] == costs[1]
        assert 0 < costs[0][0]["bytes"] < 2000
        assert sum(costs[0][1].values()) < 40
        async with open_runtime(store, [FLOW]) as runtime:
            run = await runtime.resume_from("large")
            if act == "cancel":
                await run.respond("yes")
            assert await run.result() == "yes"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_pause_reads_only_the_snapshot_that_it_returns(kind: str, tmp_path: Path) -> None:
    async with counted(kind, tmp_path) as (store, traced):
        await make_runs(store, "pause")
        more = []
        async with open_runtime(store) as runtime:
            for run_id in ("small", "large"):
                traced()
                READ.clear()
                snapshot = await runtime.pause(run_id)
                paused, statements = READ["bytes"], traced("blazen_lease")
                assert snapshot.status is RunStatus.PAUSED
                assert not any(map(reads_payloads, statements)), "in the writer's transaction"
                READ.clear()
                await store.load_snapshot(run_id)
                more.append(paused - READ["bytes"])
        assert more[0] == more[1] < 2000


class NeverWhole(MemoryStore):
    """A store that fails if a run is loaded as a whole."""

    async def load(self, run_id: str, *, connection: Any = None) -> StoredRun:
        raise AssertionError(run_id, connection)

    async def claim(self, run_id: str) -> StoredRun:
        raise AssertionError(run_id)


@pytest.mark.parametrize("act", ["answer", "value", "cancel"])
async def test_acting_on_a_run_in_memory_does_not_load_all_of_it(act: str) -> None:
    store = NeverWhole()
    await wait_for_an_answer(store, "run", 10, 1)
    async with open_runtime(store) as runtime:
        await ACTS[act](runtime, "run")
        for refused in (InputResponseEvent("q", "again"), InputResponseEvent("p", 1), "again"):
            if act != "cancel":
                with pytest.raises(InputResponseError):
                    await runtime.respond("run", refused)


@pytest.mark.parametrize("durability", ["sync", "exit"])
async def test_a_run_that_was_changed_without_loading_it_resumes_normally(durability: Any) -> None:
    store = MemoryStore()
    with pytest.raises(InputRequiredError):
        await FLOW.run([3, 1], store=store, run_id="run", durability=durability)
    async with open_runtime(store) as front:
        before = await store.load_snapshot("run")
        paused = await front.pause("run")
        assert (paused.elapsed, paused.seq) == (before.elapsed, before.seq + 1)
        assert await front.pause("run") == paused
        await front.cancel("run", "enough")
        await front.cancel("run", "again")
        after = await store.load_snapshot("run")
        assert (after.elapsed, after.seq) == (before.elapsed, before.seq + 2)
        assert after.input_requests == before.input_requests
    async with FLOW.resume_from("run", store=store, durability=durability) as run:
        await run.respond("yes")
        assert await run.result() == "yes"
    records = await store.history("run")
    assert [record.sequence for record in records] == list(range(1, len(records) + 1))
    changes = [(one.kind, one.error) for one in records if one.error is not None]
    assert changes == [
        ("workflow_paused", "input"),
        ("workflow_paused", "manual"),
        ("workflow_cancelled", "enough"),
    ]
