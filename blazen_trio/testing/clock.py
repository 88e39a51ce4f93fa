"""A clock that jumps, for tests of workflows that wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable  # noqa: TC003  # part of the public signature
from typing import Any, TypeVar

import trio
import trio.testing

__all__ = ["run_without_waiting"]

T = TypeVar("T")


def run_without_waiting(async_fn: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run an async function like `trio.run`, with a clock that jumps while every task waits.

    The clock jumps to the next deadline, so retries, delayed events and timeouts of hours take no
    time. The runs' UTC jumps with it. Use it with runs in memory or on a `MemoryStore`. To Trio a
    thread is not a task, so the clock would also jump while a database writes or a synchronous step
    runs.

    Args:
        async_fn: The function to run.
        args: Its arguments.

    Returns:
        The function's result.
    """
    return trio.run(async_fn, *args, clock=trio.testing.MockClock(autojump_threshold=0))
