"""Run one side of a durable case once: `python -m benchmarks.once many ours URL`.

The database has to exist. This is for tools that observe a process, such as strace and profilers.
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
    """Return the case `"chain"` (one run of all the steps) or `"many"`, in this size."""
    return durable_chain(kind, runs * steps) if name == "chain" else durable_many(kind, runs, steps)


async def prepare(url: str) -> None:
    """Create the tables of both sides, so that their creation is not observed."""
    async with open_store(url, migrate=True):
        pass
    await trio.to_thread.run_sync(_create_limit_table, url)


def _create_limit_table(url: str) -> None:
    engine = sa.create_engine(url)
    metadata.create_all(engine)
    engine.dispose()


def main() -> None:
    """Run the side that the command line names, or prepare the database."""
    parser = argparse.ArgumentParser(prog="benchmarks.once", description=__doc__)
    parser.add_argument("case", choices=["chain", "many"])
    parser.add_argument("side", choices=["ours", "limit"])
    parser.add_argument("url", help="the URL of a database")
    parser.add_argument("--runs", type=int, default=200, help="number of runs (default: 200)")
    parser.add_argument("--steps", type=int, default=10, help="steps per run (default: 10)")
    parser.add_argument("--prepare", action="store_true", help="only create the tables")
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
