"""`runs pause`, `runs cancel`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from blazen_trio import RunStatus, open_runtime
from blazen_trio._cli.arguments import Id
from blazen_trio._cli.commands import Command, db_option, json_option, option
from blazen_trio._cli.exits import RUN_EXIT_CODES
from blazen_trio._cli.output import clean
from blazen_trio._cli.runs.opened import with_store
from blazen_trio._cli.runs.tables import print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blazen_trio._stores.sql.store import SqlStore

__all__ = ["COMMANDS"]

_json = json_option("Print one JSON object.", group="Output")


@click.command("pause", cls=Command, epilog=RUN_EXIT_CODES)
@click.argument("run_id", metavar="ID", type=Id())
@db_option
@_json
def pause(run_id: str, db: str, as_json: bool) -> None:
    """Pause a run, and wait until it is paused.

    Steps in flight finish first. The run stays paused, and no worker takes it, until `runs resume`
    continues it. If this command is interrupted, the run still pauses.
    """

    async def ask(store: SqlStore) -> None:
        async with open_runtime(store) as runtime:
            await runtime.pause(run_id)

    with_store(db, ask)
    if as_json:
        print_json({"run_id": run_id, "status": "paused"})
    else:
        click.echo(clean(f"run {run_id} is paused"))


@click.command("cancel", cls=Command, epilog=RUN_EXIT_CODES)
@click.argument("run_id", metavar="ID", type=Id())
@db_option
@option(
    "--reason",
    group="Run",
    show_default=False,
    help="Why the run is cancelled: a text that is stored with it.",
)
@_json
def cancel(run_id: str, db: str, reason: str | None, as_json: bool) -> None:
    """Cancel a run.

    If a process drives the run, that process is asked to end it, and does so shortly. A run that
    has ended is not changed. A cancelled run keeps its pending work, and `runs resume` resumes it.
    """

    async def ask(store: SqlStore) -> RunStatus:
        async with open_runtime(store) as runtime:
            await runtime.cancel(run_id, reason)
        return (await store.get_run(run_id)).status

    status = with_store(db, ask)
    if as_json:
        print_json({"run_id": run_id, "status": status.value, "asked": not status.ended})
    elif status is RunStatus.CANCELLED:
        click.echo(clean(f"run {run_id} is cancelled"))
    elif status.ended:
        click.echo(clean(f"run {run_id} has ended already ({status.value})"))
    else:
        click.echo(clean(f"run {run_id} ({status.value}): its driver has been asked to cancel it"))


COMMANDS: Sequence[click.Command] = (pause, cancel)
