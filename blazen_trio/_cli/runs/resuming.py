"""`runs resume`: resume a run in this process."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click
import trio

from blazen_trio import (
    InputRequiredError,
    NoHandlerError,
    RunCancelledError,
    RunCrashedError,
    RunPausedError,
    RunStalledError,
    RunStatus,
    RunTimeoutError,
    SerializationError,
    StepFailedError,
)
from blazen_trio._cli.arguments import Id, Json
from blazen_trio._cli.commands import Command, db_option, json_option, option
from blazen_trio._cli.exits import RUN_EXIT_CODES, STATUS_CODES, ConfigError
from blazen_trio._cli.output import clean, say
from blazen_trio._cli.runs import forms
from blazen_trio._cli.runs.asking import load_workflow, parse_target, text_option
from blazen_trio._cli.runs.events import make_answer
from blazen_trio._cli.runs.opened import with_store
from blazen_trio._cli.runs.reading import outcome_parts
from blazen_trio._cli.runs.tables import instant, print_json, show
from blazen_trio._cli.streams import can_ask

if TYPE_CHECKING:
    import datetime as dt
    import logging
    from collections.abc import Sequence

    from blazen_trio import Run, Workflow
    from blazen_trio._cli.targets import Target
    from blazen_trio._stores.protocol import StoredRun
    from blazen_trio._stores.sql.store import SqlStore

__all__ = ["COMMANDS"]

_LOOK: Final = 0.5
"""Seconds between two checks whether the run waits."""
_SOON: Final = 1.0
"""A wait of fewer seconds is not reported."""

_OUTCOMES = (
    InputRequiredError,
    NoHandlerError,
    RunCancelledError,
    RunCrashedError,
    RunPausedError,
    RunStalledError,
    RunTimeoutError,
    StepFailedError,
)
"""The errors of a run that ends or stops without a result."""


@click.command("resume", cls=Command, epilog=RUN_EXIT_CODES)
@click.argument("run_id", metavar="ID", type=Id())
@click.argument("target", metavar="PACKAGE.MODULE:WORKFLOW", callback=parse_target)
@db_option
@option("--no-ask", group="Value", is_flag=True, show_default=False,
        help="Don't ask the open questions of the run. By default they are asked at a terminal, "
        "unless --json is given.")  # fmt: skip
@text_option("Take the answers that you type as plain text, not as JSON.")
@json_option("Print one JSON object.", group="Output")
@click.pass_context
def resume(
    context: click.Context,
    run_id: str,
    target: Target,
    db: str,
    no_ask: bool,
    as_text: bool,
    as_json: bool,
) -> None:
    """Resume a run in this process.

    Drives the run until it has ended, or waits for something from outside. Prints its result, its
    error or its questions; the exit code says which. For a completed run, prints the recorded
    result. A run that failed, timed out or was cancelled is retried. If this command is
    interrupted, the run stays on disk as it is, and any process can resume it.
    """
    workflow = load_workflow(target)
    handler = workflow.input_handler
    if handler is None and not (no_ask or as_json) and can_ask():
        handler = _Asking(workflow, as_text=as_text)

    async def drive(store: SqlStore) -> StoredRun:
        async with trio.open_nursery() as nursery:
            try:
                async with workflow.resume_from(run_id, store=store, input_handler=handler) as run:
                    nursery.start_soon(_tell_waits, run, context.obj)  # noqa: ASYNC111  # read-only
                # The end of the block has waited for the run.
            except _OUTCOMES:
                pass  # it is on disk, and the error of a step has been logged
            nursery.cancel_scope.cancel()
        return await store.load(run_id)

    stored = with_store(db, drive)
    run = forms.outcome_form(stored)
    if as_json:
        print_json(run)
    else:
        click.echo(clean(f"run {run_id} of {run['workflow']}: {run['status']}"))
        show(*outcome_parts(run))
    # A waiting run may have been woken and taken by a worker in the meantime.
    context.exit(STATUS_CODES.get(stored.info.status, STATUS_CODES[RunStatus.WAITING]))


async def _tell_waits(run: Run, handler: logging.Handler) -> None:
    """Report once, for each due time, until when a run waits that only waits for a time."""
    told: dt.datetime | None = None
    while True:
        if run.status is RunStatus.WAITING and not run.input_requests:
            due = run.due
            if due is not None and due != told and due.timestamp() - time.time() >= _SOON:
                told = due
                moment = forms.time_form(due)
                text = (
                    f"run {run.run_id} waits until {instant(moment)}; Ctrl-C leaves it to be "
                    "resumed by any process"
                )
                say(handler, "waiting", text, fields={"run_id": run.run_id, "until": moment})
        await trio.sleep(_LOOK)


class _Asking:
    """An input handler that asks the user at the terminal, one question at a time."""

    def __init__(self, workflow: Workflow, *, as_text: bool) -> None:
        self._workflow = workflow
        self._as_text = as_text
        self._lock = trio.Lock()
        self._typed = b""

    async def __call__(self, request: Any) -> Any:
        """Return the answer; `None`, which leaves the question open, at the end of the input."""
        async with self._lock:
            if request.metadata:
                told = self._workflow.codec.encode_value(request.metadata, "metadata")
                click.echo(clean(told.data.decode()), err=True)
            while True:
                click.echo(
                    clean(f"{request.prompt}{'' if self._as_text else ' (JSON)'}: "),
                    nl=False,
                    err=True,
                )
                line = await self._line()
                if line is None:
                    click.echo(err=True)
                    return None
                try:
                    document = line if self._as_text else Json().convert(line, None, None)
                    return make_answer(self._workflow, None, request.request_id, document)
                except (
                    click.BadParameter,
                    SerializationError,
                ) as error:  # what this raised would fail the run
                    click.echo(clean(f"Error: {error.message}"), err=True)
                except ConfigError as error:
                    click.echo(clean(f"{error.message}, in `blazen-trio runs respond`"), err=True)
                    return None

    async def _line(self) -> str | None:
        """Read a line; `None` at the end. Not in a thread, which could not be interrupted."""
        terminal = sys.stdin.fileno()
        while b"\n" not in self._typed:
            await trio.lowlevel.wait_readable(terminal)
            data = os.read(terminal, 65536)
            if not data:
                return None
            self._typed += data
        line, _, self._typed = self._typed.partition(b"\n")
        return line.decode(errors="replace")  # noqa: ASYNC910  # of what was typed ahead


COMMANDS: Sequence[click.Command] = (resume,)
