"""Calls of steps, and the classification of their failures.

An async step runs in the calling task, a synchronous one in a thread, both within the step's
timeout. The other functions decide whether an exception is a failure of the step, whether it is
retried, and how it is stored.
"""

from __future__ import annotations

import inspect
import random
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from blazen_trio._state.model import StoredError
from blazen_trio._state.safe_text import text_of, traceback_of
from blazen_trio.errors import (
    SerializationError,
    StateConflictError,
    StepFailedError,
    StepOutputError,
    StepTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blazen_trio._definitions.steps import StepDefinition
    from blazen_trio._state.model import Delivery

__all__ = [
    "LONGEST_HOLD",
    "breaks_out",
    "call",
    "hold_after",
    "is_failure",
    "next_delay",
    "run_bounded",
    "stored_error",
    "text_of_failure",
]


_THREADS: Final = 40
"""Synchronous steps that run at once in one `trio.run`, across all runs."""

_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar(
    "blazen_trio step threads"
)


@trio.lowlevel.disable_ki_protection
async def call(function: Callable[..., Awaitable[Any]], arguments: tuple[Any, ...]) -> Any:
    """Call an async step without Ctrl-C protection.

    A step is user code, which Ctrl-C may interrupt anywhere. The engine around it is protected.
    """
    return await function(*arguments)


@trio.lowlevel.enable_ki_protection
async def run_bounded(step: StepDefinition, arguments: tuple[Any, ...]) -> Any:
    """Run a step with a timeout, or in a thread.

    Raises:
        StepTimeoutError: It took longer than its timeout.
        Exception: Any exception that the step raises.
    """
    limit = float("inf") if step.timeout is None else step.timeout
    with trio.move_on_after(limit) as scope:
        if step.is_async:
            result = await call(step.call, arguments)
        else:
            # In a tuple: Trio rejects a bare coroutine returned from a thread as a mistake.
            in_thread = partial(_in_tuple, step.call, *arguments)
            [result] = await trio.to_thread.run_sync(in_thread, limiter=_step_threads())
            if step.wraps_async and inspect.isawaitable(result):
                result = await call(_awaited, (result,))
        if not scope.cancel_called:
            return result
        # The result is too late: a thread can't be interrupted, and a step may shield itself.
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
    """Return the limiter that all runs of this `trio.run` share.

    Not Trio's default limiter: blocking steps must not starve the store or the program's other
    threads. Shared by all runs, because it bounds the threads of the process.
    """
    try:
        return _limiter.get()
    except LookupError:
        limiter = trio.CapacityLimiter(_THREADS)
        _limiter.set(limiter)
        return limiter


LONGEST_HOLD: Final = 60.0
"""The longest hold, in seconds."""
_FIRST_HOLD: Final = 0.25
"""Seconds for which no worker takes a run that could not be driven; doubled each time."""

_NEVER_RETRIED: Final = (StepOutputError, StateConflictError, SerializationError)
"""Faults of the code or its data, which another attempt would only repeat."""


def hold_after(times: int) -> float:
    """Return the hold, in seconds, of a run that could not be driven `times` times before."""
    return min(LONGEST_HOLD, _FIRST_HOLD * 2.0 ** min(times, 60))


def next_delay(
    delivery: Delivery, step: StepDefinition, error: BaseException, elapsed: float
) -> tuple[float | None, BaseException]:
    """Return the seconds until the next attempt (`None`: there is none) and the step's error.

    A retry policy that raises counts as a fault of the step: its exception is the step's error.
    """
    if step.retry is None or not isinstance(error, Exception) or _contains(error, _NEVER_RETRIED):
        return None, error
    try:
        return step.retry.next_delay(
            error, attempt=delivery.attempt, elapsed=elapsed, random=random.random()
        ), error
    except Exception as fault:  # noqa: BLE001  # the user's function, as the step is
        return None, fault


def text_of_failure(error: BaseException) -> str:
    if _contains(error, trio.Cancelled):
        return (
            "it raised a trio.Cancelled although no cancel scope around it was cancelled: "
            "the exception leaked from another task"
        )
    return text_of(error)


def stored_error(run_id: str, delivery: Delivery, error: BaseException, text: str) -> StoredError:
    """Return a step's final failure as it is stored."""
    error_type = type(error).__name__
    message = f"step {delivery.step!r} of run {run_id!r} failed"
    if delivery.attempt > 1:
        message += f" after {delivery.attempt} attempts"
    return StoredError(
        error_type if isinstance(error, StepFailedError) else "StepFailedError",
        f"{message}: {error_type}: {text}",
        step=delivery.step,
        attempts=delivery.attempt,
        error_type=error_type,
        traceback=traceback_of(error),
    )


def is_failure(error: BaseException) -> bool:
    """Return whether an error is a failure of user code, which is stored as data.

    That is an `Exception`, a `Cancelled`, or a group of only these. `KeyboardInterrupt`,
    `SystemExit` and the like are never stored.
    """
    if isinstance(error, BaseExceptionGroup):
        return error.split((Exception, trio.Cancelled))[1] is None
    return isinstance(error, (Exception, trio.Cancelled))


def breaks_out(error: BaseException) -> bool:
    """Return whether an error ends the program and not only the run.

    It does if it is, or contains, a `KeyboardInterrupt` or `SystemExit`.
    """
    return _contains(error, KeyboardInterrupt) or _contains(error, SystemExit)


def _contains(
    error: BaseException, kind: type[BaseException] | tuple[type[BaseException], ...]
) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.split(kind)[0] is not None
    return isinstance(error, kind)
