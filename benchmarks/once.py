"""One side of a durable case, once, in a database that is there: `python -m benchmarks.once many ours URL`.

For what looks at a process from outside: strace, a profiler.
"""

from __future__ import annotations

import argparse

import sqlalchemy as sa
import trio

from benchmarks.cases import durable_chain, durable_many
from benchmarks.harness import Case, Stopwatch
from benchmarks.limits import metadata
from blazen_trio import open_store


def case_of(name: str, kind: str, runs: int, steps: int) -> Case:
    """The case `"chain"` (one run of all the steps) or `"many"`, in this size."""
    return durable_chain(kind, runs * steps) if name == "chain" else durable_many(kind, runs, steps)


async def prepare(url: str) -> None:
    """Make the tables of both sides, so that making them is no part of what is looked at."""
    async with open_store(url, migrate=True):
        pass
    await trio.to_thread.run_sync(_make_the_limits_table, url)


def _make_the_limits_table(url: str) -> None:
    engine = sa.create_engine(url)
    metadata.create_all(engine)
    engine.dispose()


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="benchmarks.once", description=__doc__)
    parser.add_argument("case", choices=["chain", "many"])
    parser.add_argument("side", choices=["ours", "limit"])
    parser.add_argument("url", help="a database")
    parser.add_argument("--runs", type=int, default=200, help="runs (default: 200)")
    parser.add_argument("--steps", type=int, default=10, help="steps of each (default: 10)")
    parser.add_argument("--prepare", action="store_true", help="only make the tables")
    options = parser.parse_args()
    if options.prepare:
        trio.run(prepare, options.url)
        return
    case = case_of(
        options.case, sa.make_url(options.url).get_backend_name(), options.runs, options.steps
    )
    stopwatch = Stopwatch(options.url)
    trio.run(case.ours if options.side == "ours" else case.limit, stopwatch)
    print(f"{case.steps / stopwatch.seconds:,.0f} steps per second")


if __name__ == "__main__":
    main()
