"""The texts that may name something in a run, and the numbers that may be a time in seconds."""

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


LONGEST: Final = 1e11
"""3,000 years: no longer, so that whatever becomes due is a date, and what is stored can be read again."""


def is_seconds(value: object, longest: float = LONGEST) -> bool:
    """Whether it is a usable time, no longer than that."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= longest


def is_positive_seconds(value: object, longest: float = LONGEST) -> bool:
    """Whether it is a usable time limit, no longer than that."""
    return is_seconds(value, longest) and value != 0
