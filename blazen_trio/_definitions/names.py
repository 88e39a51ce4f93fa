"""Which texts may name something in a run."""

from __future__ import annotations

from typing import Final

__all__ = ["LONGEST_NAME", "is_storable", "is_unicode", "name_fault"]

LONGEST_NAME: Final = 200
"""Of what names a run, a workflow, or an event that was sent: fewer than any column takes."""


def name_fault(name: object) -> str | None:
    """Tell what keeps this from naming something in every database; `None`: nothing does."""
    if type(name) is not str or not 0 < len(name) <= LONGEST_NAME or not is_storable(name):
        return f"it is a str of 1 to {LONGEST_NAME} characters, without NUL or lone surrogates"
    if name[-1] == " ":
        return "it ends with a space, and some databases don't tell it from one that does not"
    return None


def is_unicode(text: str) -> bool:
    """Tell whether a text can be encoded: lone surrogates can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_storable(text: str) -> bool:
    """Tell whether every database takes this text: without lone surrogates, and without NUL, which
    PostgreSQL refuses.
    """
    return "\0" not in text and is_unicode(text)
