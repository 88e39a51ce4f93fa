"""The command line as a process, with pipes or at a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING, Any, Self

from tests.cli.conftest import PATIENCE, ROOT, SCRIPT

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Terminal", "start"]

_COMMAND = [sys.executable, "-W", "error", "-c", SCRIPT]


def start(url: str, *arguments: str, **more: Any) -> subprocess.Popen[str]:
    """A process whose output goes to pipes."""
    environment = {**os.environ, "BLAZEN_TRIO_DB": url, "PYTHONUNBUFFERED": "1"}
    pipes = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "stdin": subprocess.DEVNULL,
        **more,
    }
    return subprocess.Popen([*_COMMAND, *arguments], cwd=ROOT, env=environment, text=True, **pipes)


class Terminal:
    """A process at a terminal of 100 columns, with input typed by the test."""

    def __init__(
        self, url: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self._ours, theirs = pty.openpty()
        more = {"BLAZEN_TRIO_DB": url, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
        self._process = subprocess.Popen(
            [*_COMMAND, *arguments],
            cwd=ROOT,
            env={**os.environ, **more, **(environment or {})},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(
                0, termios.TIOCSCTTY, 0
            ),  # what is typed can interrupt it
        )
        os.close(theirs)
        self.screen = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)

    def shows(self, text: str, times: int = 1) -> None:
        """Wait until this text is on the screen."""
        deadline = time.monotonic() + PATIENCE
        while self.screen.count(text) < times:
            assert self._read(deadline), self.screen

    def types(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def ends(self) -> int:
        """Wait for the end of the process. Return its exit code."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        return self._process.wait(PATIENCE)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # the other side is closed
            return False
        self.screen += data.decode(errors="replace")
        return bool(data)
