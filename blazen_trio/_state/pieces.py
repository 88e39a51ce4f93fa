"""Long work as generators: a bounded piece per `next()`, with the result as what they return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["drained"]

T = TypeVar("T")


def drained(pieces: Generator[Any, None, T]) -> T:
    """Return what a generator comes to, all of it done at once."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            result: T = end.value
            return result
