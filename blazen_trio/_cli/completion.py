"""`blazen-trio completion`: scripts for the completion of commands and options in a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from blazen_trio._cli.commands import Command

__all__ = ["PROGRAM", "completion"]

PROGRAM = "blazen-trio"
_VARIABLE = "_BLAZEN_TRIO_COMPLETE"


@click.command("completion", cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that lets a shell complete commands.

    \b
    bash: eval "$(blazen-trio completion bash)"     in ~/.bashrc
    zsh:  eval "$(blazen-trio completion zsh)"      in ~/.zshrc
    fish: blazen-trio completion fish | source      in ~/.config/fish/config.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click knows these shells"
    click.echo(kind(context.find_root().command, {}, PROGRAM, _VARIABLE).source())
