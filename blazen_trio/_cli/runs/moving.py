"""`runs export`, `runs import`: a run as a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from blazen_trio import Snapshot
from blazen_trio._cli.arguments import Id
from blazen_trio._cli.commands import Command, db_option, json_option, option
from blazen_trio._cli.exits import RUN_EXIT_CODES, DataError, NotThereError
from blazen_trio._cli.files import write_file
from blazen_trio._cli.output import clean
from blazen_trio._cli.runs import forms
from blazen_trio._cli.runs.opened import look, with_store
from blazen_trio._cli.runs.tables import print_json
from blazen_trio._codec.codec import PLAIN
from blazen_trio._runtime.remote import keep_snapshot
from blazen_trio._stores.base import fold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blazen_trio import RunInfo
    from blazen_trio._stores.sql.store import SqlStore

__all__ = ["COMMANDS"]

_STDOUT: Final = "-"
_STDIN: Final = "-"
_MSGPACK: Final = (".msgpack", ".mpk")


@click.command("export", cls=Command, epilog=RUN_EXIT_CODES)
@click.argument("run_id", metavar="ID", type=Id())
@db_option
@option("--output", "-o", group="Output", metavar="FILE", default=_STDOUT, show_default=False,
        type=click.Path(dir_okay=False, allow_dash=True),
        help="The file to write; by default stdout.")  # fmt: skip
@option("--format", "form", group="Output", type=click.Choice(["json", "msgpack"]),
        show_default=False,
        help="The format of the file; by default msgpack if it is named *.msgpack, otherwise "
        "json.")  # fmt: skip
@json_option("Print one JSON object about the file. Needs --output.", group="Output")
def export(run_id: str, db: str, output: str, form: str | None, as_json: bool) -> None:
    """Write a run to a file.

    The file is a snapshot, which `runs import` and Snapshot.from_json read. It has everything
    needed to resume the run, and the history, but not the messages in the run's inbox that no
    driver has taken yet. The run itself stays in the database: cancel or delete it before its copy
    is resumed elsewhere.
    """
    stored = look(db, lambda looks: looks.load(run_id))
    snapshot = Snapshot.from_state(fold(stored, PLAIN))
    form = form or ("msgpack" if output.endswith(_MSGPACK) else "json")
    data = snapshot.to_msgpack() if form == "msgpack" else snapshot.to_json().encode() + b"\n"
    if stored.inbox:
        click.echo(
            f"left out: inbox messages that no driver has taken yet ({len(stored.inbox)})", err=True
        )
    if output == _STDOUT:
        click.echo(data, nl=False)
        return
    write_file(Path(output), data)
    if as_json:
        print_json({"run_id": run_id, "file": output, "format": form, "bytes": len(data)})
    else:
        click.echo(clean(f"wrote run {run_id} to {output}"))


@click.command("import", cls=Command, epilog=RUN_EXIT_CODES)
@click.argument("file", type=click.Path())
@db_option
@option("--run-id", group="Run", type=Id(), metavar="ID", show_default=False,
        help="The id of the run in this database; by default that of the snapshot. Another id "
        "gives the steps other idempotency keys.")  # fmt: skip
@json_option("Print one JSON object.", group="Output")
def import_run(file: str, db: str, run_id: str | None, as_json: bool) -> None:
    """Store the run that is in a file.

    FILE is a snapshot in JSON or msgpack; - is stdin. The workflow's code is not needed. The run
    gets the status of the snapshot and has no driver. Workers take a queued or running run
    immediately, and a waiting run when its time comes; any other run needs `runs resume`. An
    existing run with this id is never changed.
    """
    snapshot = _read(file)

    async def keep(store: SqlStore) -> RunInfo:
        return await store.get_run(await keep_snapshot(store, snapshot, run_id))

    try:
        info = with_store(db, keep, create=True)
    except ValueError as error:
        raise DataError(f"{file}: {error}") from error
    if as_json:
        print_json(forms.run_form(info))
    else:
        click.echo(clean(f"stored run {info.run_id} of {info.workflow}: {info.status.value}"))


def _read(file: str) -> Snapshot:
    """Read the snapshot in a file, or on stdin.

    Raises:
        NotThereError: The file can't be read.
        SerializationError: It does not contain a valid snapshot.
    """
    try:
        data = sys.stdin.buffer.read() if file == _STDIN else Path(file).read_bytes()
    except OSError as error:
        raise NotThereError(f"{file} can't be read: {error.strerror}") from error
    # A snapshot in msgpack never starts like a JSON document, with a brace or white space.
    if data.lstrip()[:1] == b"{":
        return Snapshot.from_json(data)
    return Snapshot.from_msgpack(data)


COMMANDS: Sequence[click.Command] = (export, import_run)
