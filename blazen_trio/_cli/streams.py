"""The standard streams as a command finds them: closed, of a narrow encoding, at a terminal."""

from __future__ import annotations

import io
import os
import sys

__all__ = ["at_terminal", "can_ask", "settle", "stdout_encoding"]


def settle() -> None:
    """Make the standard streams such that each can be used as if it were an ordinary one.

    Daemons, cron and containers may start a program with some of them closed. Python has `None`
    there, and the next file that is opened gets the number: a database might then be written to by
    whoever prints. So each is opened, onto the null device: what is printed goes nowhere, and who
    reads is told that nothing can be read, which is not the same as an empty input.

    What a stream's encoding lacks is told by escapes, instead of ending the command.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            # The lowest number that is free, which is that of the stream. For writing only, stdin
            # too: the system then refuses who reads from it.
            null = os.open(os.devnull, os.O_WRONLY)
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(null, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def at_terminal() -> bool:
    """Whether stdout is a terminal, so that its width counts, and what is there can be redrawn.

    Of that no variable can persuade a file or a pipe; FORCE_COLOR and its like are about colours.
    """
    return sys.stdout.isatty()


def can_ask() -> bool:
    """Whether somebody is there to be asked: stdin and stderr are terminals."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def stdout_encoding() -> str | None:
    """The encoding of what is printed on stdout."""
    return sys.stdout.encoding
