"""The common part of the peers' programs.

    python -m benchmarks.peers.NAME WORKLOAD [--runs N] [--steps N] [--url URL]

This module imports only the standard library, because each program runs in its peer's environment.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace


class UnsupportedError(Exception):
    """The peer can't do this workload. The message says why."""


@dataclass(frozen=True)
class Size:
    """The size of a workload.

    Attributes:
        runs: The number of concurrent runs.
        steps: The steps per run, or the width of a fan-out.
        url: The database of a durable workload.
    """

    runs: int = 1
    steps: int = 1
    url: str = ""

    @property
    def kind(self) -> str:
        """The kind of database."""
        return self.url.partition(":")[0].partition("+")[0]

    @property
    def file(self) -> str:
        """The file of an SQLite database."""
        return self.url.removeprefix("sqlite:///")

    @property
    def plain_url(self) -> str:
        """The URL for libraries other than SQLAlchemy."""
        return self.url.replace("+psycopg", "")


class Timer:
    """A timer that measures the seconds inside its `with` block."""

    def __enter__(self) -> Timer:
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_details: object) -> None:
        self.seconds = time.perf_counter() - self._start


Do = Callable[[Size], float]
"""A function that does the work, checks the result, and returns the seconds it took."""


def expect(found: object, expected: object) -> None:
    """Fail if the work was not done."""
    if found != expected:
        raise AssertionError(f"the workload returned {found!r:.200}, expected {expected!r:.200}")


def main(workloads: Mapping[str, Do]) -> None:
    """Run the command line's workload after a small warm-up, and print the seconds as JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks.peers", description=__doc__)
    parser.add_argument("workload")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--url", default="")
    options = parser.parse_args()
    size = Size(options.runs, options.steps, options.url)
    try:
        if options.workload not in workloads:
            raise UnsupportedError("not supported")
        do = workloads[options.workload]
        do(replace(size, runs=min(3, size.runs), steps=min(10, size.steps)))
        print(json.dumps({"seconds": do(size)}))
    except UnsupportedError as error:
        print(json.dumps({"unsupported": str(error)}))
