"""What may be given as a time, in seconds."""

from __future__ import annotations

from typing import Final

__all__ = ["LONGEST", "is_positive_seconds", "is_seconds"]

LONGEST: Final = 1e11
"""3,000 years: no longer, so that whatever becomes due is a date, and what is stored can be read again."""


def is_seconds(value: object) -> bool:
    """Whether it is a usable time."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LONGEST


def is_positive_seconds(value: object) -> bool:
    """Whether it is a usable time limit."""
    return is_seconds(value) and value != 0
