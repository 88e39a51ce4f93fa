"""Print the tables of `README.md` from results: `python -m benchmarks.markdown RESULTS.json`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.harness import Measurement, Spread
from benchmarks.peers.runner import Result
from benchmarks.report import from_json, number


def measured(measurements: Iterable[Measurement]) -> Iterator[str]:
    """Yield a line for each measurement, under a heading for each unit."""
    unit = ""
    for one in measurements:
        if one.unit != unit:
            unit = one.unit
            yield from (
                "",
                f"| {unit} | blazen_trio | limit | ratio | aim |",
                "|---|---|---|---|---|",
            )
        ours, limit = (number(Spread.of(side).median) for side in (one.ours, one.limit))
        aim = "" if one.aim is None else f"{one.aim}" if one.aim.is_met(one) else f"**{one.aim}**"
        yield f"| `{one.name}` | {ours} | {limit} | {spread(one.ratios)} | {aim} |"


def spread(numbers: list[float]) -> str:
    """Return the median, least and greatest of some numbers, as text."""
    found = Spread.of(numbers)
    return f"{number(found.median)} ({number(found.least)}-{number(found.greatest)})"


def peers(results: Sequence[Result]) -> Iterator[str]:
    """Yield a line for each engine and workload. A ratio above this engine's is bold."""
    yield from (
        "",
        "| workload | engine | steps/s | ratio to blazen_trio | syncs per step |",
        "|---|---|---|---|---|",
    )
    for one in results:
        if one.reason:
            continue
        ratio = (
            spread(one.ratios) if Spread.of(one.ratios).median <= 1 else f"**{spread(one.ratios)}**"
        )
        syncs = "" if one.syncs is None else f"{one.syncs:.2f}"
        steps = number(Spread.of(one.per_second).median)
        yield f"| `{one.work}` | {one.peer} {one.version} | {steps} | {ratio} | {syncs} |"


def main() -> None:
    """Print the tables of the results that the command line names."""
    parser = argparse.ArgumentParser(prog="benchmarks.markdown", description=__doc__)
    parser.add_argument("results", type=Path, help="a file from `python -m benchmarks --json`")
    found = json.loads(parser.parse_args().results.read_text())
    lines = [*measured(from_json(found["measurements"]))]
    if found["peers"]:
        lines += peers([Result(**one) for one in found["peers"]])
    print("\n".join(lines).strip())


if __name__ == "__main__":
    main()
