"""Checks of names in a run, and of times in seconds."""

from __future__ import annotations

from typing import Final

__all__ = [
    "LONGEST",
    "LONGEST_NAME",
    "is_positive_seconds",
    "is_seconds",
    "is_storable",
    "is_unicode",
    "name_fault",
]


LONGEST_NAME: Final = 200
"""Longest id of a run, name of a workflow, or key of a sent event. Every column takes more."""


def name_fault(name: object) -> str | None:
    """Return why this is not a valid name in every database, or `None` if it is."""
    if type(name) is not str or not 0 < len(name) <= LONGEST_NAME or not is_storable(name):
        return f"it must be a str of 1 to {LONGEST_NAME} characters without NUL or lone surrogates"
    if name[-1] == " ":
        return "it ends with a space, which some databases ignore when they compare names"
    return None


def is_unicode(text: str) -> bool:
    """Return whether a text can be encoded. Lone surrogates can't be."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_storable(text: str) -> bool:
    """Return whether every database can store this text.

    It must have no lone surrogates, and no NUL, which PostgreSQL refuses.
    """
    return "\0" not in text and is_unicode(text)


LONGEST: Final = 1e11
"""The longest time, about 3,000 years. A later due time could not be a date or be read again."""


def is_seconds(value: object, longest: float = LONGEST) -> bool:
    """Return whether this is a time in seconds, from 0 to `longest`."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= longest


def is_positive_seconds(value: object, longest: float = LONGEST) -> bool:
    """Return whether this is a time limit in seconds, above 0 and up to `longest`."""
    return is_seconds(value, longest) and value != 0
