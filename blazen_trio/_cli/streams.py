"""The standard streams of a command: closed, of a narrow encoding, or at a terminal."""

from __future__ import annotations

import io
import os
import sys

__all__ = ["at_terminal", "can_ask", "settle", "stdout_encoding"]


def settle() -> None:
    """Make sure that each standard stream can be used like an ordinary one.

    Daemons, cron and containers may start a program with some of them closed. Python then has
    `None` in their place, and the next file that is opened gets the descriptor: output might be
    printed into a database. Each closed stream is therefore opened on the null device. Output is
    discarded, and reading fails, which is not the same as an empty input.

    Characters that a stream's encoding lacks are escaped, instead of ending the command.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            # Gets the lowest free descriptor, which is that of the stream. Open stdin for writing
            # only, too: reads from it then fail.
            null = os.open(os.devnull, os.O_WRONLY)
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(null, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def at_terminal() -> bool:
    """Return whether stdout is a terminal, which has a width and can be redrawn.

    No variable changes this for a file or a pipe; FORCE_COLOR and the like only affect colours.
    """
    return sys.stdout.isatty()


def can_ask() -> bool:
    """Return whether the user can be asked: stdin and stderr are terminals."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def stdout_encoding() -> str | None:
    """Return the encoding of stdout."""
    return sys.stdout.encoding
