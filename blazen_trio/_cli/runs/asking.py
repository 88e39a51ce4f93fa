"""`runs submit`, `runs send`, `runs respond`: new runs, events and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from blazen_trio import Delayed, InputResponseError, Workflow, open_runtime
from blazen_trio._cli.arguments import Id, Json, value_of
from blazen_trio._cli.commands import Command, Seconds, db_option, json_option, option
from blazen_trio._cli.exits import RUN_EXIT_CODES, ConfigError
from blazen_trio._cli.output import clean
from blazen_trio._cli.runs.events import make_answer, make_event
from blazen_trio._cli.runs.opened import with_store
from blazen_trio._cli.runs.tables import print_json
from blazen_trio._cli.targets import Target, load_workflows, parse_targets
from blazen_trio._dispatch.inbox import answered_in
from blazen_trio._stores.excerpts import asked_run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blazen_trio._stores.sql.store import SqlStore

__all__ = ["COMMANDS", "load_workflow", "parse_target", "text_option"]

_json = json_option("Print one JSON object.", group="Output")


def parse_target(context: click.Context, param: click.Parameter, text: str | None) -> Target | None:
    """Parse a single target: a callback for click."""
    return None if text is None else parse_targets(context, param, [text])[0]


def load_workflow(target: Target) -> Workflow:
    """Import the single workflow that a target names.

    Raises:
        ConfigError: It names no workflow, or several.
    """
    found = load_workflows([target])
    if len(found) > 1:
        names = ", ".join(repr(workflow.name) for workflow in found)
        raise ConfigError(f"{target} has several workflows ({names}): name the one of the run")
    return found[0]


_workflow_option = option(
    "--workflow", "target", group="Value", metavar="PACKAGE.MODULE:WORKFLOW", callback=parse_target,
    show_default=False,
    help="The code of the workflow, to check the event immediately. Without it, the driver of the "
    "run checks the event later."
)  # fmt: skip


def text_option(help_text: str) -> Callable[[Any], Any]:
    """Add the option `--text`."""
    return option(
        "--text", "as_text", group="Value", is_flag=True, show_default=False, help=help_text
    )


@click.command("submit", cls=Command, epilog=RUN_EXIT_CODES)
@click.argument("workflow", metavar="WORKFLOW", type=Id())
@click.argument("value", metavar="[JSON]", type=Json(), default=None, required=False)
@db_option
@option("--run-id", group="Run", type=Id(), metavar="ID", show_default=False,
        help="The id of the run; by default a new UUID. An id that is in use is "
        "refused.")  # fmt: skip
@option("--metadata", group="Run", type=Json(dict), metavar="JSON", show_default=False,
        help="A JSON object that is stored with the run.")  # fmt: skip
@option("--event-type", group="Value", type=Id(), metavar="TYPE", show_default=False,
        help="Start the run with an event of this type. The JSON argument is then an object with "
        "the fields of the event.")  # fmt: skip
@_workflow_option
@_json
def submit(
    workflow: str,
    value: Any,
    db: str,
    run_id: str | None,
    metadata: Any,
    event_type: str | None,
    target: Target | None,
    as_json: bool,
) -> None:
    """Queue a run for any worker that serves its workflow.

    WORKFLOW is the name of the workflow, and JSON is the input of the run. Prints the id of the
    run. Without --workflow, the worker that takes the run checks the input.
    """
    if event_type is not None and not isinstance(value, dict):
        raise click.UsageError("--event-type needs the event's fields, a JSON object")
    known = None if target is None else load_workflow(target)
    if known is not None and known.name != workflow:
        raise click.UsageError(f"{target} is workflow {known.name!r}, not {workflow!r}")
    begin = value_of(value) if event_type is None else make_event(known, event_type, value)
    given = None if metadata is None else value_of(metadata)

    async def queue(store: SqlStore) -> str:
        async with open_runtime(store) as runtime:
            return await runtime.submit(known or workflow, begin, run_id=run_id, metadata=given)

    submitted = with_store(db, queue, create=True)
    print_json({"run_id": submitted}) if as_json else click.echo(clean(submitted))


@click.command("send", cls=Command, epilog=RUN_EXIT_CODES)
@click.argument("run_id", metavar="ID", type=Id())
@click.argument("event_type", metavar="EVENT_TYPE", type=Id())
@click.argument("fields", metavar="[JSON]", type=Json(dict), default="{}")
@db_option
@option("--key", group="Event", type=Id(), metavar="KEY", show_default=False,
        help="The deduplication key of the event. For as long as the run is stored, a second event "
        "with the same key is not sent.")  # fmt: skip
@option(
    "--delay",
    group="Event",
    type=Seconds(min=0),
    show_default=False,
    help="Deliver the event after this delay.",
)
@_workflow_option
@_json
def send(
    run_id: str,
    event_type: str,
    fields: dict[str, Any],
    db: str,
    key: str | None,
    delay: float | None,
    target: Target | None,
    as_json: bool,
) -> None:
    """Send an event into a run.

    This works whether or not a process drives the run. EVENT_TYPE is the name of the event's class,
    and JSON is an object of its fields. Without --workflow, an event that no step accepts, or whose
    fields don't fit its class, is recorded in the run's history as rejected. If the key was used
    before, the event has been sent already, and the exit code is 0.
    """
    workflow = None if target is None else load_workflow(target)
    event: Any = make_event(workflow, event_type, fields)
    sent = event if delay is None else Delayed(event, delay)

    async def post(store: SqlStore) -> bool:
        async with open_runtime(store, [] if workflow is None else [workflow]) as runtime:
            return await runtime.send(run_id, sent, key=key)

    taken = with_store(db, post)
    if as_json:
        print_json({"run_id": run_id, "event_type": event_type, "key": key, "sent": taken})
    else:
        click.echo(
            clean(
                f"sent {event_type} to run {run_id}"
                if taken
                else f"not sent: the key {key} was used before"
            )
        )


@click.command("respond", cls=Command, epilog=RUN_EXIT_CODES)
@click.argument("run_id", metavar="ID", type=Id())
@click.argument("value", metavar="VALUE")
@db_option
@option("--request-id", group="Value", type=Id(), metavar="ID", show_default=False,
        help="The question to answer. Needed if several are open; `runs show` lists "
        "them.")  # fmt: skip
@text_option("Take VALUE as plain text, not as JSON.")
@option("--event-type", group="Value", type=Id(), metavar="TYPE", show_default=False,
        help="The type of the answer, if the workflow expects a subclass of "
        "InputResponseEvent.")  # fmt: skip
@_workflow_option
@_json
@click.pass_context
def respond(
    context: click.Context,
    run_id: str,
    value: str,
    db: str,
    request_id: str | None,
    as_text: bool,
    event_type: str | None,
    target: Target | None,
    as_json: bool,
) -> None:
    """Answer an open question of a run.

    This works whether or not a process drives the run. VALUE is JSON. With --workflow, the answer
    is of the type that the workflow expects, and is checked against it.
    """
    document = value if as_text else Json().convert(value, None, context)
    workflow = None if target is None else load_workflow(target)

    async def answer(store: SqlStore) -> str:
        question = await _the_question(store, run_id) if request_id is None else request_id
        response = make_answer(workflow, event_type, question, document)
        async with open_runtime(store, [] if workflow is None else [workflow]) as runtime:
            await runtime.respond(run_id, response)
        return question

    answered = with_store(db, answer)
    if as_json:
        print_json({"run_id": run_id, "request_id": answered})
    else:
        click.echo(clean(f"answered question {answered} of run {run_id}"))


async def _the_question(store: SqlStore, run_id: str) -> str:
    """Return the id of the only open question."""
    run = await asked_run(store, run_id)
    answered, status = answered_in(run.inbox), run.info.status.value
    ids = [request_id for request_id in run.asked if request_id not in answered]
    if len(ids) == 1:
        return ids[0]
    raise InputResponseError(
        f"run {run_id!r} ({status}) has the open questions {', '.join(ids)}: choose one "
        "with --request-id"
        if ids
        else f"run {run_id!r} ({status}) has no open question",
        run_id=run_id,
        request_id="",
    )


COMMANDS: Sequence[click.Command] = (submit, send, respond)
