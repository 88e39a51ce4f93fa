"""What is a failure of a step, whether it is tried again, and how it is told."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import trio

from blazen_trio._state.model import StoredError
from blazen_trio._state.texts import text_of, traceback_of
from blazen_trio.errors import (
    SerializationError,
    StateConflictError,
    StepFailedError,
    StepOutputError,
)

if TYPE_CHECKING:
    from blazen_trio._definitions.steps import StepDefinition
    from blazen_trio._state.model import Delivery

__all__ = [
    "LONGEST_HOLD",
    "breaks_out",
    "hold_after",
    "is_failure",
    "next_delay",
    "stored_error",
    "text_of_failure",
]

LONGEST_HOLD: Final = 60.0
_FIRST_HOLD: Final = 0.25
"""Seconds for which nobody takes a run that could not be driven; twice as long each time."""

_NEVER_RETRIED: Final = (StepOutputError, StateConflictError, SerializationError)
"""Faults of the code or its data, which another attempt would only repeat."""


def hold_after(times: int) -> float:
    """Return for how many seconds nobody is to take a run that could not be driven, and so many
    times before either.
    """
    return min(LONGEST_HOLD, _FIRST_HOLD * 2.0 ** min(times, 60))


def next_delay(
    delivery: Delivery, step: StepDefinition, error: BaseException, elapsed: float
) -> tuple[float | None, BaseException]:
    """Return the seconds until the next attempt, `None` for no more; and what the step failed with: a `retry_on` that fails
    itself is a fault of the step.
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
        return "it raised a Cancelled that no cancel scope around it asked for: one leaked out of another task"
    return text_of(error)


def stored_error(run_id: str, delivery: Delivery, error: BaseException, text: str) -> StoredError:
    """Return the failure of a step for good, as it is stored."""
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
    """Return whether it is a failure of user code: an `Exception`, a `Cancelled`, or a group of only these. KeyboardInterrupt,
    SystemExit and others of their kind are nobody's data.
    """
    if isinstance(error, BaseExceptionGroup):
        return error.split((Exception, trio.Cancelled))[1] is None
    return isinstance(error, (Exception, trio.Cancelled))


def breaks_out(error: BaseException) -> bool:
    """Return whether it ends the program, and not only the run: it is, or has in it, a KeyboardInterrupt or SystemExit."""
    return _contains(error, KeyboardInterrupt) or _contains(error, SystemExit)


def _contains(
    error: BaseException, kind: type[BaseException] | tuple[type[BaseException], ...]
) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.split(kind)[0] is not None
    return isinstance(error, kind)
