"""`runs delete`, `runs purge`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from blazen_trio import RunStatus
from blazen_trio._cli.arguments import Age, Id
from blazen_trio._cli.commands import Command, db_option, json_option, option
from blazen_trio._cli.exits import RUN_EXIT_CODES
from blazen_trio._cli.output import clean
from blazen_trio._cli.runs.opened import with_store
from blazen_trio._cli.runs.tables import print_json
from blazen_trio._cli.streams import can_ask

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

__all__ = ["COMMANDS"]

_STATUSES: Final = tuple(status.value for status in RunStatus)
_ENDED: Final = tuple(status.value for status in RunStatus if status.ended)

_json = json_option("Print one JSON object.", group="Output")
_yes = option(
    "--yes",
    "-y",
    group="Deleting",
    is_flag=True,
    show_default=False,
    help="Don't ask for confirmation.",
)


def _confirm(what: str, *, yes: bool) -> None:
    """Ask the user at the terminal for confirmation.

    Raises:
        Abort: The user said no.
        UsageError: There is no terminal to ask at.
    """
    if yes:
        return
    if not can_ask():
        raise click.UsageError(f"no terminal to ask at: to {what}, pass --yes")
    click.confirm(f"{what}?", abort=True, err=True)


@click.command("delete", cls=Command, epilog=RUN_EXIT_CODES)
@click.argument("run_id", metavar="ID", type=Id())
@db_option
@_yes
@_json
def delete(run_id: str, db: str, yes: bool, as_json: bool) -> None:
    """Delete a run and all its stored data.

    A run that is being driven is not deleted: cancel it first.
    """
    info = with_store(db, lambda store: store.get_run(run_id))
    _confirm(clean(f"delete run {run_id} of {info.workflow} ({info.status.value})"), yes=yes)
    with_store(db, lambda store: store.delete_run(run_id))
    if as_json:
        print_json({"run_id": run_id, "deleted": True})
    else:
        click.echo(clean(f"deleted run {run_id}"))


@click.command("purge", cls=Command, epilog=RUN_EXIT_CODES)
@db_option
@option("--older-than", "age", group="Deleting", required=True, type=Age(), metavar="AGE",
        help="Delete only runs whose status was last written longer ago than this: 90s, 15m, 12h, "
        "30d or 4w, for example.")  # fmt: skip
@option("--status", "statuses", group="Deleting", multiple=True, type=click.Choice(_STATUSES),
        show_default=False,
        help="Delete only runs with this status; may be given several times. "
        f"By default, all ended runs are deleted: {', '.join(_ENDED)}.")  # fmt: skip
@_yes
@_json
def purge(db: str, age: dt.timedelta, statuses: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Delete old runs. Runs that are being driven are never deleted."""
    names = ", ".join(statuses or _ENDED)
    _confirm(f"delete the runs ({names}) that are older than {age}", yes=yes)
    count = with_store(db, lambda store: store.purge(older_than=age, status=statuses or None))
    print_json({"deleted": count}) if as_json else click.echo(f"deleted {count} runs")


COMMANDS: Sequence[click.Command] = (delete, purge)
