"""Display of runs: tables for people, plain if written to a file or a pipe, or JSON.

A table fits the terminal. Columns that must be read whole stay whole; the others are shortened or
dropped in an order that each table defines.
"""

from __future__ import annotations

import datetime as dt
import io
import json
from typing import IO, TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from blazen_trio._cli.output import clean, json_line
from blazen_trio._cli.streams import at_terminal, stdout_encoding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import ConsoleOptions, RenderableType, RenderResult

__all__ = [
    "RECORD_GIVES_WAY",
    "ago",
    "cell",
    "fields",
    "instant",
    "make_console",
    "print_json",
    "record_row",
    "short_json",
    "show",
    "status_text",
    "table",
    "without_id",
]


_GAP: Final = 2
_LEAST: Final = 10
"""The least width of a last column that is cut by default, in characters."""


def table(
    *headings: str,
    rows: Iterable[Sequence[str | Text]],
    gives_way: Sequence[tuple[str, int | slice]] = (),
) -> _Table:
    """Make a table without lines, as wide as necessary, but at most as wide as the terminal.

    Args:
        headings: The columns.
        rows: Their cells.
        gives_way: The measures taken, one after the other, until the table fits: (heading, how). A
            number cuts the column to at least that many characters, and 0 drops it; a slice is
            applied to each cell. By default the last column is cut. Columns not named here are
            never hidden: if nothing else helps, a cell continues on the next line.
    """
    return _Table(
        headings,
        [[cell(one) for one in row] for row in rows],
        gives_way or [(headings[-1], _LEAST)],
    )


class _Table:
    """A table that is laid out for each width: rich would shrink the widest columns first."""

    def __init__(
        self,
        headings: Sequence[str],
        rows: Sequence[Sequence[Text]],
        gives_way: Sequence[tuple[str, int | slice]],
    ) -> None:
        self._columns = {
            heading: [row[index] for row in rows] for index, heading in enumerate(headings)
        }
        self._gives_way = gives_way

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        columns, cut = self._fitted(options.max_width)
        # Gaps are columns of their own: versions of rich differ in whether the padding is part of a
        # column's width.
        made = Table(box=None, pad_edge=False, padding=0, header_style="bold")
        for index, heading in enumerate(columns):
            if index:
                made.add_column(width=_GAP)
            if heading in cut:
                made.add_column(heading, overflow="ellipsis", no_wrap=True, width=cut[heading])
            else:
                made.add_column(heading, overflow="fold")
        for row in zip(*columns.values(), strict=True):
            made.add_row(row[0], *(part for one in row[1:] for part in ("", one)))
        yield made

    def _fitted(self, room: int) -> tuple[dict[str, Sequence[Text]], dict[str, int]]:
        """Return the columns that are left, and the widths of those that are cut."""
        columns: dict[str, Sequence[Text]] = dict(self._columns)
        widths = {heading: _width(heading, cells) for heading, cells in columns.items()}
        cut: dict[str, int] = {}
        for heading, how in self._gives_way:
            over = sum(widths.values()) + _GAP * (len(widths) - 1) - room
            if over <= 0:
                break
            if how == 0:
                del columns[heading], widths[heading]
                cut.pop(heading, None)
            elif isinstance(how, slice):
                columns[heading] = [one[how] for one in columns[heading]]
                widths[heading] = _width(heading, columns[heading])
            else:
                widths[heading] = cut[heading] = min(
                    widths[heading], max(how, widths[heading] - over)
                )
        # Dropping a column may have freed more room than necessary.
        spare = room - sum(widths.values()) - _GAP * (len(widths) - 1)
        for heading, width in cut.items():
            cut[heading] = min(width + max(spare, 0), _width(heading, columns[heading]))
            spare -= cut[heading] - width
        return columns, cut


def _width(heading: str, cells: Sequence[Text]) -> int:
    return max([len(heading), *(one.cell_len for one in cells)])


_STYLES: Final = {
    "queued": "cyan",
    "running": "blue",
    "paused": "magenta",
    "waiting": "yellow",
    "completed": "green",
    "failed": "red",
    "timed_out": "red",
    "cancelled": "bright_black",
}
_UNBOUNDED: Final = 1_000_000
"""The width of output that is not a terminal: nothing is cut there."""
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def print_json(document: Any) -> None:
    """Print a JSON document on one line."""
    click.echo(json_line(document, stdout_encoding()))


RECORD_GIVES_WAY: Final = (
    ("DURATION", 0),
    ("EVENT", 0),
    ("STEP", 8),
    ("ERROR", 10),
    ("ERROR", 0),
    ("TIME", 0),
)
"""The last measures to make a table of history records fit; see `table`."""


def make_console(file: IO[str] | None = None, **settings: Any) -> Console:
    """Make a console that writes to stdout or to this file."""
    return Console(file=file, highlight=False, markup=False, emoji=False, **settings)


def show(*parts: RenderableType) -> None:
    """Print on stdout.

    If that is not a terminal, the output is as wide as necessary, and has no colours unless a
    variable requests them.
    """
    console = make_console()
    if at_terminal():
        console.print(*parts, sep="\n")
        return
    text, coloured = io.StringIO(), console.is_terminal
    plain = make_console(text, width=_UNBOUNDED, force_terminal=coloured)
    plain.print(*parts, sep="\n")
    shown = "\n".join(line.rstrip() for line in text.getvalue().splitlines())
    click.echo(shown, color=coloured)


def fields(pairs: Mapping[str, str | Text]) -> Table:
    """Make a table of names and values."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs.items():
        made.add_row(cell(name), cell(value))
    return made


def cell(value: str | Text) -> Text:
    """Return literal text: nothing in it is markup."""
    return value if isinstance(value, Text) else Text(clean(value))


def status_text(status: str) -> Text:
    """Return a run's status, coloured."""
    return Text(status, style=_STYLES.get(status, ""))


def instant(moment: str | None) -> str:
    """Format an instant of the JSON forms for people: UTC, to the second."""
    return "" if moment is None else moment[:19].replace("T", " ") + "Z"


def ago(moment: str) -> str:
    """Return how long ago an instant of the JSON forms is, in words."""
    seconds = int((dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(moment)).total_seconds())
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{seconds // length}{unit} ago"
    return "now"


def short_json(value: Any, width: int | None) -> str:
    """Return a value as JSON on one line, cut to this many characters; `None`: uncut."""
    text = clean(json.dumps(value, ensure_ascii=False))
    return text if width is None or len(text) <= width else text[: width - 3] + "..."


def record_row(record: Mapping[str, Any]) -> list[str]:
    """Return a history record as a table row: time, kind, step, event, duration, error."""
    duration = record["duration"]
    return [
        instant(record["timestamp"]),
        record["kind"],
        record["step"] or "",
        record["event_type"] or "",
        "" if duration is None else f"{duration:.3f} s",
        record["error"] or "",
    ]


def without_id(error: str | None, run_id: str) -> str:
    """Return a run's error for a terminal, without the run's id: the reader knows the id, and on a
    narrow line it would leave no room for the rest.
    """
    return (error or "").replace(f" of run {run_id!r}", "", 1)
