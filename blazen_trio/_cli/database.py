"""`blazen-trio db`: the version of a database's schema, and its upgrade."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from blazen_trio._cli.commands import Command, db_option, json_option
from blazen_trio._cli.exits import CONFIG, EXIT_CODES, ConfigError
from blazen_trio._cli.output import clean, hide_passwords, json_line
from blazen_trio._cli.streams import stdout_encoding

if TYPE_CHECKING:
    from collections.abc import Callable

    from blazen_trio._stores.sql.migrate import SchemaVersion

__all__ = ["database"]

_json = json_option("Print one JSON object.", group="Output")


@click.group("db", epilog=EXIT_CODES)
def database() -> None:
    """Show, check or upgrade the database's schema."""


@database.command("upgrade", cls=Command, epilog=EXIT_CODES)
@db_option
@_json
def upgrade(db: str, as_json: bool) -> None:
    """Create the schema, or upgrade it to this version.

    The database itself must exist, unless it is an SQLite file. Several processes may run this at
    once: one does the work, and the others wait for it. Stop workers of an older version first.
    """
    from blazen_trio._stores.sql.migrate import (
        upgrade_schema,  # a database library, which --help does not need
    )

    before, after = _checked(upgrade_schema, db)
    if before == after.revision:
        text = f"{after.where}: the schema is at {after.head!r}; nothing to do"
    else:
        origin = "nothing" if before is None else repr(before)
        text = f"{after.where}: upgraded the schema from {origin} to {after.revision!r}"
    _print(text, after, db, as_json=as_json, before=before)


@database.command("current", cls=Command, epilog=EXIT_CODES)
@db_option
@_json
def current(db: str, as_json: bool) -> None:
    """Print the revision of the schema, and the head.

    The head is the revision that this version needs.
    """
    from blazen_trio._stores.sql.migrate import (
        read_schema,  # a database library, which --help does not need
    )

    schema = _checked(read_schema, db)
    _print(f"revision {schema.revision or 'none'}, head {schema.head}", schema, db, as_json=as_json)


@database.command("check", cls=Command, epilog=EXIT_CODES)
@db_option
@_json
@click.pass_context
def check(context: click.Context, db: str, as_json: bool) -> None:
    """Check that the schema is the one that this version needs.

    If it is not, this says what to do, and exits with 78.
    """
    from blazen_trio._stores.sql.migrate import (
        read_schema,  # a database library, which --help does not need
    )

    schema = _checked(read_schema, db)
    problem = schema.problem
    if problem is not None and not as_json:
        raise ConfigError(problem)
    text = f"{schema.where}: the schema is at {schema.head!r}, as needed"
    _print(text, schema, db, as_json=as_json, problem=problem)
    context.exit(CONFIG if problem is not None else 0)


def _checked(function: Callable[[str], Any], url: str) -> Any:
    try:
        return function(url)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _print(
    text: str, schema: SchemaVersion, url: str, *, as_json: bool, **more: str | None
) -> None:
    if as_json:
        fields = {
            "database": schema.where,
            "standing": schema.standing,
            "revision": schema.revision,
            "head": schema.head,
        }
        shown = {
            key: value and hide_passwords(value, url) for key, value in (fields | more).items()
        }
        click.echo(json_line(shown, stdout_encoding()))
    else:
        click.echo(clean(hide_passwords(text, url)))
