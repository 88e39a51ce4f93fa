"""How runs are shown: tables for people, plain where they go to a file or a pipe; or JSON.

A table fits the terminal: what has to be read whole stays whole, and the rest gives way in an order
that each table says.
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
"""Characters of a last column of which nothing else is said."""


def table(
    *headings: str,
    rows: Iterable[Sequence[str | Text]],
    gives_way: Sequence[tuple[str, int | slice]] = (),
) -> _Table:
    """A table without lines, as wide as it has to be, or as the terminal is.

    Args:
        headings: The columns.
        rows: Their cells.
        gives_way: What is done, one after the other, until the table fits: (heading, how). A number cuts the column, to no fewer
            characters than that, and 0 leaves it out; a slice is what is left of each cell. By default the last column is cut. What
            is not named here is never hidden: a cell goes on in the next line where nothing else helps.
    """
    return _Table(
        headings,
        [[cell(one) for one in row] for row in rows],
        gives_way or [(headings[-1], _LEAST)],
    )


class _Table:
    """Made anew for each width: rich shrinks all columns alike, and those to be read whole first."""

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
        # Gaps are columns of their own: whether a padding is part of a column's width is another
        # matter in each version of rich.
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
        """The columns that are left, and the widths of those that are cut."""
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
        # A column that went may have left more room than was wanted.
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
"""Columns of what is no terminal: nothing is cut there."""
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def print_json(document: Any) -> None:
    """One JSON document, on one line."""
    click.echo(json_line(document, stdout_encoding()))


RECORD_GIVES_WAY: Final = (
    ("DURATION", 0),
    ("EVENT", 0),
    ("STEP", 8),
    ("ERROR", 10),
    ("ERROR", 0),
    ("TIME", 0),
)
"""What gives way last in a table of history records; see `tables.table`."""


def make_console(file: IO[str] | None = None, **settings: Any) -> Console:
    """What draws, on stdout or in this file."""
    return Console(file=file, highlight=False, markup=False, emoji=False, **settings)


def show(*parts: RenderableType) -> None:
    """Print on stdout; where that is no terminal, as wide as it has to be, and without colours, if
    no variable asks for them.
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
    """Names and values beside each other."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs.items():
        made.add_row(cell(name), cell(value))
    return made


def cell(value: str | Text) -> Text:
    """Text as it is meant: nothing in it is markup."""
    return value if isinstance(value, Text) else Text(clean(value))


def status_text(status: str) -> Text:
    """A run's status, coloured."""
    return Text(status, style=_STYLES.get(status, ""))


def instant(moment: str | None) -> str:
    """An instant of the JSON forms for people: UTC, to the second."""
    return "" if moment is None else moment[:19].replace("T", " ") + "Z"


def ago(moment: str) -> str:
    """How long ago an instant of the JSON forms is."""
    seconds = int((dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(moment)).total_seconds())
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{seconds // length}{unit} ago"
    return "now"


def short_json(value: Any, width: int | None) -> str:
    """A value as JSON on one line, cut to so many characters; `None`: whole."""
    text = clean(json.dumps(value, ensure_ascii=False))
    return text if width is None or len(text) <= width else text[: width - 3] + "..."


def record_row(record: Mapping[str, Any]) -> list[str]:
    """A record of a history, for a table: when, what, which step, which event, how long, what went wrong."""
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
    """A run's error at a terminal: who reads it knows the run's id, and a narrow line would have room for nothing else."""
    return (error or "").replace(f" of run {run_id!r}", "", 1)
