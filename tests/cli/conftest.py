"""Fixtures: worker processes, and commands run in this process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from click.testing import CliRunner, Result

from blazen_trio._cli.app import app
from tests.databases import fresh_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
SCRIPT = "from blazen_trio._cli import main; main()"
PATIENCE = 120.0  # seconds for what has to happen soon

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in a shell's background job. The processes started here would ignore it, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


async def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Poll until a function returns something true, and return it."""
    with trio.fail_after(seconds):
        while not (found := condition()):  # noqa: ASYNC110  # it looks at another process
            await trio.sleep(0.01)
    return found


class Worker:
    """A process of `blazen-trio worker`, which writes JSON lines."""

    def __init__(self, log: Path, arguments: tuple[str, ...], script: str, folder: Path) -> None:
        self._log = log
        command = [
            sys.executable,
            "-W",
            "error",
            "-c",
            script,
            "worker",
            "--json",
            "--poll-interval",
            "0.05",
            *arguments,
        ]
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=stderr, cwd=folder
            )
        self.pid = self._process.pid

    @property
    def output(self) -> str:
        return self._log.read_text()

    def told(self, event: str) -> dict[str, Any] | None:
        """Return the line of this event; `None` if it is not there yet."""
        for line in self.output.splitlines(keepends=True):
            if (
                line.endswith("\n")
                and line.startswith("{")
                and json.loads(line).get("event") == event
            ):
                return json.loads(line)
        return None

    async def tells(self, event: str) -> dict[str, Any]:
        """Wait for the line of this event."""
        line = await until(lambda: self.told(event) or self._process.poll() is not None)
        if line is True:
            line = self.told(event)
        assert line, self.output
        return line

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def alive(self) -> bool:
        return self._process.poll() is None

    async def ends(self, seconds: float = PATIENCE) -> int:
        """Wait for the end of the process. Return its exit code."""
        await until(lambda: not self.alive(), seconds)
        return self._process.returncode

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


StartWorker = Any


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[StartWorker]:
    """Return a function that starts a worker, given the database's URL and arguments."""
    workers: list[Worker] = []

    def start(url: str, *arguments: str, script: str = SCRIPT, folder: Path = ROOT) -> Worker:
        worker = Worker(
            tmp_path / f"worker-{len(workers)}", ("--db", url, *arguments), script, folder
        )
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.kill()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'runs.db'}"


@pytest.fixture
def postgresql_url(tmp_path: Path) -> Iterator[str]:
    with fresh_database("postgresql", tmp_path) as url:
        yield url


@pytest.fixture
def invoke() -> Callable[..., Result]:
    """Return a function that runs a command in this process."""
    return lambda *arguments, **more: CliRunner().invoke(
        app, arguments, prog_name="blazen-trio", **more
    )


@pytest.fixture
def runs(sqlite_url: str, invoke: Callable[..., Result]) -> Callable[..., Result]:
    """Return a function that runs a command of `runs` in this process, on the test's SQLite file.

    A traceback in its output is that of a step, and expected.
    """

    def run(*arguments: str, traceback: bool = False, **more: Any) -> Result:
        done = invoke("runs", *arguments, env={"BLAZEN_TRIO_DB": sqlite_url}, **more)
        assert ("Traceback" in done.stderr) == traceback, done.stderr
        return done

    return run
