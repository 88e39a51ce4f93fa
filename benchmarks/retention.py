"""Check that a database does not grow in a steady state: `python -m benchmarks.retention`.

Runs are started in waves of 500, and each wave is purged when it is over. `size_of` gives the size
of the database after each wave. Deleting rows does not shrink a database immediately, and never
shrinks MariaDB's files, so the size should stay the same, not fall.
"""

from __future__ import annotations

import argparse
import datetime as dt
from pathlib import Path

import trio
from rich.console import Console
from rich.table import Table

from benchmarks.databases import available, new_database, print_left_out, size_of
from benchmarks.limits import expect
from benchmarks.workloads import CHAIN
from blazen_trio import RunStatus, open_runtime, open_store

_WAVE = 500
_STEPS = 10


async def soak(url: str, waves: int, wave: int = _WAVE) -> list[int]:
    """Return the size of the database, in bytes, after each of a number of waves of runs."""
    sizes = []
    async with open_store(url, migrate=True) as store:
        for number in range(waves):
            async with open_runtime(store, max_concurrent_runs=wave) as runtime:
                for member in range(wave):
                    await runtime.start(CHAIN[False], _STEPS, run_id=f"{number}-{member}")
            expect(
                await store.purge(older_than=dt.timedelta(0), status=[RunStatus.COMPLETED]), wave
            )
            sizes.append(await trio.to_thread.run_sync(size_of, url))
        expect(await store.list_runs(), [])
    return sizes


def main() -> None:
    """Soak each database and print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.retention", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="number of runs (default: 10,000)")
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path(),
        help="a folder on the disk to measure (default: the current folder)",
    )
    options = parser.parse_args()
    if options.runs < 2 * _WAVE:
        parser.error(f"--runs must be at least {2 * _WAVE}, two waves")
    table = Table(
        title=f"{options.runs:,} runs of {_STEPS} steps in waves of {_WAVE}, each purged: "
        "size of the database, MB",
        caption="sqlite: the file and its log; postgresql: after a VACUUM; "
        "mariadb: the files of its tables, without undo",
    )
    for heading in ("database", "after 2 waves", "half way", "at the end", "end / half way"):
        table.add_column(heading, justify="right")
    for kind in available():
        with new_database(kind, options.dir) as url:
            sizes = trio.run(soak, url, options.runs // _WAVE)
        early, half, end = sizes[1], sizes[len(sizes) // 2], sizes[-1]
        table.add_row(
            kind, *(f"{size / 1e6:.2f}" for size in (early, half, end)), f"{end / half:.2f}"
        )
    console = Console()
    console.print(table)
    print_left_out(console)


if __name__ == "__main__":
    main()
