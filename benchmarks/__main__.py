"""The command `python -m benchmarks`. Its `--help` shows what else it can measure."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import attrs
from rich.console import Console
from rich.progress import track

from benchmarks import compare, imports, memory, plots
from benchmarks.cases import all_cases, named
from benchmarks.curves import all_curves, measure_curve
from benchmarks.databases import available, print_left_out
from benchmarks.harness import Measurement, measure
from benchmarks.peers import runner
from benchmarks.report import as_json, show, surroundings

Task = Callable[[], list[Measurement]]
"""A function that takes some measurements."""


def tasks(kinds: Sequence[str], repeat: int, folder: Path) -> dict[str, dict[str, Task]]:
    """Return everything that can be measured: by subject, then by a name for `--only`."""
    return {
        "cases": {
            case.name: partial(_one, partial(measure, case, repeat, folder))
            for case in all_cases(kinds)
        },
        "curves": {
            curve.name: partial(measure_curve, curve, repeat, folder) for curve in all_curves(kinds)
        },
        "memory": {"memory": partial(memory.measure_all, repeat, folder)},
        "imports": {"imports": partial(imports.measure_all, repeat)},
    }


def _one(function: Callable[[], Measurement]) -> list[Measurement]:
    return [function()]


def chosen(
    known: dict[str, dict[str, Task]], subjects: Sequence[str], names: Sequence[str]
) -> dict[str, Task]:
    """Return the tasks that the names stand for or, without names, those of the subjects.

    Raises:
        ValueError: A name matches nothing.
    """
    everything = {name: task for members in known.values() for name, task in members.items()}
    if names:
        meant = named(everything, names)
        return {name: task for name, task in everything.items() if name in meant}
    return {name: task for subject in subjects for name, task in known[subject].items()}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(
        prog="benchmarks", description="Measure the engine beside its limits."
    )
    found.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="measure only this case or curve, or all whose names start with it; may be repeated",
    )
    found.add_argument("--curves", action="store_true", help="also measure the scaling curves")
    found.add_argument(
        "--memory",
        action="store_true",
        help="also measure the memory of idle runs, and how fast they wake",
    )
    found.add_argument("--imports", action="store_true", help="also measure import times")
    found.add_argument(
        "--peers", action="store_true", help="also measure other engines on the same workloads"
    )
    found.add_argument(
        "--peers-dir",
        type=Path,
        default=Path(".benchmark-peers"),
        metavar="DIR",
        help="keep the environments of other engines here (default: %(default)s)",
    )
    found.add_argument(
        "--repeat", type=int, default=5, help="repetitions of each side (default: 5)"
    )
    found.add_argument("--json", metavar="FILE", type=Path, help="write all numbers to FILE")
    found.add_argument(
        "--plots", metavar="DIR", type=Path, help="draw the curves as SVG files in DIR"
    )
    found.add_argument(
        "--compare",
        metavar="OLD.json",
        type=Path,
        help="show what has changed since OLD.json was written",
    )
    found.add_argument(
        "--dir",
        type=Path,
        default=Path(),
        help="a folder on the disk to measure (default: the current folder)",
    )
    return found


def main() -> None:
    """Measure what the command line asks for. Print the results and write the files it names."""
    arguments = parser()
    options = arguments.parse_args()
    if options.repeat < 1:
        arguments.error("--repeat must be at least 1")
    old = compare.read(options.compare) if options.compare else []
    subjects = [
        "cases",
        *(name for name in ("curves", "memory", "imports") if getattr(options, name)),
    ]
    kinds = available()
    try:
        meant = chosen(tasks(kinds, options.repeat, options.dir), subjects, options.only)
    except ValueError as error:
        arguments.error(str(error))
    console = Console(stderr=True)
    bar = track(meant.values(), "measuring", console=console, transient=True)
    measurements = [one for task in bar for one in task()]
    show(measurements, Console())
    peers: list[runner.Result] = []
    if options.peers:
        works = [one for one in runner.works(kinds) if not options.only or one.name in meant]
        peers = runner.measure(works, options.repeat, options.dir, options.peers_dir, console)
        runner.show(peers, Console())
    print_left_out(console)
    if options.compare:
        compare.show(compare.changes(old, measurements), Console())
    if options.json:
        found = surroundings(set(kinds), options.dir, {"repeat": options.repeat})
        found["measurements"] = as_json(measurements)
        found["peers"] = [attrs.asdict(one) for one in peers]
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    if options.plots:
        plots.write(measurements, options.plots)


if __name__ == "__main__":
    main()
