"""Workers in processes of their own, and their output."""

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
_POLL_SECONDS = 0.005


@attrs.frozen
class StepStart:
    """The start of a step.

    Attributes:
        pid: The process.
        run_id: The run.
        at: The time by `time.monotonic`, a clock that all processes of the machine share.
    """

    pid: int
    run_id: str
    at: float


@attrs.frozen
class Worker:
    """A process of `benchmarks.worker`."""

    process: subprocess.Popen[bytes]
    output: Path

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    def ready(self) -> bool:
        """Return true once the worker serves."""
        return any(line[0] == "ready" for line in self._lines())

    def started(self) -> list[StepStart]:
        """Return the starts of the steps of `held` in this worker, in order."""
        return [
            StepStart(int(line[1]), line[2], float(line[3]))
            for line in self._lines()
            if line[0] == "started"
        ]

    def wait(self, until: Callable[[], bool], seconds: float = _PATIENCE) -> None:
        """Wait until a condition holds.

        Raises:
            RuntimeError: The process ended, or the condition did not hold in time.
        """
        deadline = time.monotonic() + seconds
        while not until():
            if self.process.poll() is not None or time.monotonic() > deadline:
                output = self.output.read_text()[-2000:]
                msg = f"a worker ended, or did not do its part within {seconds} s: {output}"
                raise RuntimeError(msg)
            time.sleep(_POLL_SECONDS)

    def kill(self) -> float:
        """Send SIGKILL. Return the time by `time.monotonic`."""
        at = time.monotonic()
        self.process.kill()
        self.process.wait()
        return at

    def _lines(self) -> list[list[str]]:
        # The last line may not be complete yet.
        return [line.split() for line in self.output.read_text().split("\n")[:-1] if line.strip()]


@contextmanager
def worker(url: str, *options: str) -> Iterator[Worker]:
    """Start a worker for this database, and yield it once it serves. It ends with the block."""
    with tempfile.NamedTemporaryFile(prefix=".benchmark-") as output:
        command = [sys.executable, "-m", "benchmarks.worker", url, *options]
        process = subprocess.Popen(command, stdout=output, stderr=output)  # noqa: S603
        found = Worker(process, Path(output.name))
        try:
            found.wait(found.ready)
            yield found
        finally:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            finally:
                process.kill()
