"""Every error that blazen_trio raises, and when.

All derive from `WorkflowError` and carry the run's id (`run_id`, `None` where no run is concerned) and
their parts as attributes, so that a program never has to parse a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "IncompatibleRunError",
    "InputRequiredError",
    "InputResponseError",
    "NoHandlerError",
    "RunCancelledError",
    "RunCrashedError",
    "RunExistsError",
    "RunFinishedError",
    "RunLockedError",
    "RunNotFoundError",
    "RunPausedError",
    "RunStalledError",
    "RunTimeoutError",
    "SchemaError",
    "SerializationError",
    "SnapshotVersionError",
    "StaleRunError",
    "StateConflictError",
    "StepFailedError",
    "StepOutputError",
    "StepTimeoutError",
    "StoreError",
    "UnstorableFieldWarning",
    "WorkflowError",
    "WorkflowValidationError",
]


class WorkflowError(Exception):
    """Base of every error of this package.

    Attributes:
        run_id: The run concerned, or `None`.
    """

    def __init__(self, message: str, *, run_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.run_id = run_id


class WorkflowValidationError(WorkflowError):
    """A workflow or a step is declared wrongly. Raised when it is built, with every fault at once.

    Attributes:
        errors: One sentence per fault.
    """

    def __init__(self, subject: str, errors: Sequence[str]) -> None:
        self.errors = tuple(errors)
        faults = "".join(f"\n  - {fault}" for fault in self.errors)
        super().__init__(f"{subject} is not valid:{faults}")


class UnstorableFieldWarning(UserWarning):
    """A field of an event is declared with a type of which no value can be stored.

    Given when a workflow is built. Runs without a store are not concerned; annotate the field `Any`
    where only they use it.
    """


class NoHandlerError(WorkflowError):
    """An event was sent to a run of whose steps none accepts it; raised to its sender.

    Attributes:
        event_type: The event's type.
    """

    def __init__(self, message: str, *, run_id: str | None = None, event_type: str) -> None:
        super().__init__(message, run_id=run_id)
        self.event_type = event_type


class StepFailedError(WorkflowError):
    """A step failed for good, and with it the run. `__cause__` is the exception that the step raised.

    In another process the cause is gone, and `error_type`, the message and `traceback` tell of it.

    Attributes:
        step_name: The step's name (`"input_handler"` for the run's input handler).
        attempts: How many attempts were made, the first included.
        error_type: The class name of the exception that the step raised.
        traceback: Its traceback with those of its causes, as text, of a long one the last 16 KiB; empty where no step raised.
    """

    def __init__(
        self,
        message: str,
        *,
        run_id: str | None = None,
        step_name: str,
        attempts: int = 1,
        error_type: str = "",
        traceback: str = "",
    ) -> None:
        super().__init__(message, run_id=run_id)
        self.traceback = traceback
        self.step_name = step_name
        self.attempts = attempts
        self.error_type = error_type


class StepTimeoutError(StepFailedError):
    """One attempt of a step took longer than the step's `timeout` (seconds)."""


class StepOutputError(StepFailedError):
    """A step returned or sent what it does not declare. Never retried: the code has to change."""


class StateConflictError(StepFailedError):
    """A value that `ctx.get` handed out was changed in place and never set: a write that would be lost. Never retried."""


class RunTimeoutError(WorkflowError):
    """The run used up its `timeout`.

    Attributes:
        timeout: The run's time, in seconds.
        active_steps: The names of the steps that were in flight.
    """

    def __init__(
        self,
        message: str,
        *,
        run_id: str | None = None,
        timeout: float,
        active_steps: Sequence[str] = (),
    ) -> None:
        super().__init__(message, run_id=run_id)
        self.timeout = timeout
        self.active_steps = tuple(active_steps)


class RunPausedError(WorkflowError):
    """The run is paused, so it has no result yet.

    Attributes:
        snapshot: The `Snapshot` taken when it was paused.
    """

    def __init__(self, message: str, *, run_id: str | None = None, snapshot: Any) -> None:
        super().__init__(message, run_id=run_id)
        self.snapshot = snapshot


class InputRequiredError(WorkflowError):
    """The run waits for an answer, and nothing else in it can go on. Answer it with `respond` or `resume_with_input`.

    Attributes:
        request: The oldest open `InputRequestEvent`.
        requests: All open ones, oldest first.
        snapshot: The run's `Snapshot`.
    """

    def __init__(
        self, message: str, *, run_id: str | None = None, requests: Sequence[Any], snapshot: Any
    ) -> None:
        super().__init__(message, run_id=run_id)
        self.requests = tuple(requests)
        self.request = self.requests[0]
        self.snapshot = snapshot


class InputResponseError(WorkflowError):
    """A response names a request that is not open: unknown, or answered already.

    Attributes:
        request_id: The id that the response names.
    """

    def __init__(self, message: str, *, run_id: str | None = None, request_id: str) -> None:
        super().__init__(message, run_id=run_id)
        self.request_id = request_id


class RunCancelledError(WorkflowError):
    """The run was cancelled with `cancel()`.

    Attributes:
        reason: What was given to `cancel`, or `None`.
    """

    def __init__(
        self, message: str, *, run_id: str | None = None, reason: str | None = None
    ) -> None:
        super().__init__(message, run_id=run_id)
        self.reason = reason


class RunCrashedError(WorkflowError):
    """The run was set aside: one after the other who drove it died or failed, and no step of it was
    committed in between.

    Attributes:
        crashes: How many did.
    """

    def __init__(self, message: str, *, run_id: str | None = None, crashes: int) -> None:
        super().__init__(message, run_id=run_id)
        self.crashes = crashes


class RunStalledError(WorkflowError):
    """Nothing is left to do, nothing can come, and no `StopEvent` was returned.

    Attributes:
        half_collected: What waits in joins and `ctx.collect` for more: one sentence each.
    """

    def __init__(
        self, message: str, *, run_id: str | None = None, half_collected: Sequence[str] = ()
    ) -> None:
        super().__init__(message, run_id=run_id)
        self.half_collected = tuple(half_collected)


class RunFinishedError(WorkflowError):
    """What was asked of a run needs one that has not ended.

    Attributes:
        status: How the run ended.
    """

    def __init__(self, message: str, *, run_id: str | None = None, status: Any) -> None:
        super().__init__(message, run_id=run_id)
        self.status = status


class SerializationError(WorkflowError):
    """A value can't be stored, or stored data does not fit its type.

    Attributes:
        subject: The event type or the state key concerned.
        path: Where in it: field names, keys and indices, joined; empty for the whole.
        newer: Whether it was stored by a newer version of the program: its `schema_version` is greater than that of the class.
    """

    def __init__(
        self,
        message: str,
        *,
        run_id: str | None = None,
        subject: str = "",
        path: str = "",
        newer: bool = False,
    ) -> None:
        super().__init__(message, run_id=run_id)
        self.subject = subject
        self.path = path
        self.newer = newer


class SnapshotVersionError(SerializationError):
    """A snapshot or a journal entry was written by a newer version of this package.

    Attributes:
        found: The version found.
        supported: The newest version that can be read.
    """

    def __init__(
        self, message: str, *, run_id: str | None = None, found: int, supported: int
    ) -> None:
        super().__init__(message, run_id=run_id, subject="snapshot")
        self.found = found
        self.supported = supported


class RunNotFoundError(WorkflowError):
    """The store knows no run of this id."""


class RunExistsError(WorkflowError):
    """The store has a run of this id already; `resume_from` goes on with it."""


class RunLockedError(WorkflowError):
    """Somebody alive drives this run.

    Attributes:
        owner: Who: host and process id, as far as known.
    """

    def __init__(self, message: str, *, run_id: str | None = None, owner: str = "") -> None:
        super().__init__(message, run_id=run_id)
        self.owner = owner


class StaleRunError(WorkflowError):
    """The run was taken over by another process, or the store knows it further on: nothing was written."""


class IncompatibleRunError(WorkflowError):
    """A stored run does not fit the workflow that is to go on with it.

    Attributes:
        problems: One sentence per misfit.
    """

    def __init__(self, message: str, *, run_id: str | None = None, problems: Sequence[str]) -> None:
        super().__init__(message, run_id=run_id)
        self.problems = tuple(problems)


class StoreError(WorkflowError):
    """The store failed: what was to be written is not known to be on disk. `__cause__` tells why."""


class SchemaError(StoreError):
    """The database's schema is not the one that this version needs, or the file is no such database."""
