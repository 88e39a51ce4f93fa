"""Rows of an SQLite file, whose columns hold whatever somebody put into them: each gives a typed
error or a right result, and takes down nobody else.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
import trio

from blazen_trio import StartEvent, StopEvent, Workflow, open_runtime, step
from blazen_trio._state.status import RunStatus
from blazen_trio._stores.open_store import open_store
from blazen_trio._stores.protocol import Commit, NewRun, SnapshotRow
from blazen_trio._stores.sql.schema import metadata
from blazen_trio.errors import WorkflowError
from tests.thorough import try_many

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from blazen_trio._stores.sql.store import SqlStore

_VALUES = ["x", b"\x00\xff", -1, 77, 2**62, 1.5, float("inf")]
_OURS = [(table.name, column.name) for table in metadata.sorted_tables for column in table.columns]


async def _fill(url: str) -> None:
    """Store two runs, with rows in each table."""
    async with open_store(url) as store:
        for run_id in ("bad", "good"):
            status = RunStatus.QUEUED
            first = Commit(
                run_id, [(1, b"1")], status=status, history=(1, b"[]"), blobs={"d": b"b"}
            )
            driver = await store.create(NewRun("w", "1", 1.0), first)
            assert driver is not None
            snapshot = SnapshotRow(1, b"s", frozenset({"d"}))
            await store.commit(driver, Commit(run_id, [(2, b"2")], snapshot=snapshot))
            await store.commit(driver, Commit(run_id, [(3, b"3")]))
            await store.release(driver)
            await store.post(run_id, "event", b"m", key="k")


def _tamper(path: Path, table: str, column: str, value: Any) -> bool:
    """Put a value into a column of the first row. Return whether SQLite accepted it."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        if table == "blazen_lease":
            connection.execute(
                "INSERT INTO blazen_lease (lease_id, state, expires, batch, host, boot,"
                " pid_namespace, pid, started) VALUES (9, 1, 1, 1, 'h', 'b', 'n', 1, 1)"
            )
            connection.execute("UPDATE blazen_run SET owner = 9, wake = NULL WHERE run_id = 'bad'")
        first = f"rowid = (SELECT min(rowid) FROM {table})"
        try:
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE {first}", (value,))
        except sqlite3.Error:  # a constraint, or what no SQLite takes there
            return False
    return True


async def _attempt(make: Callable[[], Awaitable[Any]]) -> None:
    with contextlib.suppress(WorkflowError):
        await make()


async def _take_up_all(store: SqlStore) -> set[str]:
    """Poll and take runs, as a worker does."""
    found = set()
    for _ in range(3):
        await store.poll(["w"], ["bad", "good"])
        for stored in await store.take(["w"], 5, suspects=1):
            found.add(stored.info.run_id)
            assert stored.driver is not None
            await store.release(stored.driver, wake=float("inf"), crash="why")
    return found


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with two runs, to be copied."""
    file = tmp_path_factory.mktemp("rows") / "runs.db"
    trio.run(_fill, f"sqlite:///{file}")
    return file


@pytest.mark.parametrize(("table", "column"), _OURS)
async def test_any_value_in_a_row_gives_a_typed_error_or_a_result(
    table: str, column: str, filled: Path, tmp_path: Path
) -> None:
    # The values at once: each has a file of its own, and most of the time is spent waiting. Which
    # ones are tried by default differs by column, and not from run to run.
    sample = random.Random(f"{table}.{column}").sample(_VALUES, try_many(2, len(_VALUES)))
    async with trio.open_nursery() as nursery:
        for number, value in enumerate(sample):
            path = tmp_path / f"{number}.db"
            shutil.copy(filled, path)
            if _tamper(path, table, column, value):
                nursery.start_soon(_do_all, f"sqlite:///{path}", value)


async def _do_all(url: str, value: Any) -> None:
    with trio.fail_after(300):
        async with open_store(url, lease_ttl=0.2) as store:
            assert "good" in await _take_up_all(store), value
            for run_id in ("bad", "good"):
                await _attempt(lambda: store.get_run(run_id))  # noqa: B023
                await _attempt(lambda: store.load(run_id))  # noqa: B023
                await _attempt(lambda: store.post(run_id, "event", b"x", key="n"))  # noqa: B023
                await _attempt(lambda: store.claim(run_id))  # noqa: B023
                await _attempt(lambda: store.delete_run(run_id))  # noqa: B023
            await _attempt(lambda: store.list_runs())


@step
async def _only(ev: StartEvent) -> StopEvent:
    return StopEvent(ev.data)


@pytest.mark.parametrize(
    "change",
    [
        "blazen_journal SET data = 'a text'",
        "blazen_journal SET data = 77",
        "blazen_journal SET data = x'00'",
        "blazen_journal SET seq = 'first'",
        "blazen_run SET crashes = 'many'",
        "blazen_run SET created = -1.5, updated = x'00', error = x'ff'",
        "blazen_inbox SET data = 'no event'",
        "blazen_inbox SET data = 77, key = x'00'",
    ],
)
async def test_a_worker_ends_or_sets_aside_a_run_with_any_value_in_its_row(
    change: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    flow = Workflow("flow", [_only])
    async with open_store(url) as store, open_runtime(store) as runtime:
        for run_id in ("bad", "good"):  # in the order in which they are listed
            await runtime.submit("flow", run_id, run_id=run_id)
            await store.post(run_id, "event", b"{}")
    bad = "(SELECT run_no FROM blazen_run WHERE run_id = 'bad')"
    with contextlib.closing(sqlite3.connect(tmp_path / "runs.db")) as connection, connection:
        connection.execute(f"UPDATE {change} WHERE run_no = {bad}")
    async with (
        open_store(url) as store,
        open_runtime(store, [flow], poll_interval=0.02, max_crashes=2) as runtime,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(runtime.serve)
        with trio.fail_after(120):
            assert await runtime.result("good") == "good"
            # As a line among others: whoever asks for a damaged row by its id is told of that.
            while not (info := (await store.list_runs())[0]).status.ended:  # noqa: ASYNC110
                await trio.sleep(0.05)
        assert (info.status is RunStatus.COMPLETED) or info.error
        nursery.cancel_scope.cancel()
