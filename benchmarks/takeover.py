"""Measure how soon a killed worker's runs resume elsewhere: `python -m benchmarks.takeover`.

A worker drives runs whose step does not end, and is killed by SIGKILL. The time is measured until
that step starts in another worker: on the same machine, and on another one. The other machine is
simulated: the killed worker claims another boot id, so its process can't be looked up here, and
only the end of its lease shows its death. This differs from a vanished machine in one point: the
connections of a killed process are closed immediately.

The limit of each time is one poll (0.5 s) on the same machine, and the end of the lease plus one
poll on another.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import attrs
import trio
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.databases import KINDS, available, new_database, print_left_out
from benchmarks.harness import Spread
from benchmarks.limits import expect
from benchmarks.processes import Worker, worker
from blazen_trio import open_runtime, open_store

DEFAULT_TTL = 15.0
_POLL_SECONDS = 0.5  # a runtime's default
_SLACK_SECONDS = 30.0


@attrs.frozen
class Takeover:
    """Seconds from SIGKILL until the step started elsewhere, for the first run and for the last."""

    first: float
    last: float


async def submit(url: str, runs: int) -> None:
    """Queue the runs in a new database."""
    async with open_store(url, migrate=True) as store, open_runtime(store) as front:
        for number in range(runs):
            await front.submit("held", run_id=f"run-{number}")


async def check(url: str, runs: int, heir: int) -> None:
    """Check that every run ended in the process `heir`."""
    async with open_store(url) as store, open_runtime(store) as front:
        for number in range(runs):
            expect(await front.result(f"run-{number}"), {"by": heir})


def take_over(kind: str, folder: Path, runs: int, *, lease_ttl: float, elsewhere: bool) -> Takeover:
    """Kill one worker, and time how soon another takes over its runs."""
    ttl = ("--lease-ttl", str(lease_ttl))
    claim = ("--boot", "another machine") if elsewhere else ()
    with new_database(kind, folder) as url:
        trio.run(submit, url, runs)
        with worker(url, "--hold", *ttl, *claim) as victim:
            victim.wait(lambda: len(victim.started()) == runs)
            with worker(url, *ttl) as heir:
                # So that the kill comes at any moment between two polls or two lease renewals.
                time.sleep(random.uniform(0, lease_ttl / 3 if elsewhere else 2 * _POLL_SECONDS))
                expect(heir.started(), [])
                killed = victim.kill()
                heir.wait(lambda: len(heir.started()) >= runs, lease_ttl + _SLACK_SECONDS)
                found = _times(heir, killed, runs)
                trio.run(check, url, runs, heir.pid)
    return found


def _times(heir: Worker, killed: float, runs: int) -> Takeover:
    started = heir.started()
    expect(len({each.run_id for each in started}), runs)
    expect(len(started), runs)
    seconds = [each.at - killed for each in started]
    expect(min(seconds) > 0, True)
    return Takeover(min(seconds), max(seconds))


def main() -> None:
    """Measure on each database and print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.takeover", description=__doc__)
    parser.add_argument(
        "--runs", type=int, default=20, help="runs of the killed worker (default: 20)"
    )
    parser.add_argument(
        "--lease-ttl",
        type=float,
        action="append",
        help="seconds of the lease on the other machine; may be repeated (default: 3 and 15)",
    )
    parser.add_argument("--repeat", type=int, default=3, help="kills of each kind (default: 3)")
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
    kinds = [kind for kind in available() if not options.database or kind in options.database]
    ways = [(False, DEFAULT_TTL), *((True, ttl) for ttl in options.lease_ttl or (3.0, DEFAULT_TTL))]
    rows = [(kind, elsewhere, ttl) for kind in kinds for elsewhere, ttl in ways]
    found: dict[tuple[str, bool, float], list[Takeover]] = {row: [] for row in rows}
    for row in track(
        [row for row in rows for _ in range(options.repeat)], "measuring", transient=True
    ):
        kind, elsewhere, ttl = row
        found[row].append(
            take_over(kind, options.dir, options.runs, lease_ttl=ttl, elsewhere=elsewhere)
        )
    show(found, options.runs, console)
    print_left_out(console)


def show(found: dict[tuple[str, bool, float], list[Takeover]], runs: int, console: Console) -> None:
    """Print the table."""
    table = Table(
        title=f"seconds from SIGKILL until the steps of {runs} runs started elsewhere: "
        "median (least-greatest)"
    )
    for heading in ("database", "machine"):
        table.add_column(heading)
    for heading in ("lease, s", "the first run", "the last run", "limit"):
        table.add_column(heading, justify="right")
    for (kind, elsewhere, ttl), taken in found.items():
        spreads = (Spread.of([one.first for one in taken]), Spread.of([one.last for one in taken]))
        table.add_row(
            kind,
            "another" if elsewhere else "the same",
            f"{ttl:g}",
            *(f"{one.median:.2f} ({one.least:.2f}-{one.greatest:.2f})" for one in spreads),
            f"{_POLL_SECONDS + (ttl if elsewhere else 0):g}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
