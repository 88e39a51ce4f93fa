"""`blazen-trio graph`: a workflow, or one of its runs, as a picture."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import click

from blazen_trio import Snapshot
from blazen_trio._cli.arguments import Id
from blazen_trio._cli.commands import Command, db_option, json_option, option
from blazen_trio._cli.exits import RUN_EXIT_CODES, RefusedError
from blazen_trio._cli.files import write_file
from blazen_trio._cli.output import clean, hide_passwords, json_line
from blazen_trio._cli.runs.asking import load_workflow, parse_target
from blazen_trio._cli.runs.opened import look
from blazen_trio._cli.streams import stdout_encoding
from blazen_trio._codec.codec import PLAIN
from blazen_trio._pictures.happened import graph_of
from blazen_trio._stores.base import fold
from blazen_trio.pictures import timeline_html, timeline_svg

if TYPE_CHECKING:
    from blazen_trio import Workflow
    from blazen_trio._cli.targets import Target

__all__ = ["graph"]

_STDOUT: Final = "-"
_SUFFIXES: Final = {
    ".mmd": "mermaid",
    ".mermaid": "mermaid",
    ".dot": "dot",
    ".gv": "dot",
    ".svg": "svg",
    ".html": "html",
    ".htm": "html",
}


@click.command("graph", cls=Command, epilog=RUN_EXIT_CODES)
@click.argument("target", metavar="PACKAGE.MODULE:WORKFLOW", callback=parse_target)
@option("--format", "form", group="Picture",
        type=click.Choice(["mermaid", "dot", "svg", "html"]), show_default=False,
        help="The picture's format. The default follows the name of the file; on stdout it is "
        "mermaid, or svg with --timeline. html is a page about one run, with its timeline, graph "
        "and history.")  # fmt: skip
@option("--timeline", group="Picture", is_flag=True, show_default=False,
        help="Draw the timeline of the run, with a bar for each attempt, as svg or "
        "html.")  # fmt: skip
@option("--run", "run_id", group="Picture", type=Id(), metavar="ID", show_default=False,
        help="Colour the graph by what happened in this run. Needs --db.")  # fmt: skip
@functools.partial(db_option, required=False)
@option("--output", "-o", group="Output", metavar="FILE", default=_STDOUT, show_default=False,
        type=click.Path(dir_okay=False, allow_dash=True),
        help="The file to write; by default stdout.")  # fmt: skip
@json_option("Print the nodes and edges of the graph as one JSON object.", group="Output")
def graph(
    target: Target,
    form: str | None,
    timeline: bool,
    run_id: str | None,
    db: str | None,
    output: str,
    as_json: bool,
) -> None:
    """Draw a workflow, or one of its runs.

    Without options, this prints the workflow's steps and events as a Mermaid flowchart.
    """
    form = form or _form_of(_STDOUT if as_json else output, timeline=timeline)
    if run_id is None and (timeline or form == "html"):
        msg = f"{'--timeline' if timeline else 'html'} is a picture of one run: name it, --run ID"
        raise click.UsageError(msg)
    if run_id is not None and db is None:
        msg = "--run needs the database that the run is in: --db URL, or BLAZEN_TRIO_DB"
        raise click.UsageError(msg)
    if timeline and form not in ("svg", "html"):
        msg = f"a timeline is svg or html, not {form}"
        raise click.UsageError(msg)
    workflow = load_workflow(target)
    snapshot = None if run_id is None or db is None else _load(db, run_id)
    if snapshot is not None and snapshot.workflow_name != workflow.name:
        raise RefusedError(
            f"run {run_id!r} is of workflow {snapshot.workflow_name!r}, but {target} is "
            f"{workflow.name!r}"
        )
    if as_json:
        drawn = json_line(graph_of(workflow, snapshot).to_data(), stdout_encoding()) + "\n"
    else:
        drawn = _draw(workflow, snapshot, form, timeline=timeline)
    if output == _STDOUT:
        click.echo(drawn, nl=False)
    else:
        write_file(Path(output), drawn.encode())
        click.echo(clean(f"wrote {output}"), err=True)


def _form_of(output: str, *, timeline: bool) -> str:
    """Return the format for a file's name."""
    if output == _STDOUT:
        return "svg" if timeline else "mermaid"
    suffix = Path(output).suffix.lower()
    if suffix not in _SUFFIXES:
        msg = f"{output!r} has no known format: use one of {', '.join(_SUFFIXES)}, or give --format"
        raise click.UsageError(msg)
    return _SUFFIXES[suffix]


def _load(url: str, run_id: str) -> Snapshot:
    """Load a run to draw, with the passwords of URLs in its errors hidden."""
    state = fold(look(url, lambda store: store.load(run_id)), PLAIN)
    if state.error is not None:
        state.error.message = hide_passwords(state.error.message, url)
    history = [
        record
        if record.error is None
        else attrs.evolve(record, error=hide_passwords(record.error, url))
        for record in state.history
    ]
    return Snapshot.from_state(state, history=history)


def _draw(workflow: Workflow, snapshot: Snapshot | None, form: str, *, timeline: bool) -> str:
    if snapshot is not None and form == "html":
        return timeline_html(snapshot, workflow)
    if snapshot is not None and timeline:
        return timeline_svg(snapshot) + "\n"
    if form == "svg":
        return workflow.to_svg(snapshot) + "\n"
    return workflow.to_dot(snapshot) if form == "dot" else workflow.to_mermaid(snapshot)
