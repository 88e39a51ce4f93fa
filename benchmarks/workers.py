"""Measure the gain from a second worker process: `python -m benchmarks.workers [--runs N]`.

One process and two, with 20 slots each, take turns to drive runs whose steps wait 10 ms. The limit
of a process is the rate of its slots if only the waiting took time. The time runs from the first
submission to the last run's end, while all processes serve.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import attrs
import trio
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.databases import KINDS, available, new_database, print_left_out
from benchmarks.harness import Spread
from benchmarks.limits import expect
from benchmarks.processes import worker
from benchmarks.worker import NAP_SECONDS, NAPS
from blazen_trio import RunStatus, open_runtime, open_store
from blazen_trio._stores.sql.store import SqlStore

SLOTS = 20
AIM = 1.6
"""The aim for the rate of two processes divided by that of one."""

_POLL_SECONDS = 0.02


@attrs.frozen
class Turn:
    """The rates of one turn.

    Attributes:
        one: Runs per second of one process.
        two: Runs per second of two processes.
        shares: The parts of the runs that each of the two ended.
    """

    one: float
    two: float
    shares: list[float]


async def work_off(url: str, runs: int, steps: int) -> tuple[float, Counter[int]]:
    """Submit runs to the workers. Return runs per second, and how many runs each process ended."""
    async with open_store(url) as store, open_runtime(store) as front:
        ids = [f"run {number}" for number in range(runs)]
        start = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for run_id in ids:
                nursery.start_soon(partial(front.submit, NAPS.name, steps, run_id=run_id))
        while await _left(store):  # noqa: ASYNC110  # no event announces it
            await trio.sleep(_POLL_SECONDS)
        seconds = time.perf_counter() - start
        by: Counter[int] = Counter()
        for run_id in ids:
            result = await front.result(run_id)
            expect(result["steps"], steps)
            by[result["by"]] += 1
    return runs / seconds, by


async def _left(store: SqlStore) -> bool:
    """Return true if any run has not ended. Read only one, so as not to cost the workers time."""
    for status in (RunStatus.QUEUED, RunStatus.RUNNING):
        if await store.list_runs(status=status, limit=1):
            return True
    return False


def rate(
    kind: str, folder: Path, processes: int, runs: int, steps: int
) -> tuple[float, Counter[int]]:
    """Return runs per second of this many processes, and how many runs each process ended."""
    with new_database(kind, folder) as url, ExitStack() as stack:
        trio.run(create_tables, url)
        pids = {
            stack.enter_context(worker(url, "--slots", str(SLOTS))).pid for _ in range(processes)
        }
        found, by = trio.run(work_off, url, runs, steps)
    expect(set(by), pids)
    return found, by


async def create_tables(url: str) -> None:
    """Create the tables, so that no worker does so while the time runs."""
    async with open_store(url, migrate=True):
        pass


def turn(kind: str, folder: Path, runs: int, steps: int) -> Turn:
    """Measure one process, then two."""
    one, _ = rate(kind, folder, 1, runs, steps)
    two, by = rate(kind, folder, 2, runs, steps)
    return Turn(one, two, [count / runs for count in sorted(by.values())])


def show(turns: dict[str, list[Turn]], runs: int, steps: int, console: Console) -> None:
    """Print the table."""
    limit = SLOTS / (steps * NAP_SECONDS)
    table = Table(
        title=f"runs per second: {runs:,} runs of {steps} steps that wait 10 ms, "
        f"{SLOTS} at once in each process",
        caption=f"limit: {limit:,.0f} for one process, twice that for two",
    )
    table.add_column("database")
    for heading in (
        "one process",
        "of its limit",
        "two processes",
        "of their limit",
        "least share",
        "ratio",
        "aim",
    ):
        table.add_column(heading, justify="right")
    for kind, taken in turns.items():
        one, two = Spread.of([each.one for each in taken]), Spread.of([each.two for each in taken])
        ratio = Spread.of([each.two / each.one for each in taken])
        table.add_row(
            kind,
            f"{one.median:,.0f} ({one.least:,.0f}-{one.greatest:,.0f})",
            f"{one.median / limit:.2f}",
            f"{two.median:,.0f} ({two.least:,.0f}-{two.greatest:,.0f})",
            f"{two.median / limit / 2:.2f}",
            f"{min(each.shares[0] for each in taken):.2f}",
            f"{ratio.median:.2f} ({ratio.least:.2f}-{ratio.greatest:.2f})",
            f"{AIM}" if kind == "postgresql" else "",
        )
    console.print(table)


def main() -> None:
    """Measure on each database and print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.workers", description=__doc__)
    parser.add_argument("--runs", type=int, default=800, help="number of runs (default: 800)")
    parser.add_argument("--steps", type=int, default=10, help="steps per run (default: 10)")
    parser.add_argument("--repeat", type=int, default=3, help="number of turns (default: 3)")
    parser.add_argument(
        "--database",
        action="append",
        choices=KINDS,
        help="measure only this kind; may be repeated",
    )
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path(),
        help="a folder on the disk to measure (default: the current folder)",
    )
    options = parser.parse_args()
    console = Console()
    turns: dict[str, list[Turn]] = {}
    kinds = [kind for kind in available() if not options.database or kind in options.database]
    bar = track(
        [kind for kind in kinds for _ in range(options.repeat)], "measuring", transient=True
    )
    for kind in bar:
        turns.setdefault(kind, []).append(turn(kind, options.dir, options.runs, options.steps))
    show(turns, options.runs, options.steps, console)
    print_left_out(console)


if __name__ == "__main__":
    main()
