"""Measure what waiting runs cost a worker: `python -m benchmarks.idle [--runs N]`.

The runs are inserted in bulk. Half of them wait for a time, half for an event. Two times are
measured: that of a poll of the store, and that from sending a run the event it waits for until the
run ends. The limit is the same with 100 runs in the database.
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

from benchmarks.databases import available, new_database, print_left_out
from benchmarks.limits import expect
from blazen_trio import Event, StartEvent, StopEvent, Workflow, open_runtime, open_store, step
from blazen_trio._state.status import RunStatus
from blazen_trio._stores.sql.schema import STATUS_CODES, runs

_BATCH = 5_000
_FAR = 4_000_000_000_000_000  # microseconds since the epoch: in 2096
_POLLS = 50


@attrs.frozen
class Go(Event):
    """The event that the runs wait for."""


@step
async def begin(_ev: StartEvent) -> None:
    """Emit nothing, so that the run waits."""


@step
async def go(_ev: Go) -> StopEvent:
    """End the run."""
    return StopEvent()


FLOW = Workflow("idle", [begin, go], external=[Go])


def add_waiting_runs(url: str, count: int) -> None:
    """Insert rows of waiting runs, without their journals."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for start in range(0, count, _BATCH):
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
                for number in range(start, min(count, start + _BATCH))
            ]
            connection.execute(sa.insert(runs), rows)
    engine.dispose()


@attrs.frozen
class Cost:
    """The cost of waiting runs.

    Attributes:
        poll: Seconds per poll.
        wake: Seconds from a send to the run's end.
        grown: The bytes by which the process grew.
    """

    poll: float
    wake: float
    grown: int


def memory() -> int:
    """Return the resident memory of this process, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def measure(url: str, count: int, wakes_taken: int = 10) -> Cost:
    """Measure the costs with this many waiting runs in the database."""
    async with open_store(url, migrate=True) as store:
        await trio.to_thread.run_sync(add_waiting_runs, url, count)
        before = memory()
        polls = []
        for _ in range(_POLLS):
            start = time.perf_counter()
            ready = (await store.poll(["idle"])).ready
            polls.append(time.perf_counter() - start)
            expect(ready, False)
        wakes = []
        async with (
            open_runtime(store, [FLOW], poll_interval=0.05, idle_after=0) as worker,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(worker.serve)  # noqa: ASYNC113  # it may start a moment later
            for number in range(wakes_taken):
                run_id = await worker.submit(FLOW, run_id=f"measured {number}")
                # Until the run has left memory.
                while worker.statistics().left <= number:  # noqa: ASYNC110
                    await trio.sleep(0.01)
                start = time.perf_counter()
                await worker.send(run_id, Go())
                await worker.result(run_id)
                wakes.append(time.perf_counter() - start)
            nursery.cancel_scope.cancel()
        grown = memory() - before
    return Cost(statistics.median(polls), statistics.median(wakes), grown)


def main() -> None:
    """Measure on each database and print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.idle", description=__doc__)
    parser.add_argument(
        "--runs", type=int, default=100_000, help="number of waiting runs (default: 100,000)"
    )
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path(),
        help="a folder on the disk to measure (default: the current folder)",
    )
    options = parser.parse_args()
    table = Table(title=f"a worker beside {options.runs:,} waiting runs, and beside 100")
    for heading in (
        "database",
        "a poll, ms",
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
            many.poll * 1e3,
            few.poll * 1e3,
            many.poll / few.poll,
            many.wake * 1e3,
            few.wake * 1e3,
            many.grown / 1e6,
        )
        table.add_row(kind, *(f"{number:.2f}" for number in numbers))
    console = Console()
    console.print(table)
    print_left_out(console)


if __name__ == "__main__":
    main()
