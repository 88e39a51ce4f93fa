"""Keeping what others wrote from acting on a terminal."""

from __future__ import annotations

__all__ = ["clean"]


def clean(text: str, *, lines: bool = False) -> str:
    """Text that does nothing to a terminal, whoever wrote it: on one line, or with its line ends.

    Args:
        text: From a database, or an error.
        lines: Whether to keep its line ends.
    """
    if text.isprintable():
        return text
    return "".join(
        one
        if one.isprintable() or (lines and one == "\n")
        else " "
        if one.isspace()
        else _escaped(one)
        for one in text
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
