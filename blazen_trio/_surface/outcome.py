"""How a run that came to rest is told: its result, or one exception."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blazen_trio import errors
from blazen_trio._definitions.events import StopEvent
from blazen_trio._state.status import RunStatus

if TYPE_CHECKING:
    from blazen_trio._state.model import RunState

__all__ = ["ended_error", "engine_error", "result_of"]


def result_of(stop: Any) -> Any:
    """A run's result: a plain `StopEvent`'s, or the event of a subclass itself."""
    return stop.result if type(stop) is StopEvent else stop


def ended_error(state: RunState, cause: BaseException | None = None) -> errors.WorkflowError:
    """Why a run that has failed, timed out or been cancelled did: a new exception, with the step's own as its cause."""
    stored = state.error
    assert stored is not None, "a run that has no result has an error"
    run_id = state.run_id
    error: errors.WorkflowError
    if state.status is RunStatus.CANCELLED:
        reason = stored.details[0] if stored.details else None
        error = errors.RunCancelledError(stored.message, run_id=run_id, reason=reason)
    elif state.status is RunStatus.TIMED_OUT:
        timeout = state.timeout if state.timeout is not None else float("inf")
        error = errors.RunTimeoutError(
            stored.message, run_id=run_id, timeout=timeout, active_steps=stored.details
        )
    elif stored.kind == "RunStalledError":
        error = errors.RunStalledError(stored.message, run_id=run_id, half_collected=stored.details)
    elif stored.kind == "RunCrashedError":
        error = errors.RunCrashedError(stored.message, run_id=run_id, crashes=stored.attempts)
    elif stored.kind == "NoHandlerError":
        event_type = stored.details[0] if stored.details else ""
        error = errors.NoHandlerError(stored.message, run_id=run_id, event_type=event_type)
    else:
        cls = _STEP_ERRORS.get(stored.kind, errors.StepFailedError)
        error = cls(
            stored.message,
            run_id=run_id,
            step_name=stored.step,
            attempts=stored.attempts,
            error_type=stored.error_type,
            traceback=stored.traceback,
        )
    error.__cause__ = cause
    return error


_STEP_ERRORS = {
    cls.__name__: cls
    for cls in (errors.StepTimeoutError, errors.StepOutputError, errors.StateConflictError)
}


def engine_error(failure: BaseException, run_id: str) -> BaseException:
    """The engine's own failure, as a new exception where it is one of ours."""
    if isinstance(failure, errors.StoreError | errors.StaleRunError):
        error = type(failure)(failure.message, run_id=failure.run_id or run_id)
        error.__cause__ = failure.__cause__ or failure
        return error
    return failure
