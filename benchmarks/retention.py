"""Whether a database in steady state grows: `python -m benchmarks.retention [--runs N]`.

Runs in waves of 500, each purged when it is over; the database's size after each wave.
"""

from __future__ import annotations

import argparse
import datetime as dt
from pathlib import Path

import trio
from rich.console import Console
from rich.table import Table

from benchmarks.databases import available, new_database, size_of
from benchmarks.workloads import CHAIN
from blazen_trio import RunStatus, open_runtime, open_store

_WAVE = 500
_STEPS = 10


async def soak(url: str, count: int) -> list[int]:
    """The database's size, in bytes, after each wave."""
    sizes = []
    async with open_store(url, migrate=True) as store:
        for wave in range(count // _WAVE):
            async with open_runtime(store, max_concurrent_runs=_WAVE) as runtime:
                for number in range(_WAVE):
                    await runtime.start(CHAIN[False], _STEPS, run_id=f"{wave}-{number}")
            await store.purge(older_than=dt.timedelta(0), status=[RunStatus.COMPLETED])
            sizes.append(size_of(url))
        assert await store.list_runs() == []
    return sizes


def main() -> None:
    """Soak each database, and print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.retention", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="runs in all (default: 10,000)")
    parser.add_argument("--dir", type=Path, default=Path(), help="on the disk to be measured (default: this folder)")
    options = parser.parse_args()
    table = Table(
        title=f"{options.runs:,} runs of {_STEPS} steps in waves of {_WAVE}, each purged: size of the database, MB"
    )
    for heading in ("database", "after 2 waves", "half way", "at the end", "end / half way"):
        table.add_column(heading, justify="right")
    for kind in available():
        with new_database(kind, options.dir) as url:
            sizes = trio.run(soak, url, options.runs)
        early, half, end = sizes[min(1, len(sizes) - 1)], sizes[len(sizes) // 2], sizes[-1]
        table.add_row(kind, *(f"{size / 1e6:.2f}" for size in (early, half, end)), f"{end / half:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
