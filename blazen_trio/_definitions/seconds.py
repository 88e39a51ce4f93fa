"""What may be given as a time, in seconds."""

from __future__ import annotations

from typing import Final

__all__ = ["LONGEST", "is_positive_seconds", "is_seconds"]

LONGEST: Final = 1e11
"""3,000 years: no longer, so that whatever becomes due is a date, and what is stored can be read again."""


def is_seconds(value: object, longest: float = LONGEST) -> bool:
    """Whether it is a usable time, no longer than that."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= longest


def is_positive_seconds(value: object, longest: float = LONGEST) -> bool:
    """Whether it is a usable time limit, no longer than that."""
    return is_seconds(value, longest) and value != 0
