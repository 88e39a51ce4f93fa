"""`runs watch`: the progress of a run, no matter which process drives it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import click
import trio
from rich.console import Group
from rich.live import Live
from rich.text import Text

from blazen_trio._cli.arguments import Id
from blazen_trio._cli.commands import Command, Seconds, db_option, json_option, option
from blazen_trio._cli.exits import RUN_EXIT_CODES, STATUS_CODES
from blazen_trio._cli.output import clean
from blazen_trio._cli.runs import forms
from blazen_trio._cli.runs.opened import look
from blazen_trio._cli.runs.reading import outcome_parts
from blazen_trio._cli.runs.tables import (
    RECORD_GIVES_WAY,
    instant,
    make_console,
    print_json,
    record_row,
    show,
    status_text,
    table,
    without_id,
)
from blazen_trio._cli.streams import at_terminal
from blazen_trio._stores.base import history_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rich.console import RenderableType

    from blazen_trio._stores.protocol import StoredRun
    from blazen_trio._stores.sql.reading import SqlLooks

__all__ = ["COMMANDS"]

_AROUND: Final = 8
"""Lines of the screen that are not for the history."""
_GIVES_WAY: Final = (
    ("ERROR", 20),
    ("STEP", 12),
    ("EVENT", 12),
    *RECORD_GIVES_WAY,
)


@click.command("watch", cls=Command, epilog=RUN_EXIT_CODES)
@click.argument("run_id", metavar="ID", type=Id())
@db_option
@option("--interval", group="Output", type=Seconds(min=0, min_open=True), default=0.5,
        help="Poll at this interval. Each poll reads everything stored about the run.")  # fmt: skip
@json_option("Print one JSON object per line, for each change.", group="Output")
@click.pass_context
def watch(context: click.Context, run_id: str, db: str, interval: float, as_json: bool) -> None:
    """Watch a run until it has ended.

    Shows the status of the run, its pending steps, and the last records of its history. A run that
    waits or is paused is still watched. The exit code says how the run ended. In JSON, each line
    has a "type": "status" for the run's status, or "record" for a record of its history.
    """
    last: list[StoredRun] = []

    async def follow(store: SqlLooks) -> None:
        with ExitStack() as stack:
            changes = _Changes()
            tell = _teller(stack, as_json=as_json)
            while True:
                stored = await store.load(run_id)
                for line in changes.since(stored):
                    tell(line)
                if stored.info.status.ended:
                    last.append(stored)
                    return
                await trio.sleep(interval)

    look(db, follow)
    [stored] = last
    if not as_json:
        show(*outcome_parts(forms.outcome_form(stored)))
    context.exit(STATUS_CODES[stored.info.status])


class _Changes:
    """The changes since the last read."""

    def __init__(self) -> None:
        self._status: dict[str, Any] | None = None
        self._sequence = 0

    def since(self, stored: StoredRun) -> Iterable[dict[str, Any]]:
        """Yield a line for each new record, and one for the run's status if it has changed."""
        for record in history_of(stored):
            if record.sequence > self._sequence:
                self._sequence = record.sequence
                yield {"type": "record", **forms.record_form(record)}
        status = {"type": "status", **forms.progress_form(stored)}
        if status != self._status:
            self._status = status
            yield status


def _teller(stack: ExitStack, *, as_json: bool) -> Callable[[dict[str, Any]], None]:
    """Return a function that shows a line as JSON, as text, or in a redrawn part of the screen."""
    console = make_console()
    if as_json:
        return print_json
    if not at_terminal() or console.is_dumb_terminal:  # which can't be drawn on anew
        return lambda line: click.echo(_plain(line))
    live = stack.enter_context(Live(console=console, auto_refresh=False))
    records: list[dict[str, Any]] = []

    def draw(line: dict[str, Any]) -> None:
        if line["type"] == "record":
            records.append(line)  # drawn with the status that follows, or with the next one
            del records[: -max(1, console.height - _AROUND)]
        else:
            live.update(_picture(line, records), refresh=True)

    return draw


def _plain(line: dict[str, Any]) -> str:
    if line["type"] == "record":
        return clean("  ".join(part for part in record_row(line) if part))
    return clean(f"{instant(line['updated'])}  {line['status']}  {_how_far(line)}")


def _how_far(status: dict[str, Any]) -> str:
    undone = ", ".join(f"{step} x{count}" for step, count in status["undone"].items())
    parts = [f"entry {status['seq']}"]
    parts += [f"undone: {undone}"] if undone else []
    parts += [f"delayed events: {status['delayed']}"] if status["delayed"] else []
    parts += [f"asks: {one['prompt']}" for one in status["questions"]]
    return "; ".join(parts)


def _picture(status: dict[str, Any], records: Sequence[dict[str, Any]]) -> RenderableType:
    title = Text.assemble(
        (f"run {clean(status['run_id'])} of {clean(status['workflow'])}  ", "bold"),
        status_text(status["status"]),
    )
    told = (
        {**record, "error": without_id(record["error"], status["run_id"])} for record in records
    )
    rows = ([row[0][11:-1], *row[1:]] for row in map(record_row, told))  # of the time, no date
    return Group(
        title,
        Text(clean(_how_far(status)), overflow="ellipsis", no_wrap=True),
        table(
            "TIME", "KIND", "STEP", "EVENT", "DURATION", "ERROR", rows=rows, gives_way=_GIVES_WAY
        ),
    )


COMMANDS: Sequence[click.Command] = (watch,)
