"""What the commands have in common: some options, how their help is laid out, and how errors end them."""

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
    """A command that ends as its exit codes say, and whose help shows its options in groups.

    What is logged while it runs goes to a handler, `ctx.obj`, by which it may `say` something itself: warnings, or from its option
    `--log-level` on.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Every error ends it with one message and an exit code."""
        level = ctx.params.get("log_level")
        plain = "blazen-trio: " if level is None else "{time} {level:<8} {name}: "
        ctx.obj = make_handler(
            as_json=bool(ctx.params.get("as_json")), url=ctx.params.get("db"), plain=plain
        )
        try:
            with logging_to(ctx.obj, level or "warning"):
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # who reads what a pipe is given has read enough: click ends it quietly
        except KeyboardInterrupt:
            raise click.exceptions.Exit(after_signal(signal.SIGINT)) from None
        except Exception as error:
            raise trouble(error) from error

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, by groups in the order in which these are named first."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                groups.setdefault(getattr(param, "group", _OTHER), []).append(record)
        for heading, records in sorted(groups.items(), key=lambda item: item[0] == _OTHER):
            with formatter.section(f"{heading} options"):
                formatter.write_dl(records)


def option(*names: str, group: str = _OTHER, **settings: Any) -> Callable[[Any], Any]:
    """`click.option`, in a group, with its environment variable and its default shown."""
    settings.setdefault("show_default", True)
    if isinstance(settings.get("type"), Seconds):
        settings.setdefault("metavar", "SECONDS")
    return click.option(*names, cls=_GroupedOption, group=group, show_envvar=True, **settings)


class Seconds(click.FloatRange):
    """A number of seconds."""

    name = "number of seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; infinity and what is none are refused, which ranges let through."""
        seconds = super().convert(value, param, ctx)
        if not seconds <= LONGEST:
            self.fail(f"{value!r} is no number of seconds up to 1e11", param, ctx)
        return seconds


def _check_url(_ctx: click.Context, _param: click.Parameter, url: str | None) -> str | None:
    if url is not None and not url.strip():
        msg = "it is empty: give the URL of a database, such as sqlite:///runs.db"
        raise click.BadParameter(msg)
    if url is not None and f":{HIDDEN}@" in url:
        msg = f"the URL's password is hidden: put the real one in the place of {HIDDEN}, best in BLAZEN_TRIO_DB"
        raise click.BadParameter(msg)
    return url


def db_option(command: Any, *, required: bool = True) -> Any:
    """`--db`."""
    return option(
        "--db",
        group=DATABASE,
        required=required,
        metavar="URL",
        envvar="BLAZEN_TRIO_DB",
        callback=_check_url,
        help="The database: sqlite:///runs.db, postgresql+psycopg://user:password@host/name or mysql+pymysql://... "
        "A password is best given by the environment variable, which other users of the machine can't see.",
    )(command)


def json_option(help_text: str, group: str) -> Callable[[Any], Any]:
    """`--json`."""
    return option(
        "--json", "as_json", group=group, is_flag=True, show_default=False, help=help_text
    )
