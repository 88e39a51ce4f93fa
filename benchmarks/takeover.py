"""How soon a killed worker's runs go on elsewhere: `python -m benchmarks.takeover [--lease-ttl S] [--repeat N]`.

A worker drives runs whose step does not end; it gets a SIGKILL, and the time is taken until that step begins in another process that
serves: on the same machine, and (by a worker that claims another boot id, so that nobody here can look for its process) on another,
where only the lease's time tells of its death. That stands for a vanished machine but in one thing: the connections of a process that
was killed are closed at once.

Beside each time is its limit: a look every half second on the same machine, and the end of the lease plus one look on another.
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

from benchmarks.databases import KINDS, available, new_database, tell_what_is_left_out
from benchmarks.harness import Spread
from benchmarks.limits import expect
from benchmarks.processes import Worker, worker
from blazen_trio import open_runtime, open_store

DEFAULT_TTL = 15.0
_POLL_SECONDS = 0.5  # a runtime's default
_SLACK_SECONDS = 30.0


@attrs.frozen
class Takeover:
    """Seconds from the SIGKILL until the step began elsewhere: of the first run, and of the last."""

    first: float
    last: float


async def submit(url: str, runs: int) -> None:
    """Queue the runs, in a new database."""
    async with open_store(url, migrate=True) as store, open_runtime(store) as front:
        for number in range(runs):
            await front.submit("held", run_id=f"run-{number}")


async def check(url: str, runs: int, heir: int) -> None:
    """Every run has ended, by that process."""
    async with open_store(url) as store, open_runtime(store) as front:
        for number in range(runs):
            expect(await front.result(f"run-{number}"), {"by": heir})


def take_over(kind: str, folder: Path, runs: int, *, lease_ttl: float, elsewhere: bool) -> Takeover:
    """Kill one worker, and time the other."""
    ttl = ("--lease-ttl", str(lease_ttl))
    claim = ("--boot", "another machine") if elsewhere else ()
    with new_database(kind, folder) as url:
        trio.run(submit, url, runs)
        with worker(url, "--hold", *ttl, *claim) as victim:
            victim.wait(lambda: len(victim.began()) == runs)
            with worker(url, *ttl) as heir:
                # At any moment between two looks, and between two renewals of the lease.
                time.sleep(random.uniform(0, lease_ttl / 3 if elsewhere else 2 * _POLL_SECONDS))
                expect(heir.began(), [])
                killed = victim.kill()
                heir.wait(lambda: len(heir.began()) >= runs, lease_ttl + _SLACK_SECONDS)
                found = _times(heir, killed, runs)
                trio.run(check, url, runs, heir.pid)
    return found


def _times(heir: Worker, killed: float, runs: int) -> Takeover:
    began = heir.began()
    expect(len({each.run_id for each in began}), runs)
    expect(len(began), runs)
    seconds = [each.at - killed for each in began]
    expect(min(seconds) > 0, True)
    return Takeover(min(seconds), max(seconds))


def main() -> None:
    """Measure on each database, and print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.takeover", description=__doc__)
    parser.add_argument(
        "--runs", type=int, default=20, help="runs of the worker that is killed (default: 20)"
    )
    parser.add_argument(
        "--lease-ttl",
        type=float,
        action="append",
        help="seconds, for the other machine (default: 3, and 15, the default)",
    )
    parser.add_argument("--repeat", type=int, default=3, help="kills of each kind (default: 3)")
    parser.add_argument(
        "--database", action="append", choices=KINDS, help="only this kind; several times, too"
    )
    parser.add_argument(
        "--dir", type=Path, default=Path(), help="on the disk to be measured (default: this folder)"
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
    tell_what_is_left_out(console)


def show(found: dict[tuple[str, bool, float], list[Takeover]], runs: int, console: Console) -> None:
    """Print the table."""
    table = Table(
        title=f"seconds from SIGKILL until {runs} runs' steps began elsewhere: median (least-greatest)"
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
