"""Which texts may name something in a run."""

from __future__ import annotations

__all__ = ["is_storable", "is_unicode"]


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
