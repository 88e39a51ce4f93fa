"""Work of the pure layers that takes long, done while the event loop goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["in_slices"]

T = TypeVar("T")

_SLICE: Final = 0.004
"""Seconds that such work holds the event loop at a time, and one piece more."""


async def in_slices(pieces: Generator[None, None, T], *, cancellable: bool = False) -> T:
    """Drain a generator, giving way to other tasks every few milliseconds. Return what it comes to.

    What is done in less than that is done without a checkpoint.

    Args:
        pieces: Does a bounded piece of work per `next()`.
        cancellable: Whether a cancellation may break it off between two pieces. It may not where
            that would leave something half done.

    Raises:
        trio.Cancelled: It was broken off; the generator is closed then.
    """
    checkpoint = (
        trio.lowlevel.checkpoint if cancellable else trio.lowlevel.cancel_shielded_checkpoint
    )
    try:
        until = trio.current_time() + _SLICE
        # No checkpoint where it is short: what the caller knows of a run then still holds.
        while True:  # noqa: ASYNC913
            try:
                next(pieces)
            except StopIteration as end:
                result: T = end.value
                return result  # noqa: ASYNC910
            if trio.current_time() > until:
                await checkpoint()
                until = trio.current_time() + _SLICE
    finally:
        pieces.close()
