"""The commands and their options as the reference of the command line lists them.

`python -m tests.cli.options` writes them into the page.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blazen_trio._cli.app import app

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "command-line.md"
START = "<!-- Written by `python -m tests.cli.options`. -->\n"
END = "<!-- End of the commands. -->\n"


def commands(
    group: click.Group = app, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command]]:
    """Iterate over the commands and their full names."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def records(command: click.Command) -> list[tuple[str, str]]:
    """Return the options of a command and their help, as `--help` shows them."""
    context = click.Context(command)
    found = [
        param.get_help_record(context)
        for param in command.params
        if isinstance(param, click.Option)
    ]
    return [record for record in found if record is not None]


def listed(several: list[tuple[str, str]]) -> str:
    return "".join(
        textwrap.fill(
            f"- `{names}`: {text}",
            width=100,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        + "\n"
        for names, text in several
    )


def described(name: str, command: click.Command) -> str:
    """Return the usage and the description of a command."""
    usage = click.Context(command, info_name=f"blazen-trio {name}").get_usage()
    text = f"    {usage.removeprefix('Usage: ')}\n"
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith("\b\n"):  # click's mark of lines that stay as they are
            text += "\n" + textwrap.indent(paragraph.removeprefix("\b\n"), "    ") + "\n"
        else:
            wrapped = textwrap.fill(
                paragraph, width=100, break_long_words=False, break_on_hyphens=False
            )
            text += f"\n{wrapped}\n"
    return text


def section() -> str:
    """Return the page's list of commands. Shared options are listed once, first."""
    every = dict(commands())
    counts = Counter(record for command in every.values() for record in records(command))
    shared = [record for record, count in counts.items() if count > len(every) / 2]
    text = f"\nMost commands have these options:\n\n{listed(shared)}"
    for name, command in every.items():
        text += f"\n### {name}\n\n{described(name, command)}"
        own = [record for record in records(command) if record not in shared]
        if own:
            text += f"\n{listed(own)}"
    return text + "\n"


def written(page: str) -> str:
    """Return the page with the present list of commands."""
    between = re.compile(f"(?<={re.escape(START)}).*(?={re.escape(END)})", re.DOTALL)
    text, count = between.subn(lambda _: section(), page)
    assert count == 1, f"the page has no place for the commands, between {START} and {END}"
    return text


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), encoding="utf-8")
