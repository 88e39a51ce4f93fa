"""`blazen-trio runs`: queries and actions for the runs of a database."""

from __future__ import annotations

import click

from blazen_trio._cli.exits import RUN_EXIT_CODES
from blazen_trio._cli.runs import acting, asking, deleting, moving, reading, resuming, watching

__all__ = ["runs"]


@click.group("runs", epilog=RUN_EXIT_CODES)
def runs() -> None:
    """Show, control and resume the runs of a database."""


for module in (reading, watching, resuming, asking, acting, deleting, moving):
    for command in module.COMMANDS:
        runs.add_command(command)
