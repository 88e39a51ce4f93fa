"""The command `blazen-trio`, with behaviour that all of its commands share."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

import blazen_trio
from blazen_trio._cli.completion import completion
from blazen_trio._cli.database import database
from blazen_trio._cli.exits import EXIT_CODES
from blazen_trio._cli.graph import graph
from blazen_trio._cli.output import clean, hide_passwords
from blazen_trio._cli.runs import runs
from blazen_trio._cli.worker import worker

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["app"]


@contextmanager
def _hiding_passwords() -> Iterator[None]:
    """Hide passwords and control characters in click's own errors.

    They quote arguments, which may be a URL in the wrong place, or contain control sequences.
    """
    try:
        yield
    except click.ClickException as error:
        vars(error)["message"] = clean(hide_passwords(error.message), lines=True)
        raise


class _App(click.Group):
    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _hiding_passwords():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with _hiding_passwords():
            return super().invoke(ctx)


@click.group(cls=_App, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(blazen_trio.__version__, package_name="blazen-trio")
def app() -> None:
    """Durable workflows for Trio: manage runs, the workers that drive them, and their database."""


for command in (worker, runs, graph, database, completion):
    app.add_command(command)
