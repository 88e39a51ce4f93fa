"""Keeping what others wrote from acting on a terminal, and from what a stream can't show."""

from __future__ import annotations

import json
import shlex
from typing import Any

__all__ = ["clean", "json_line", "quoted"]


def clean(text: str, *, lines: bool = False) -> str:
    """Text that does nothing to a terminal, whoever wrote it: on one line, or with its line ends.

    Args:
        text: From a database, or an error.
        lines: Whether to keep its line ends.
    """
    if text.isprintable():
        return text
    # By the characters that there are, of which a long text has few.
    acting = {one for one in set(text) if not one.isprintable()} - ({"\n"} if lines else set())
    return text.translate({ord(one): " " if one.isspace() else _escaped(one) for one in acting})


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def json_line(document: Any, encoding: str | None, **settings: Any) -> str:
    """JSON on one line that does nothing to a terminal, and that this encoding has the letters of.

    JSON itself escapes only what ASCII has of control characters. There are more: U+009B begins a
    command as ESC [ does, U+202E turns the line around, U+2028 ends it.

    Args:
        document: What is told.
        encoding: The stream's.
        settings: More for `json.dumps`.
    """
    text = json.dumps(document, ensure_ascii=False, **settings)
    acting = [one for one in set(text) if not one.isprintable()]
    if acting:
        # All that acts is in strings: what JSON has outside of them is printable.
        text = text.translate({ord(one): json.dumps(one)[1:-1] for one in acting})
    try:
        text.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return json.dumps(document, **settings)
    return text


def quoted(text: str) -> str:
    """A text as a word of a command that may be pasted into a shell; it stays the same text."""
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(_in_quotes, text))}'"


def _in_quotes(character: str) -> str:
    if character.isprintable():
        return f"\\{character}" if character in "\\'" else character
    return f"\\U{ord(character):08x}"
