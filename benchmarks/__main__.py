"""The command: `python -m benchmarks [--only NAME] [--repeat N] [--json FILE]`."""

from __future__ import annotations

import argparse
import json
import platform
import sqlite3
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import limits, workloads
from benchmarks.harness import Case, Measurement, Spread, measure

SPAWN = "bare Trio, a task per step"
SPAWN_CHECKPOINT = "that, with a checkpoint"
COMMIT = "INSERT + COMMIT per step"

CASES = [
    Case("chain", 2000, workloads.chain(2000), limits.chain(2000), SPAWN, 2.0),
    Case(
        "chain-checkpoint",
        2000,
        workloads.chain(2000, checkpoint=True),
        limits.chain(2000, checkpoint=True),
        SPAWN_CHECKPOINT,
    ),
    Case("fan", 1000, workloads.fan(1000), limits.fan(1000), SPAWN, 1.0),
    Case(
        "fan-checkpoint",
        1000,
        workloads.fan(1000, checkpoint=True),
        limits.fan(1000, checkpoint=True),
        SPAWN_CHECKPOINT,
    ),
    Case("many", 5000, workloads.many(500, 10), limits.many(500, 10), SPAWN, 0.9),
    Case(
        "many-checkpoint",
        5000,
        workloads.many(500, 10, checkpoint=True),
        limits.many(500, 10, checkpoint=True),
        SPAWN_CHECKPOINT,
    ),
    Case(
        "durable-chain",
        300,
        partial(workloads.durable_chain, steps=300),
        partial(limits.sql_one_by_one, steps=300),
        COMMIT,
        0.6,
    ),
    Case(
        "durable-many",
        2000,
        partial(workloads.durable_many, runs=200, steps=10),
        partial(limits.sql_by_hundreds, steps=2000),
        "100 INSERTs per COMMIT",
        0.2,
    ),
    Case(
        "durable-chain-busy",
        300,
        partial(workloads.durable_beside_busy, steps=300),
        partial(limits.sql_beside_busy, steps=300),
        "that, in the busy loop",
    ),
]


def cell(numbers: list[float], form: str) -> str:
    """The median, and under it the least and the greatest."""
    spread = Spread.of(numbers)
    return f"{spread.median:{form}}\n[dim]{spread.least:{form}}-{spread.greatest:{form}}[/dim]"


def show(measurements: list[Measurement]) -> None:
    """Print the table."""
    table = Table(title="steps per second: median, least-greatest", box=box.SIMPLE, padding=(0, 1, 1, 0))
    table.add_column("case\n[dim]its limit[/dim]", no_wrap=True)
    for heading in ("blazen_trio", "limit", "ratio", "aim"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in measurements:
        table.add_row(
            f"{one.case.name}\n[dim]{one.case.limit_name}[/dim]",
            cell(one.ours, ",.0f"),
            cell(one.limit, ",.0f"),
            cell(one.ratios, ".2f"),
            "" if one.case.aim is None else f"{one.case.aim}",
        )
    Console().print(table)


def as_json(measurements: list[Measurement]) -> str:
    """All numbers, with what they were taken on."""
    packages = ("blazen-trio", "trio", "SQLAlchemy", "attrs", "cattrs", "orjson")
    return json.dumps(
        {
            "machine": platform.platform(),
            "python": sys.version.split()[0],
            "sqlite": sqlite3.sqlite_version,
            "packages": {name: version(name) for name in packages},
            "cases": [
                {
                    "name": one.case.name,
                    "steps": one.case.steps,
                    "limit_name": one.case.limit_name,
                    "aim": one.case.aim,
                    "ours": one.ours,
                    "limit": one.limit,
                    "ratios": one.ratios,
                }
                for one in measurements
            ],
        },
        indent=2,
    )


def main() -> None:
    """Measure what the command line says, print it, and write it where it says."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure the engine beside its limits.")
    names = [case.name for case in CASES]
    parser.add_argument("--only", action="append", choices=names, help="only this case; may be given several times")
    parser.add_argument("--repeat", type=int, default=5, help="repetitions of each side (default: 5)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all numbers there as well")
    parser.add_argument("--dir", type=Path, default=Path(), help="on the disk to be measured (default: this folder)")
    options = parser.parse_args()
    if options.repeat < 1:
        parser.error("--repeat is at least 1")
    chosen = [case for case in CASES if not options.only or case.name in options.only]
    bar = track(chosen, "measuring", console=Console(stderr=True), transient=True)
    measurements = [measure(case, options.repeat, options.dir) for case in bar]
    show(measurements)
    if options.json:
        options.json.write_text(as_json(measurements) + "\n")


if __name__ == "__main__":
    main()
