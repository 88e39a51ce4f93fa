"""Reports of measurements, as tables and as JSON."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import attrs
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.databases import new_database, version_of
from benchmarks.harness import Aim, Measurement, Spread

_PACKAGES = ("blazen-trio", "trio", "SQLAlchemy", "attrs", "cattrs", "orjson")


def number(value: float) -> str:
    """Format a number with its significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def cell(numbers: list[float]) -> str:
    """Format numbers as their median, with the least and the greatest below it."""
    spread = Spread.of(numbers)
    return f"{number(spread.median)}\n[dim]{number(spread.least)}-{number(spread.greatest)}[/dim]"


def show(measurements: Iterable[Measurement], console: Console) -> None:
    """Print a table for each unit."""
    by_unit: dict[str, list[Measurement]] = {}
    for one in measurements:
        by_unit.setdefault(one.unit, []).append(one)
    for unit, members in by_unit.items():
        table = Table(title=f"{unit}: median, least-greatest", box=box.SIMPLE, padding=(0, 1, 1, 0))
        table.add_column("case\n[dim]its limit[/dim]", no_wrap=True)
        for heading in ("blazen_trio", "limit", "ratio", "aim"):
            table.add_column(heading, justify="right", no_wrap=True)
        for one in members:
            table.add_row(
                f"{one.name}\n[dim]{one.limit_name}[/dim]",
                cell(one.ours),
                cell(one.limit),
                cell(one.ratios),
                aim_of(one),
            )
        console.print(table)


def aim_of(one: Measurement) -> str:
    """Format a measurement's aim, and mark it if it was missed."""
    if one.aim is None:
        return ""
    unit = "" if one.aim.of_ratio else f" {one.unit.split()[0]}"
    return f"{one.aim}{unit}" + ("" if one.aim.is_met(one) else "\n[bold red]missed[/bold red]")


def surroundings(kinds: set[str], folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the conditions of the measurements: machine, versions, settings."""
    found = {}
    for kind in sorted(kinds):
        with new_database(kind, folder) as url:
            found[kind] = version_of(url)
    return {
        "machine": platform.platform(),
        "cpus": os.cpu_count(),
        "python": sys.version.split()[0],
        "databases": found,
        "packages": {name: version(name) for name in _PACKAGES},
        "settings": dict(settings),
    }


def as_json(measurements: Iterable[Measurement]) -> list[dict[str, Any]]:
    """Return all numbers as JSON. It includes the ratios, for readers without this program."""
    return [{**attrs.asdict(one), "ratios": one.ratios} for one in measurements]


def from_json(found: Iterable[Mapping[str, Any]]) -> list[Measurement]:
    """Return the measurements that `as_json` has turned into JSON."""
    return [
        Measurement(
            **{
                **{name: value for name, value in one.items() if name != "ratios"},
                "aim": Aim(**one["aim"]) if one["aim"] else None,
                "curve": (one["curve"][0], one["curve"][1]) if one["curve"] else None,
            }
        )
        for one in found
    ]
