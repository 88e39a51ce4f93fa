"""How runs are shown: tables for people, plain where they go to a file or a pipe; or JSON."""

from __future__ import annotations

import datetime as dt
import io
import json
from typing import IO, TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from blazen_trio._cli.escapes import clean, json_line
from blazen_trio._cli.streams import at_terminal, stdout_encoding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

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
    "without_id",
]

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
