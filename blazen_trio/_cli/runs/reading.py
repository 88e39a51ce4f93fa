"""`runs list`, `runs show`, `runs history`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click
from rich.text import Text

from blazen_trio import RunStatus
from blazen_trio._cli.arguments import Id
from blazen_trio._cli.commands import Command, db_option, json_option, option
from blazen_trio._cli.exits import RUN_EXIT_CODES
from blazen_trio._cli.output import clean, quoted
from blazen_trio._cli.runs import forms
from blazen_trio._cli.runs.opened import look
from blazen_trio._cli.runs.tables import (
    RECORD_GIVES_WAY,
    ago,
    cell,
    fields,
    instant,
    print_json,
    record_row,
    short_json,
    show,
    status_text,
    table,
    without_id,
)
from blazen_trio._cli.streams import at_terminal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

__all__ = ["COMMANDS", "outcome_parts"]

_STATUSES: Final = tuple(status.value for status in RunStatus)
_WIDTH: Final = 100
"""At most this many characters of a value are shown."""
_ROWS: Final = 20
"""At most this many rows of a list are shown."""
_LIST_GIVES_WAY: Final = (
    ("ERROR", 20),
    ("CREATED", slice(20)),  # without how long ago it was
    ("WORKFLOW", 16),
    ("VERSION", 0),
    ("CREATED", slice(10)),  # the date
    ("UPDATED", 0),
    ("CREATED", 0),
    ("WORKFLOW", 8),
    ("ERROR", 10),
    ("ERROR", 0),
    ("WORKFLOW", 0),
)
_HISTORY_GIVES_WAY: Final = (
    ("ERROR", 20),
    ("TIME", slice(5, 19)),  # without the year
    ("STEP", 12),
    ("EVENT", 12),
    ("TIME", slice(6, 14)),  # and without the date
    ("#", 0),
    *RECORD_GIVES_WAY,
)

_json = json_option("Print one JSON object.", group="Output")


@click.command("list", cls=Command, epilog=RUN_EXIT_CODES)
@db_option
@option("--status", "statuses", group="Filter", multiple=True, type=click.Choice(_STATUSES),
        show_default=False,
        help="List only runs with this status; may be given several times.")  # fmt: skip
@option("--workflow", group="Filter", type=Id(), metavar="NAME", show_default=False,
        help="List only runs of the workflow with this name.")  # fmt: skip
@option(
    "--limit",
    group="Page",
    type=click.IntRange(1, 10_000),
    metavar="N",
    default=50,
    help="List at most this many runs.",
)
@option("--after", group="Page", type=Id(), metavar="ID", show_default=False,
        help="List only the runs after this one, the last of the previous page.")  # fmt: skip
@_json
def list_runs(
    db: str,
    statuses: tuple[str, ...],
    workflow: str | None,
    limit: int,
    after: str | None,
    as_json: bool,
) -> None:
    """List the runs, oldest first, in pages.

    If there are more runs, the id for --after is printed on stderr; in JSON it is "next".
    """
    # One more than is shown, to know whether there is another page.
    found = look(
        db,
        lambda store: store.list_runs(
            status=statuses or None, workflow=workflow, limit=limit + 1, after=after
        ),
    )
    runs = [forms.run_form(info) for info in found[:limit]]
    following = runs[-1]["run_id"] if len(found) > limit else None
    if as_json:
        print_json({"runs": runs, "next": following})
        return
    terminal = at_terminal()
    rows = (
        [
            run["run_id"],
            run["workflow"],
            run["version"],
            status_text(run["status"]),
            f"{instant(run['created'])} ({ago(run['created'])})",
            ago(run["updated"]),
            without_id(run["error"], run["run_id"]) if terminal else run["error"] or "",
        ]
        for run in runs
    )
    headings = ("ID", "WORKFLOW", "VERSION", "STATUS", "CREATED", "UPDATED", "ERROR")
    show(table(*headings, rows=rows, gives_way=_LIST_GIVES_WAY))
    if following is not None:
        click.echo(f"there are more: --after={quoted(following)}", err=True)


@click.command("show", cls=Command, epilog=RUN_EXIT_CODES)
@click.argument("run_id", metavar="ID", type=Id())
@db_option
@option(
    "--full",
    group="Output",
    is_flag=True,
    show_default=False,
    help="Show long values and lists completely. JSON output is always complete.",
)
@_json
def show_run(run_id: str, db: str, full: bool, as_json: bool) -> None:
    """Show a run in detail.

    Shows its status, its metadata and state, pending deliveries and half-collected events, its open
    questions, its result, and why it failed.
    """
    stored = look(db, lambda store: store.load(run_id))
    details = forms.details_form(stored)
    if as_json:
        print_json(details)
    else:
        show(*_details_parts(details, None if full else _WIDTH, None if full else _ROWS))


def _details_parts(
    details: dict[str, Any], width: int | None, count: int | None
) -> Iterable[RenderableType]:
    limit = "" if details["timeout"] is None else f" of {details['timeout']:g} s"
    more = {
        "elapsed": f"{details['elapsed']:.3f} s{limit}",
        "entries": str(details["seq"]),
        "crashes": str(details["crashes"] or ""),
        "error": "" if RunStatus(details["status"]).ended else _cut(details["error"] or "", width),
        "inbox": f"{details['inbox']} not taken yet" if details["inbox"] else "",
    }
    yield fields(_line(details) | {name: value for name, value in more.items() if value})
    for title in ("metadata", "state"):
        pairs = {key: short_json(value, width) for key, value in details[title].items()}
        yield from _section(title, pairs, fields)
    yield from _list_parts(details, width, count)
    yield from outcome_parts(details, width)
    failure = details["failure"] or {}
    yield from _section(
        "traceback", failure.get("traceback"), lambda text: Text(clean(text.rstrip(), lines=True))
    )


def _cut(text: str, width: int | None) -> str:
    """Cut a text to about five lines, unless everything is to be shown."""
    most = None if width is None else 5 * width
    return text if most is None or len(text) <= most else f"{text[:most]}... (--full shows all)"


def _line(run: dict[str, Any]) -> dict[str, str | Text]:
    return {
        "run": run["run_id"],
        "workflow": f"{run['workflow']} (version {run['version']})"
        if run["version"]
        else run["workflow"],
        "status": status_text(run["status"]),
        "created": f"{instant(run['created'])} ({ago(run['created'])})",
        "updated": f"{instant(run['updated'])} ({ago(run['updated'])})",
    }


def _section(title: str, content: Any, make: Any) -> Iterable[RenderableType]:
    if content:
        yield Text(f"\n{title}", style="bold underline")
        yield make(content)


def _list_parts(
    details: dict[str, Any], width: int | None, count: int | None
) -> Iterable[RenderableType]:
    """Yield pending deliveries, delayed events and collected events; of many, the first."""

    def event(one: dict[str, Any]) -> str:
        return f"{one['event_type']} {short_json(one['data'], width)}"

    deliveries = [
        [
            one["step"],
            str(one["attempt"]),
            instant(one["due"]),
            ", ".join(event(each) for each in one["events"]),
        ]
        for one in details["deliveries"][:count]
    ]
    delayed = [[instant(one["due"]), event(one["event"])] for one in details["delayed"][:count]]
    collected = [[one["step"], event(one["event"])] for one in details["collected"][:count]]
    for name, title, headings, rows in (
        ("deliveries", "undone deliveries", ("STEP", "ATTEMPT", "DUE", "EVENT"), deliveries),
        ("delayed", "delayed events", ("DUE", "EVENT"), delayed),
        ("collected", "half collected", ("STEP", "EVENT"), collected),
    ):
        left = len(details[name]) - len(rows)
        yield from _section(
            f"{title} ({len(details[name])})", rows, lambda rows, h=headings: table(*h, rows=rows)
        )
        if left:
            yield Text(f"and {left} more: --full shows them")


def outcome_parts(run: dict[str, Any], width: int | None = None) -> Iterable[RenderableType]:
    """Yield a run's open questions, its failure and its result."""
    for question in run["questions"]:
        pairs = {
            "request id": question["request_id"],
            "type": question["event_type"],
            "prompt": str(question["prompt"]),
        }
        metadata = dict(question["metadata"]) if isinstance(question["metadata"], dict) else {}
        if isinstance(choices := metadata.pop("choices", None), list):
            pairs["choices"] = ", ".join(short_json(one, width) for one in choices)
        if metadata:
            pairs["metadata"] = short_json(metadata, width)
        if not RunStatus(run["status"]).ended:
            pairs["answer"] = _answering(run["run_id"], question["request_id"])
        yield from _section("question", pairs, fields)
    if (failure := run["failure"]) is not None:
        told = ("kind", "step", "attempts", "error_type")
        pairs = {
            name.replace("_", " "): str(failure[name]) for name in told if failure[name] is not None
        }
        yield from _section("error", pairs, fields)
        yield Text(clean(failure["message"], lines=True))
    if run["status"] == "completed":
        yield from _section("result", short_json(run["result"], width), cell)


def _answering(run_id: str, request_id: str) -> str:
    """Return the command that answers a question. Users choose ids: none may act as an option."""
    return f"blazen-trio runs respond --request-id={quoted(request_id)} -- {quoted(run_id)} JSON"


@click.command("history", cls=Command, epilog=RUN_EXIT_CODES)
@click.argument("run_id", metavar="ID", type=Id())
@db_option
@option("--last", group="Output", type=click.IntRange(min=1), metavar="N", show_default=False,
        help="Print only the last N records.")  # fmt: skip
@_json
def history(run_id: str, db: str, last: int | None, as_json: bool) -> None:
    """Print the history of a run.

    The oldest record comes first, over all processes that drove the run. A workflow made with
    history=True records every attempt of every step; others only the start, the end and failures.
    """
    records = look(db, lambda store: store.history(run_id))
    told = [forms.record_form(record) for record in (records[-last:] if last else records)]
    if as_json:
        print_json({"run_id": run_id, "history": told})
        return
    if at_terminal():
        told = [{**one, "error": without_id(one["error"], run_id)} for one in told]
    rows = ([str(one["sequence"]), *record_row(one)] for one in told)
    headings = ("#", "TIME", "KIND", "STEP", "EVENT", "DURATION", "ERROR")
    show(table(*headings, rows=rows, gives_way=_HISTORY_GIVES_WAY))


COMMANDS: Sequence[click.Command] = (list_runs, show_run, history)
