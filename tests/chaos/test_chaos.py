"""Workers and their database are killed and frozen: every run ends, and has each effect once."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from blazen_trio import RunExistsError, StoreError, open_runtime, open_store
from tests.chaos.flow import EXPECTED, LEASE_TTL, Go
from tests.chaos.servers import own_server
from tests.databases import KINDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

RUNS = int(os.environ.get("BLAZEN_TRIO_CHAOS_RUNS", "60"))
SECONDS = float(os.environ.get("BLAZEN_TRIO_CHAOS_SECONDS", "6"))
WORKERS = 3
PATIENCE = 300.0  # seconds for the runs to come to their ends when all is quiet again


class Workers:
    """Worker processes. One that has ended is replaced."""

    def __init__(self, url: str, log: Path) -> None:
        self._url = url
        self._log = log
        self._processes: list[subprocess.Popen[bytes]] = []
        self.deaths = self.freezes = 0
        self.frozen = False

    def keep_up(self) -> None:
        """Start workers until there are `WORKERS`."""
        self._processes = [process for process in self._processes if process.poll() is None]
        while len(self._processes) < WORKERS:
            with self._log.open("ab") as log:
                command = [sys.executable, "-m", "tests.chaos.flow", self._url]
                root = Path(__file__).parents[2]
                self._processes.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=root))

    def kill_one(self, random: random.Random) -> None:
        random.choice(self._processes).kill()
        self.deaths += 1

    async def freeze_one(self, random: random.Random) -> None:
        """Stop a worker for longer than its lease. On SQLite, it may lock the file meanwhile."""
        process = random.choice(self._processes)
        process.send_signal(signal.SIGSTOP)
        self.freezes += 1
        self.frozen = True
        try:
            await trio.sleep(LEASE_TTL * 1.5)
        finally:
            process.send_signal(signal.SIGCONT)
            self.frozen = False

    def stop(self) -> None:
        """Drain and end all workers."""
        for process in self._processes:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self._processes:
            process.wait(PATIENCE)


def hold_sqlite(file: str) -> None:
    """Lock the whole file for a second, as another program might."""
    connection = sqlite3.connect(file, isolation_level=None, timeout=10)
    connection.execute("BEGIN EXCLUSIVE")
    time.sleep(1)
    connection.execute("ROLLBACK")
    connection.close()


async def rage(workers: Workers, disturb: Callable[[], object], chance: random.Random) -> list[str]:
    """Kill, freeze and disturb until the time is up and a few workers have died; count it all."""
    done: list[str] = []
    end = trio.current_time() + SECONDS
    async with trio.open_nursery() as nursery:
        while trio.current_time() < end or workers.deaths < 3:
            await trio.sleep(chance.uniform(0.2, 1.0))
            workers.keep_up()
            what = chance.choices(["kill", "freeze", "disturb"], [5, 2, 1 if len(done) > 2 else 0])[
                0
            ]
            done.append(what)
            if what == "kill":
                workers.kill_one(chance)
            elif what == "freeze" and not workers.frozen:
                nursery.start_soon(workers.freeze_one, chance)
                await trio.lowlevel.checkpoint()  # it has begun
            elif what == "disturb":
                await trio.to_thread.run_sync(disturb)
        nursery.cancel_scope.cancel()
    workers.keep_up()
    return done


async def surely(act: Callable[[], Awaitable[object]]) -> None:
    """Repeat an idempotent call until the store has answered.

    An earlier attempt may have succeeded if its COMMIT got no answer, and has failed if the server
    was not back in time, as on a busy machine.
    """
    deadline = trio.current_time() + PATIENCE
    while True:
        try:
            await act()
        except StoreError:
            if trio.current_time() > deadline:
                raise
        except RunExistsError:
            return
        else:
            return


async def through_chaos(
    url: str, workers: Workers, disturb: Callable[[], object]
) -> dict[str, Any]:
    """Submit runs, send each its awaited event twice, and return the results of all runs."""
    chance = random.Random()
    results: dict[str, Any] = {}
    async with (
        open_store(url, migrate=True, lease_ttl=LEASE_TTL) as store,
        open_runtime(store, poll_interval=0.2) as front,
    ):
        workers.keep_up()

        async def send(run_id: str) -> None:
            await trio.sleep(chance.uniform(0, SECONDS))
            await surely(partial(front.send, run_id, Go(f"{run_id} once"), key="go"))
            await surely(partial(refused, run_id))

        async def refused(run_id: str) -> None:
            assert not await front.send(run_id, Go(f"{run_id} twice"), key="go")

        async def submit(nursery: trio.Nursery) -> None:
            for number in range(RUNS):
                await surely(partial(front.submit, "chaos", run_id=f"run {number}"))
                nursery.start_soon(send, f"run {number}")
                await trio.sleep(SECONDS / RUNS / 2)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit, nursery)
            await rage(workers, disturb, chance)
        with trio.fail_after(PATIENCE):
            for number in range(RUNS):
                results[f"run {number}"] = await front.result(f"run {number}")
        for info in await store.list_runs(limit=RUNS + 1):
            assert info.status.value == "completed", info
            assert list((await store.load(info.run_id)).inbox) == []
    return results


@pytest.mark.parametrize("kind", KINDS)
def test_every_run_ends_correctly_under_chaos(kind: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        if kind == "sqlite":
            file = str(tmp_path / "runs.db")
            url, disturb = f"sqlite:///{file}", partial(hold_sqlite, file)
        else:
            folder = tmp_path / "server"
            folder.mkdir()
            server = stack.enter_context(own_server(kind, folder))
            url, disturb = server.url, server.restart
        workers = Workers(url, tmp_path / "workers.log")
        try:
            results = trio.run(through_chaos, url, workers, disturb)
        finally:
            workers.stop()
    assert len(results) == RUNS
    for run_id, result in results.items():
        assert result == {**EXPECTED, "by": f"{run_id} once"}, run_id
    assert workers.deaths > 2
