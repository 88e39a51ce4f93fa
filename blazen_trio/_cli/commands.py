"""The base of all commands: shared options, the layout of their help, and their exit on errors."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import click

from blazen_trio._cli.exits import after_signal, trouble
from blazen_trio._cli.output import HIDDEN, logging_to, make_handler
from blazen_trio._definitions.names import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DATABASE", "Command", "Seconds", "db_option", "json_option", "option"]

DATABASE = "Database"
_OTHER = "Other"


class _GroupedOption(click.Option):
    """An option that is shown in a group of the help.

    Args:
        group: The group's heading.
    """

    def __init__(self, *args: Any, group: str = _OTHER, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


class Command(click.Command):
    """A command with exit codes for its errors, and with its options grouped in its help.

    Log records go to a handler, `ctx.obj`: warnings, or from the level of its option `--log-level`
    on. The command can write lines of its own with `say` to the same handler.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; report an error by one message and an exit code."""
        level = ctx.params.get("log_level")
        plain = "blazen-trio: " if level is None else "{time} {level:<8} {name}: "
        ctx.obj = make_handler(
            as_json=bool(ctx.params.get("as_json")), url=ctx.params.get("db"), plain=plain
        )
        try:
            with logging_to(ctx.obj, level or "warning"):
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # on a closed pipe, click ends the command quietly
        except KeyboardInterrupt:
            raise click.exceptions.Exit(after_signal(signal.SIGINT)) from None
        except Exception as error:
            raise trouble(error) from error

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options by group, in the order in which the groups first appear."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                groups.setdefault(getattr(param, "group", _OTHER), []).append(record)
        for heading, records in sorted(groups.items(), key=lambda item: item[0] == _OTHER):
            with formatter.section(f"{heading} options"):
                formatter.write_dl(records)


def option(*names: str, group: str = _OTHER, **settings: Any) -> Callable[[Any], Any]:
    """Make a `click.option` in a group, which shows its environment variable and its default."""
    settings.setdefault("show_default", True)
    if isinstance(settings.get("type"), Seconds):
        settings.setdefault("metavar", "SECONDS")
    return click.option(*names, cls=_GroupedOption, group=group, show_envvar=True, **settings)


class Seconds(click.FloatRange):
    """A number of seconds."""

    name = "number of seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number; refuse infinity and NaN, which ranges accept."""
        seconds = super().convert(value, param, ctx)
        if not seconds <= LONGEST:
            self.fail(f"{value!r} is not a number of seconds up to 1e11", param, ctx)
        return seconds


def _check_url(_ctx: click.Context, _param: click.Parameter, url: str | None) -> str | None:
    if url is not None and not url.strip():
        msg = "it is empty: give the URL of a database, such as sqlite:///runs.db"
        raise click.BadParameter(msg)
    if url is not None and f":{HIDDEN}@" in url:
        msg = (
            f"the URL's password is hidden: replace {HIDDEN} by the real one, preferably in "
            "BLAZEN_TRIO_DB"
        )
        raise click.BadParameter(msg)
    return url


def db_option(command: Any, *, required: bool = True) -> Any:
    """Add the option `--db`."""
    return option(
        "--db",
        group=DATABASE,
        required=required,
        metavar="URL",
        envvar="BLAZEN_TRIO_DB",
        callback=_check_url,
        help="The database's URL: sqlite:///runs.db, postgresql+psycopg://user:password@host/name "
        "or mysql+pymysql://user:password@host/name. Put a password into the environment variable: "
        "other users of the machine can see the arguments of a command.",
    )(command)


def json_option(help_text: str, group: str) -> Callable[[Any], Any]:
    """Add the option `--json`."""
    return option(
        "--json", "as_json", group=group, is_flag=True, show_default=False, help=help_text
    )
