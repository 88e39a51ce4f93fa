"""Draw the scaling curves as SVG: `python -m benchmarks.plots RESULTS.json FOLDER`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from benchmarks.compare import read
from benchmarks.harness import Measurement, Spread


def curves(measurements: Iterable[Measurement]) -> dict[str, list[Measurement]]:
    """Return the points of each curve, sorted by size."""
    found: dict[str, list[Measurement]] = {}
    for one in measurements:
        if one.curve is not None:
            found.setdefault(one.curve[0], []).append(one)
    return {name: sorted(points, key=_place) for name, points in found.items() if len(points) > 1}


def _place(point: Measurement) -> int:
    assert point.curve is not None
    return point.curve[1]


def write(measurements: Iterable[Measurement], folder: Path) -> list[Path]:
    """Draw each curve with its spreads into a file with the curve's name. Return the files.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _draw(name, points, folder / f"{name}.svg") for name, points in curves(measurements).items()
    ]


def _draw(name: str, points: list[Measurement], file: Path) -> Path:
    # Imported here because it is an optional dependency, and slow to import.
    matplotlib = import_module("matplotlib")
    matplotlib.rcParams["svg.hashsalt"] = name  # so that the same numbers make the same file
    figure = import_module("matplotlib.figure").Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    _, _, axis = (
        points[-1].limit_name.partition(" ")
        if points[-1].limit_name.startswith("at ")
        else ("", "", "")
    )
    # If there is an axis, the limit is the curve's first point and needs no line of its own.
    _line(axes, points, "blazen_trio", [one.ours for one in points])
    if not axis:
        _line(axes, points, points[0].limit_name, [one.limit for one in points])
        axes.legend()
    axes.set_xscale("log")
    axes.set_xlabel(axis.partition(" ")[2] or "width")
    axes.set_ylabel(points[0].unit)
    axes.set_title(name)
    axes.grid(visible=True, alpha=0.3)
    if points[0].more_is_better:
        axes.set_ylim(bottom=0)
    else:
        axes.set_yscale("log")
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file


def _line(axes: object, points: list[Measurement], label: str, numbers: list[list[float]]) -> None:
    spreads = [Spread.of(one) for one in numbers]
    errors = [[s.median - s.least for s in spreads], [s.greatest - s.median for s in spreads]]
    places = [_place(one) for one in points]
    axes.errorbar(  # type: ignore[attr-defined]
        places, [s.median for s in spreads], yerr=errors, marker="o", capsize=3, label=label
    )


def main() -> None:
    """Draw the curves in a file of results."""
    parser = argparse.ArgumentParser(prog="benchmarks.plots", description=__doc__)
    parser.add_argument("results", type=Path, help="a file from `python -m benchmarks --json`")
    parser.add_argument("folder", type=Path, help="the folder for the SVG files")
    options = parser.parse_args()
    for file in write(read(options.results), options.folder):
        print(file)


if __name__ == "__main__":
    main()
