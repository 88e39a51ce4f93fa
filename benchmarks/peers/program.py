"""What the peers' programs have in common: `python -m benchmarks.peers.NAME WORKLOAD [--runs N] [--steps N] [--url URL]`.

It imports nothing that is not Python's own, because each program runs in its peer's environment.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace


class UnsupportedError(Exception):
    """The peer can't do this workload; the message says why."""


@dataclass(frozen=True)
class Size:
    """How much is to be done.

    Attributes:
        runs: At once.
        steps: Of each; for a fan-out its width.
        url: A database, where the workload is durable.
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
        """The database's file, of SQLite."""
        return self.url.removeprefix("sqlite:///")

    @property
    def plain_url(self) -> str:
        """The URL as libraries write it that are not SQLAlchemy."""
        return self.url.replace("+psycopg", "")


class Timer:
    """Seconds inside its `with` block."""

    def __enter__(self) -> Timer:
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_details: object) -> None:
        self.seconds = time.perf_counter() - self._began


Do = Callable[[Size], float]
"""Does the work, checks what came out, and returns the seconds that it took."""


def expect(found: object, expected: object) -> None:
    """Fail where the work was not done."""
    if found != expected:
        raise AssertionError(f"the workload gave {found!r:.200} instead of {expected!r:.200}")


def main(workloads: Mapping[str, Do]) -> None:
    """Do what the command line says, after a little of it as a warm-up, and print the seconds as JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks.peers", description=__doc__)
    parser.add_argument("workload")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--url", default="")
    options = parser.parse_args()
    size = Size(options.runs, options.steps, options.url)
    try:
        if options.workload not in workloads:
            raise UnsupportedError("it has nothing of the kind")
        do = workloads[options.workload]
        do(replace(size, runs=min(3, size.runs), steps=min(10, size.steps)))
        print(json.dumps({"seconds": do(size)}))
    except UnsupportedError as error:
        print(json.dumps({"unsupported": str(error)}))
