"""What runs that wait cost a worker: `python -m benchmarks.idle [--runs N]`.

The runs are put into the database in bulk: half wait for a time, half for an event. Then a look at the store is timed, and from
sending one of them what it waits for to its end. The limit is the same with 100 runs in the database.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import attrs
import sqlalchemy as sa
import trio
from rich.console import Console
from rich.table import Table

from benchmarks.databases import available, new_database, tell_what_is_left_out
from benchmarks.limits import expect
from blazen_trio import Event, StartEvent, StopEvent, Workflow, open_runtime, open_store, step
from blazen_trio._state.status import RunStatus
from blazen_trio._stores.sql.schema import STATUS_CODES, runs

_AT_ONCE = 5_000
_FAR = 4_000_000_000_000_000  # microseconds since the epoch: in 2096
_LOOKS = 50


@attrs.frozen
class Go(Event):
    """What the runs wait for."""


@step
async def begin(_ev: StartEvent) -> None:
    """Wait."""


@step
async def go(_ev: Go) -> StopEvent:
    """Come to an end."""
    return StopEvent()


FLOW = Workflow("idle", [begin, go], external=[Go])


def add_waiting_runs(url: str, count: int) -> None:
    """Rows of runs that wait, without their journals."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for start in range(0, count, _AT_ONCE):
            rows = [
                {
                    "run_id": f"waiting {number}",
                    "workflow": "idle",
                    "version": "1",
                    "status": STATUS_CODES[RunStatus.WAITING],
                    "created": number,
                    "updated": number,
                    "wake": _FAR + number if number % 2 else None,
                }
                for number in range(start, min(count, start + _AT_ONCE))
            ]
            connection.execute(sa.insert(runs), rows)
    engine.dispose()


@attrs.frozen
class Cost:
    """Seconds per look, seconds from a send to the run's end, and how many bytes the process grew by."""

    look: float
    wake: float
    grown: int


def memory() -> int:
    """How many bytes of memory the process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def measure(url: str, count: int, wakes_taken: int = 10) -> Cost:
    """With so many runs that wait in the database."""
    async with open_store(url, migrate=True) as store:
        await trio.to_thread.run_sync(add_waiting_runs, url, count)
        before = memory()
        looks = []
        for _ in range(_LOOKS):
            began = time.perf_counter()
            ready = (await store.poll(["idle"])).ready
            looks.append(time.perf_counter() - began)
            expect(ready, False)
        wakes = []
        async with (
            open_runtime(store, [FLOW], poll_interval=0.05, idle_after=0) as worker,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(worker.serve)  # noqa: ASYNC113  # it may begin a moment later
            for number in range(wakes_taken):
                run_id = await worker.submit(FLOW, run_id=f"measured {number}")
                while worker.statistics().left <= number:  # noqa: ASYNC110  # until it has left memory
                    await trio.sleep(0.01)
                began = time.perf_counter()
                await worker.send(run_id, Go())
                await worker.result(run_id)
                wakes.append(time.perf_counter() - began)
            nursery.cancel_scope.cancel()
        grown = memory() - before
    return Cost(statistics.median(looks), statistics.median(wakes), grown)


def main() -> None:
    """Measure on each database, and print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.idle", description=__doc__)
    parser.add_argument(
        "--runs", type=int, default=100_000, help="runs that wait (default: 100,000)"
    )
    parser.add_argument(
        "--dir", type=Path, default=Path(), help="on the disk to be measured (default: this folder)"
    )
    options = parser.parse_args()
    table = Table(title=f"a worker beside {options.runs:,} waiting runs, and beside 100")
    for heading in (
        "database",
        "a look, ms",
        "beside 100",
        "ratio",
        "send to end, ms",
        "beside 100",
        "memory grown, MB",
    ):
        table.add_column(heading, justify="right")
    for kind in available():
        found = {}
        for count in (100, options.runs):
            with new_database(kind, options.dir) as url:
                found[count] = trio.run(measure, url, count)
        few, many = found[100], found[options.runs]
        numbers = (
            many.look * 1e3,
            few.look * 1e3,
            many.look / few.look,
            many.wake * 1e3,
            few.wake * 1e3,
            many.grown / 1e6,
        )
        table.add_row(kind, *(f"{number:.2f}" for number in numbers))
    console = Console()
    console.print(table)
    tell_what_is_left_out(console)


if __name__ == "__main__":
    main()
