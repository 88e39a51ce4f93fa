"""Worker processes serve, drain, share the work, and are killed."""

from __future__ import annotations

import contextlib
import signal
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from blazen_trio import RunCrashedError, RunStatus, open_runtime, open_store
from tests.cli.conftest import SCRIPT, until
from tests.cli.flows import gated, noted
from tests.databases import _DROP, _URLS, SERVERS, execute, fresh_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

FLOWS = "tests.cli.flows:ALL"


@asynccontextmanager
async def front_end(url: str) -> AsyncIterator[tuple[Any, Any]]:
    """A runtime without workflows, as another process may have."""
    async with (
        open_store(url, migrate=True) as store,
        open_runtime(store, poll_interval=0.05) as runtime,
    ):
        yield store, runtime


async def begun(folder: Path, what: str, times: int = 1) -> str:
    """Wait until the log has this many lines of a kind. Return the process of the last one."""
    lines = await until(
        lambda: [pid for name, pid in noted(folder) if name == what][times - 1 : times]
    )
    return lines[0]


async def test_the_first_signal_drains_a_worker(
    tmp_path: Path, sqlite_url: str, start_worker: Any
) -> None:
    async with front_end(sqlite_url) as (store, front):
        worker = start_worker(sqlite_url, FLOWS)
        started = await worker.tells("started")
        assert (started["pid"], started["workflows"]) == (worker.pid, ["gated", "poison", "short"])
        assert await front.result(await front.submit("short")) == worker.pid

        run_id = await front.submit("gated", str(tmp_path))
        await begun(tmp_path, "gate")
        worker.signal(signal.SIGTERM)
        draining = await worker.tells("draining")
        assert (draining["signal"], draining["driving"], draining["grace"]) == ("SIGTERM", 1, 30.0)
        late = await front.submit("short")
        (tmp_path / "open").touch()
        assert await worker.ends() == 0

        ended = worker.told("ended")
        assert (ended["taken"], ended["ended"], ended["left"], ended["exit_code"]) == (2, 1, 1, 0)
        # The step in flight has committed. The next one and the late run are left to others.
        assert [name for name, _ in noted(tmp_path)] == ["gate"]
        assert (await store.get_run(late)).status is RunStatus.QUEUED
        assert await gated.resume_from(run_id, store=store) == 1
        assert [name for name, _ in noted(tmp_path)] == ["gate", "passed"]


async def test_steps_longer_than_the_grace_are_cancelled(
    tmp_path: Path, sqlite_url: str, start_worker: Any
) -> None:
    async with front_end(sqlite_url) as (_, front):
        run_id = await front.submit("gated", str(tmp_path))
        worker = start_worker(sqlite_url, "tests.cli.flows:gated", "--grace", "0.1")
        await begun(tmp_path, "gate")
        worker.signal(signal.SIGINT)
        assert await worker.ends() == 0
        assert worker.told("draining")["signal"] == "SIGINT"
        assert worker.told("ended")["left"] == 1

        (tmp_path / "open").touch()
        start_worker(sqlite_url, "tests.cli.flows:Shop.gated")
        assert await front.result(run_id) == 1
        assert [name for name, _ in noted(tmp_path)] == ["gate", "gate", "passed"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_second_signal_ends_a_worker_immediately(
    number: int, tmp_path: Path, sqlite_url: str, start_worker: Any
) -> None:
    async with front_end(sqlite_url) as (store, front):
        run_id = await front.submit("gated", str(tmp_path))
        worker = start_worker(sqlite_url, FLOWS, "--grace", "600")
        await begun(tmp_path, "gate")
        worker.signal(signal.SIGTERM)
        await worker.tells("draining")
        worker.signal(number)
        assert await worker.ends() == 128 + number
        assert worker.told("ended")["exit_code"] == 128 + number
        assert "Traceback" not in worker.output, worker.output

        (tmp_path / "open").touch()
        assert await gated.resume_from(run_id, store=store) == 1


async def test_a_signal_during_the_import_of_a_module_ends_the_worker(
    tmp_path: Path, sqlite_url: str, start_worker: Any
) -> None:
    program = "import pathlib, time\npathlib.Path('importing').touch()\ntime.sleep(600)\n"
    (tmp_path / "sluggish.py").write_text(program)
    worker = start_worker(sqlite_url, "sluggish:flow", folder=tmp_path)
    await until((tmp_path / "importing").exists)
    worker.signal(signal.SIGTERM)
    assert await worker.ends() == 0
    assert worker.told("ended")
    assert len(worker.output.splitlines()) == 1


async def test_a_signal_while_the_database_is_opened_ends_the_worker(start_worker: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://ann:sesame@127.0.0.1:{silent.getsockname()[1]}/x?connect_timeout=2"
        worker = start_worker(url, FLOWS)
        with trio.fail_after(120):
            connection, _ = await trio.to_thread.run_sync(silent.accept)
        worker.signal(signal.SIGINT)
        assert await worker.ends() == 0
        connection.close()
        assert worker.told("ended")
        assert len(worker.output.splitlines()) == 1


@pytest.fixture(params=SERVERS)
def server_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with fresh_database(request.param, tmp_path) as url:
        yield url


async def test_workers_share_the_work(server_url: str, start_worker: Any) -> None:
    async with front_end(server_url) as (store, front):
        workers = [start_worker(server_url, FLOWS, "--max-concurrent-runs", "3") for _ in range(3)]
        for worker in workers:
            await worker.tells("started")
        ids = [await front.submit("short") for _ in range(45)]
        by = []
        with trio.fail_after(120):
            for run_id in ids:
                by.append(await front.result(run_id))
        assert set(by) == {worker.pid for worker in workers}
        for worker in workers:
            worker.signal(signal.SIGTERM)
        assert [await worker.ends() for worker in workers] == [0, 0, 0]
        taken = {worker.pid: worker.told("ended")["taken"] for worker in workers}
        # Each run was taken once and completed by who took it.
        assert taken == {pid: by.count(pid) for pid in taken}
        assert {info.status for info in await store.list_runs()} == {RunStatus.COMPLETED}


async def test_the_runs_of_a_killed_worker_resume_in_another(
    tmp_path: Path, postgresql_url: str, start_worker: Any
) -> None:
    async with front_end(postgresql_url) as (_, front):
        run_id = await front.submit("gated", str(tmp_path))
        workers = {}
        for _ in range(2):
            worker = start_worker(postgresql_url, FLOWS, "--lease-ttl", "600")
            workers[str(worker.pid)] = worker
        for worker in workers.values():
            await worker.tells("started")
        first = await begun(tmp_path, "gate")
        workers[first].kill()
        with trio.fail_after(120):  # and not after the lease's 600 s
            second = await begun(tmp_path, "gate", times=2)
        assert {first, second} == set(workers)
        (tmp_path / "open").touch()
        assert await front.result(run_id) == 1


async def test_a_run_that_kills_its_workers_is_set_aside(
    tmp_path: Path, postgresql_url: str, start_worker: Any
) -> None:
    async def supervise(nursery: Any) -> None:
        while True:
            worker = start_worker(postgresql_url, FLOWS, "--max-crashes", "3")
            with contextlib.suppress(trio.TooSlowError):
                codes.append(await worker.ends(600))

    codes: list[int] = []
    async with front_end(postgresql_url) as (store, front), trio.open_nursery() as nursery:
        poison = await front.submit("poison", str(tmp_path))
        others = [await front.submit("short") for _ in range(5)]
        nursery.start_soon(supervise, nursery)
        with trio.fail_after(120):
            with pytest.raises(RunCrashedError, match="died or failed 3 times") as told:
                await front.result(poison)
            for run_id in others:
                await front.result(run_id)
        nursery.cancel_scope.cancel()
        assert told.value.crashes == 3
        assert (await store.get_run(poison)).status is RunStatus.FAILED
        assert codes == [-signal.SIGKILL] * 3
        assert [name for name, _ in noted(tmp_path)] == ["die"] * 3


@pytest.fixture
def doomed_url(tmp_path: Path) -> Iterator[str]:
    """Yield the URL of a database that the test may drop."""
    with fresh_database("postgresql", tmp_path) as url:
        yield url
        execute(_URLS["postgresql"], f"CREATE DATABASE {database_of(url)}")  # to be dropped here


def database_of(url: str) -> str:
    return url.rpartition("/")[2]


async def test_a_worker_whose_database_is_gone_exits_to_be_restarted(
    doomed_url: str, start_worker: Any
) -> None:
    impatient = (
        "from blazen_trio._runtime import poller; poller._PATIENCE = 0.3;"
        f"from blazen_trio._stores.sql import troubles; troubles.RECONNECT_FOR = 0.2; {SCRIPT}"
    )
    worker = start_worker(doomed_url, FLOWS, "--migrate", script=impatient)
    await worker.tells("started")
    drop = _DROP["postgresql"].format(database_of(doomed_url))
    await trio.to_thread.run_sync(execute, _URLS["postgresql"], drop)
    assert await worker.ends() == 75, worker.output
    error = worker.told("error")
    assert error["exit_code"] == 75
    # The error depends on the moment of the poll. While the server drops the database, which takes
    # a checkpoint, it accepts no connections; on a busy disk, that outlasts their timeout.
    told = ("no such database", "the connection was lost", "no server answers")
    assert any(text in error["message"] for text in told), worker.output
    assert "Traceback" not in worker.output, worker.output
