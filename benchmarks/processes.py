"""Workers in processes of their own, and what they tell."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

_PATIENCE = 60.0
_GLANCE = 0.005  # seconds between two looks at what they told


@attrs.frozen
class Began:
    """A step began.

    Attributes:
        pid: In this process.
        run_id: Of this run.
        at: Seconds, as `time.monotonic` tells them to every process of the machine.
    """

    pid: int
    run_id: str
    at: float


@attrs.frozen
class Worker:
    """A process of `benchmarks.worker`."""

    process: subprocess.Popen[bytes]
    told: Path

    @property
    def pid(self) -> int:
        """Its id."""
        return self.process.pid

    def ready(self) -> bool:
        """Whether it serves."""
        return any(line[0] == "ready" for line in self._lines())

    def began(self) -> list[Began]:
        """The steps of `held` that it began, in order."""
        return [
            Began(int(line[1]), line[2], float(line[3]))
            for line in self._lines()
            if line[0] == "began"
        ]

    def wait(self, until: Callable[[], bool], seconds: float = _PATIENCE) -> None:
        """Wait for something that it does.

        Raises:
            RuntimeError: It ended, or did not do so in this time.
        """
        deadline = time.monotonic() + seconds
        while not until():
            if self.process.poll() is not None or time.monotonic() > deadline:
                msg = f"a worker did not do its part within {seconds} s: {self.told.read_text()[-2000:]}"
                raise RuntimeError(msg)
            time.sleep(_GLANCE)

    def kill(self) -> float:
        """SIGKILL; when, by `time.monotonic`."""
        at = time.monotonic()
        self.process.kill()
        self.process.wait()
        return at

    def _lines(self) -> list[list[str]]:
        # The last line may not be complete yet.
        return [line.split() for line in self.told.read_text().split("\n")[:-1] if line.strip()]


@contextmanager
def worker(url: str, *options: str) -> Iterator[Worker]:
    """A worker for this database that serves already, with these options; ended with the block."""
    with tempfile.NamedTemporaryFile(prefix=".benchmark-") as told:
        command = [sys.executable, "-m", "benchmarks.worker", url, *options]
        process = subprocess.Popen(command, stdout=told, stderr=told)  # noqa: S603
        found = Worker(process, Path(told.name))
        try:
            found.wait(found.ready)
            yield found
        finally:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            finally:
                process.kill()
