"""Tests of workflows that wait, without waiting."""

from __future__ import annotations

from collections.abc import Awaitable, Callable  # noqa: TC003  # part of the public signature
from typing import Any, TypeVar

import trio
import trio.testing

__all__ = ["run_without_waiting"]

T = TypeVar("T")


def run_without_waiting(async_fn: Callable[..., Awaitable[T]], *args: Any) -> T:
    """`trio.run`, with a clock that jumps to the next deadline whenever every task waits: retries, delayed events and timeouts
    of hours take no time, and UTC as the runs see it jumps along.

    Use it with runs in memory or on a `MemoryStore`. To Trio a thread is no task, so the clock would also jump while a
    database writes, or a synchronous step runs.

    Args:
        async_fn: What to run.
        args: Its arguments.

    Returns:
        What it returns.
    """
    return trio.run(async_fn, *args, clock=trio.testing.MockClock(autojump_threshold=0))
