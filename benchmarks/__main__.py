"""The command: `python -m benchmarks [--only NAME] [--repeat N] [--json FILE]`."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.cases import all_cases, chosen
from benchmarks.databases import available, new_database, tell_what_is_left_out, version_of
from benchmarks.harness import Measurement, Spread, measure


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


def versions(kinds: set[str], folder: Path) -> dict[str, str]:
    """What these databases call themselves."""
    found = {}
    for kind in sorted(kinds):
        with new_database(kind, folder) as url:
            found[kind] = version_of(url)
    return found


def as_json(measurements: list[Measurement], folder: Path) -> str:
    """All numbers, with what they were taken on."""
    packages = ("blazen-trio", "trio", "SQLAlchemy", "attrs", "cattrs", "orjson")
    return json.dumps(
        {
            "machine": platform.platform(),
            "python": sys.version.split()[0],
            "databases": versions({one.case.database for one in measurements if one.case.database}, folder),
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
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="this case, or all that begin so; several times, too",
    )
    parser.add_argument("--repeat", type=int, default=5, help="repetitions of each side (default: 5)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all numbers there as well")
    parser.add_argument("--dir", type=Path, default=Path(), help="on the disk to be measured (default: this folder)")
    options = parser.parse_args()
    if options.repeat < 1:
        parser.error("--repeat is at least 1")
    try:
        cases = chosen(all_cases(available()), options.only)
    except ValueError as error:
        parser.error(str(error))
    console = Console(stderr=True)
    bar = track(cases, "measuring", console=console, transient=True)
    measurements = [measure(case, options.repeat, options.dir) for case in bar]
    show(measurements)
    tell_what_is_left_out(console)
    if options.json:
        options.json.write_text(as_json(measurements, options.dir) + "\n")


if __name__ == "__main__":
    main()
