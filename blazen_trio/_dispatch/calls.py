"""Call a step: an async one here, another one in a thread; within its timeout, if it has one."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from blazen_trio.errors import StepTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blazen_trio._definitions.steps import StepDefinition

__all__ = ["call", "run_bounded"]

_THREADS: Final = 40
"""Synchronous steps that run at once in one `trio.run`, whatever runs they belong to."""

_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar(
    "blazen_trio step threads"
)


@trio.lowlevel.disable_ki_protection
async def call(function: Callable[..., Awaitable[Any]], arguments: tuple[Any, ...]) -> Any:
    """Call an async step. Ctrl-C may interrupt it anywhere, as any code of the user's; the engine around it is protected."""
    return await function(*arguments)


@trio.lowlevel.enable_ki_protection
async def run_bounded(step: StepDefinition, arguments: tuple[Any, ...]) -> Any:
    """Run a step with a timeout, or in a thread.

    Raises:
        StepTimeoutError: It took too long.
        Exception: Whatever the step raises.
    """
    limit = float("inf") if step.timeout is None else step.timeout
    with trio.move_on_after(limit) as scope:
        if step.is_async:
            result = await call(step.call, arguments)
        else:
            # In a tuple: Trio takes a coroutine that a thread returns for a mistake of its own.
            in_thread = partial(_in_tuple, step.call, *arguments)
            [result] = await trio.to_thread.run_sync(in_thread, limiter=_step_threads())
            if step.wraps_async and inspect.isawaitable(result):
                result = await call(_awaited, (result,))
        if not scope.cancel_called:
            return result
        # It comes too late: a thread can't be interrupted, and a step may shield itself.
    raise StepTimeoutError(
        f"step {step.name!r} took longer than its timeout of {limit:g} s",
        step_name=step.name,
        error_type="StepTimeoutError",
    )


def _in_tuple(function: Callable[..., Any], *arguments: Any) -> tuple[Any]:
    return (function(*arguments),)


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


def _step_threads() -> trio.CapacityLimiter:
    """Return the one limiter of this `trio.run`: its own, so that steps that block starve neither the store nor the program's other
    threads; and one for all runs, since a process may have only so many threads.
    """
    try:
        return _limiter.get()
    except LookupError:
        limiter = trio.CapacityLimiter(_THREADS)
        _limiter.set(limiter)
        return limiter
