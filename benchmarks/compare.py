"""Compare two result files of `python -m benchmarks --json` to see the effect of a change.

The command is `python -m benchmarks.compare OLD.json NEW.json`. It compares ratios, not seconds,
because other load on the machine affects both sides of a ratio. The change of the engine's own
speed is shown next to the ratio's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import attrs
from rich.console import Console
from rich.table import Table

from benchmarks.harness import Measurement, Spread
from benchmarks.report import from_json, number


@attrs.frozen
class Change:
    """The change of one measurement.

    Attributes:
        name: The measurement's name.
        old: The ratios before.
        new: The ratios now.
        ours: The engine's own median now, divided by the one before.
        verdict: `"better"` or `"worse"` if the ranges of the ratios before and now do not overlap,
            else `"as before"`.
    """

    name: str
    old: Spread
    new: Spread
    ours: float
    verdict: str


def read(file: Path) -> list[Measurement]:
    """Return the measurements in a file that was written with `--json`."""
    return from_json(json.loads(file.read_text())["measurements"])


def changes(old: Sequence[Measurement], new: Sequence[Measurement]) -> list[Change]:
    """Return the changes of all measurements that are in both, in the order of the new ones."""
    before = {one.name: one for one in old}
    return [_change(before[one.name], one) for one in new if one.name in before]


def _change(old: Measurement, new: Measurement) -> Change:
    # The limit of a curve's points is its first point, whose own ratio is therefore always 1.
    was, now = (Spread.of(one.ratios if one.ours != one.limit else one.ours) for one in (old, new))
    verdict = "as before"
    if now.least > was.greatest:
        verdict = "better" if new.more_is_better else "worse"
    elif now.greatest < was.least:
        verdict = "worse" if new.more_is_better else "better"
    return Change(
        new.name, was, now, Spread.of(new.ours).median / Spread.of(old.ours).median, verdict
    )


def show(found: Sequence[Change], console: Console) -> None:
    """Print the table."""
    table = Table(
        title="what has changed: ratios to the limit, median and least-greatest",
        caption="better, worse: the ranges before and now do not overlap",
    )
    table.add_column("case")
    for heading in ("before", "now", "change", "engine's own", ""):
        table.add_column(heading, justify="right")
    colours = {"better": "green", "worse": "red"}
    for one in found:
        table.add_row(
            one.name,
            *(
                f"{number(side.median)} ({number(side.least)}-{number(side.greatest)})"
                for side in (one.old, one.new)
            ),
            f"{one.new.median / one.old.median - 1:+.0%}",
            f"{one.ours - 1:+.0%}",
            one.verdict,
            style=colours.get(one.verdict),
        )
    console.print(table)


def main() -> None:
    """Compare the two files that the command line names."""
    parser = argparse.ArgumentParser(prog="benchmarks.compare", description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    options = parser.parse_args()
    show(changes(read(options.old), read(options.new)), Console())


if __name__ == "__main__":
    main()
