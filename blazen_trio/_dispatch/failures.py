"""A step has failed: it is tried again, or a handler takes it, or the run fails."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import trio

from blazen_trio._definitions.events import Event, StepFailedEvent
from blazen_trio._state.model import StoredError
from blazen_trio._state.texts import text_of, traceback_of
from blazen_trio.errors import SerializationError, StateConflictError, StepFailedError, StepOutputError

if TYPE_CHECKING:
    from blazen_trio._definitions.steps import StepDefinition
    from blazen_trio._dispatch.dispatcher import Dispatcher
    from blazen_trio._state.entry import Entry
    from blazen_trio._state.model import Delivery

__all__ = ["Failures", "contains", "described", "is_failure"]

_NEVER_RETRIED: Final = (StepOutputError, StateConflictError, SerializationError)
"""Faults of the code or its data, which another attempt would only repeat."""


class Failures:
    """Decides what becomes of the failed attempts of one run."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._d = dispatcher

    async def failed(self, delivery: Delivery, step: StepDefinition, error: BaseException, began: float | None) -> None:
        d = self._d
        await d.may_decide()
        if d.over:
            return
        moment = d.moment()
        since = delivery.since if delivery.since is not None else (began if began is not None else moment.at)
        delay, error = _next_delay(delivery, step, error, moment.at - since)
        error_type, text = type(error).__name__, text_of(error)
        if contains(error, (trio.Cancelled,)):
            text = "it raised a Cancelled that no cancel scope around it asked for: one leaked out of another task"
        duration = moment.at - began if began is not None else None
        d.recorder.record(
            "step_failed",
            moment.at,
            step=step.name,
            event_type=described(delivery),
            duration=duration,
            error=f"{error_type}: {text}",
            cause=error,
        )
        if delay is not None:
            d.recorder.record("step_retried", moment.at, step=step.name, event_type=described(delivery))
            await self._settle(d.machine.retried(delivery, moment.at + delay, since, moment))
            d.set_timer(moment.at + delay, delivery.id)
            return
        event = delivery.event if isinstance(delivery.event, Event) else list(delivery.event)
        failure = StepFailedEvent(step.name, event, error_type, text, delivery.attempt)
        entry = d.machine.handled(delivery, failure, d.encode, moment)
        if entry is not None:
            await self._settle(entry)
            d.absorb(entry)
            return
        kind = error_type if isinstance(error, (StepFailedError,)) else "StepFailedError"
        message = f"step {step.name!r} of run {d.state.run_id!r} failed"
        if delivery.attempt > 1:
            message += f" after {delivery.attempt} attempts"
        d.endings.fail(
            StoredError(
                kind,
                f"{message}: {error_type}: {text}",
                step=step.name,
                attempts=delivery.attempt,
                error_type=error_type,
                traceback=traceback_of(error),
            ),
            error,
        )

    async def _settle(self, entry: Entry) -> None:
        if self._d.journal is not None:
            await self._d.journal.write(entry)


def _next_delay(
    delivery: Delivery, step: StepDefinition, error: BaseException, elapsed: float
) -> tuple[float | None, BaseException]:
    """The seconds until the next attempt, `None` for no more; and what the step failed with: a `retry_on` that fails
    itself is a fault of the step.
    """
    if step.retry is None or not isinstance(error, Exception) or isinstance(error, _NEVER_RETRIED):
        return None, error
    try:
        return step.retry.next_delay(error, attempt=delivery.attempt, elapsed=elapsed, random=random.random()), error
    except Exception as fault:  # noqa: BLE001  # the user's function, as the step is
        return None, fault


def described(delivery: Delivery) -> str:
    """The type of a delivery's event, or of a join's events."""
    event = delivery.event
    if isinstance(event, Event):
        return event.event_type
    return f"list[{event[0].event_type if event else ''}]"


def is_failure(error: BaseException) -> bool:
    """Whether it is the step's failure: an `Exception`, a `Cancelled`, or a group of only these. KeyboardInterrupt,
    SystemExit and others of their kind are nobody's data.
    """
    if isinstance(error, BaseExceptionGroup):
        return error.split((Exception, trio.Cancelled))[1] is None
    return isinstance(error, (Exception, trio.Cancelled))


def contains(error: BaseException, types: tuple[type[BaseException], ...]) -> bool:
    """Whether it is one of these, or a group with one in it."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(types)[0] is not None
    return isinstance(error, types)
