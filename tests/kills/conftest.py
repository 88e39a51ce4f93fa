"""Children to be killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).parents[2]


@attrs.define
class Scene:
    """One run in one database, driven by one child process after the other."""

    folder: Path
    durability: str = "sync"
    run_id: str = "run"
    lease_ttl: float = 15.0
    children: list[subprocess.Popen[str]] = attrs.field(factory=list)

    @property
    def url(self) -> str:
        """The database."""
        return f"sqlite:///{self.folder / 'runs.db'}"

    @property
    def log(self) -> Path:
        """The log of attempts."""
        return self.folder / "attempts.log"

    def start(self) -> subprocess.Popen[str]:
        """A child that drives the run."""
        arguments = [self.url, str(self.log), self.durability, self.run_id, str(self.lease_ttl)]
        child = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("child.py")), *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.children.append(child)
        return child

    def attempts(self) -> list[tuple[int, str, int]]:
        """(pid, idempotency key, attempt) of all attempts so far, in order."""
        if not self.log.exists():
            return []
        lines = (line.split() for line in self.log.read_text().splitlines())
        return [(int(pid), key, int(attempt)) for pid, key, attempt in lines]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A run of its own for each test, and no child left behind."""
    made = Scene(tmp_path)
    yield made
    for child in made.children:
        if child.returncode is None:
            child.kill()
            child.communicate()
