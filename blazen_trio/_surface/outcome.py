"""The link between a `Run` and the core that drives it, and the errors with which runs end."""

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
    """Return a run's result: that of a plain `StopEvent`, or the event itself if a subclass."""
    return stop.result if type(stop) is StopEvent else stop


def ended_error(state: RunState, cause: BaseException | None = None) -> errors.WorkflowError:
    """Return a new exception for a run that has failed, timed out or been cancelled.

    Its cause is the step's own exception, if this process has it.
    """
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
    """Return a failure of the engine; if it is an error of this package, as a new exception."""
    if isinstance(failure, errors.StoreError | errors.StaleRunError):
        error = type(failure)(failure.message, run_id=failure.run_id or run_id)
        error.__cause__ = failure.__cause__ or failure
        return error
    return failure


class Handle:
    """The link from a `Run` to the run's core or, while the run rests, to the way of resuming it.

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
        """The one `Run` of this handle, if it is still referenced; the `Run` keeps this alive."""
        self.state = core.state
        self.records = core.recorder.records
        self.told = False
        """True once a caller has got the run's outcome, or the reason why it does not continue."""
        self.cancelled_here = False
        """True if the run was cancelled through this handle."""

    @property
    def core(self) -> RunCore:
        """The core of the run. Using it resumes a resting run."""
        if self._core is None:
            assert self._bring_back is not None
            self._core = self._bring_back()
        return self._core

    def attach(self, core: RunCore) -> None:
        """Link to the core that drives the run from now on."""
        self._core, self._bring_back = core, None

    def rest(self, bring_back: Callable[[], RunCore]) -> None:
        """Unlink the core of a resting run; `bring_back` is called on the next use."""
        self._core, self._bring_back = None, bring_back
