"""What a `Run` knows of the run behind it: where it is driven now, and how its end is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blazen_trio import errors
from blazen_trio._definitions.events import StopEvent
from blazen_trio._state.status import RunStatus

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable

    from blazen_trio._dispatch.core import RunCore
    from blazen_trio._state.model import RunState

__all__ = [
    "Handle",
    "ended_error",
    "engine_error",
    "result_of",
]


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


class Handle:
    """What a `Run` is a handle of: the run's core; or, while it rests, what brings it back.

    Args:
        core: The run.
    """

    __slots__ = (
        "__weakref__",
        "_bring_back",
        "_core",
        "cancelled_here",
        "held",
        "records",
        "state",
        "told",
    )

    def __init__(self, core: RunCore) -> None:
        self._core: RunCore | None = core
        self._bring_back: Callable[[], RunCore] | None = None
        self.held: weakref.ref[Any] | None = None
        """The one `Run` of this, if somebody has it; it keeps this in memory."""
        self.state = core.state
        self.records = core.recorder.records
        self.told = False
        """Whether somebody has been told how the run ended, or why it does not go on."""
        self.cancelled_here = False
        """Whether the run was cancelled through this."""

    @property
    def core(self) -> RunCore:
        """The run; one that rests is brought back."""
        if self._core is None:
            assert self._bring_back is not None
            self._core = self._bring_back()
        return self._core

    def attach(self, core: RunCore) -> None:
        """This drives it from now on."""
        self._core, self._bring_back = core, None

    def rest(self, bring_back: Callable[[], RunCore]) -> None:
        """It rests; this is to be called when it is used."""
        self._core, self._bring_back = None, bring_back
