"""The errors that blazen_trio raises.

All derive from `WorkflowError`. They carry the run's id (`run_id`, `None` if the error is not about
a run) and their parts as attributes, so that a program never has to parse a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

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
    """Base class of every error of this package.

    Attributes:
        run_id: The run that the error is about, or `None`.
    """

    def __init__(self, message: str, *, run_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.run_id = run_id


class WorkflowValidationError(WorkflowError):
    """A workflow or a step is declared incorrectly. Raised when it is built, with every fault.

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
    """An event was sent to a run that has no step to accept it. Raised in the sender.

    Attributes:
        event_type: The event's type.
    """

    def __init__(self, message: str, *, run_id: str | None = None, event_type: str) -> None:
        super().__init__(message, run_id=run_id)
        self.event_type = event_type


class StepFailedError(WorkflowError):
    """A step failed for good, and its run with it. `__cause__` is the exception that it raised.

    Another process doesn't have the cause; `error_type`, the message and `traceback` describe it.

    Attributes:
        step_name: The step's name (`"input_handler"` for the run's input handler).
        attempts: The number of attempts made, including the first.
        error_type: The class name of the exception that the step raised.
        traceback: Its traceback and those of its causes, as text. A long one is cut to its last
            16 KiB. Empty if no step raised an exception.
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
    """A step returned or sent something that it does not declare.

    It is never retried, because only a change of the code can fix it.
    """


class StateConflictError(StepFailedError):
    """A step changed a value from `ctx.get` in place and never set it, so the change would be lost.

    It is never retried.
    """


class RunTimeoutError(WorkflowError):
    """The run used up its `timeout`.

    Attributes:
        timeout: The run's timeout, in seconds.
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
        snapshot: The `Snapshot` that was taken when the run was paused.
    """

    def __init__(self, message: str, *, run_id: str | None = None, snapshot: Any) -> None:
        super().__init__(message, run_id=run_id)
        self.snapshot = snapshot

    @classmethod
    def paused(cls, run_id: str, snapshot: Any, advice: str) -> Self:
        """Return the error for a run that is paused, with advice on how to continue it."""
        return cls(f"run {run_id!r} is paused: {advice}", run_id=run_id, snapshot=snapshot)


class InputRequiredError(WorkflowError):
    """The run waits for an answer, and no other part of it can continue.

    Answer it with `respond` or `resume_with_input`.

    Attributes:
        request: The oldest open `InputRequestEvent`.
        requests: All open requests, oldest first.
        snapshot: The run's `Snapshot`.
    """

    def __init__(
        self, message: str, *, run_id: str | None = None, requests: Sequence[Any], snapshot: Any
    ) -> None:
        super().__init__(message, run_id=run_id)
        self.requests = tuple(requests)
        self.request = self.requests[0]
        self.snapshot = snapshot

    @classmethod
    def waiting(cls, run_id: str, requests: Sequence[Any], snapshot: Any) -> Self:
        """Return the error for a run that waits for answers to these requests, oldest first."""
        message = f"run {run_id!r} waits for an answer to {requests[0].prompt!r:.200}"
        if len(requests) > 1:
            message += f" and {len(requests) - 1} more"
        return cls(message, run_id=run_id, requests=requests, snapshot=snapshot)


class InputResponseError(WorkflowError):
    """A response names a request that is not open: it is unknown or already answered.

    Attributes:
        request_id: The id that the response names.
    """

    def __init__(self, message: str, *, run_id: str | None = None, request_id: str) -> None:
        super().__init__(message, run_id=run_id)
        self.request_id = request_id


class RunCancelledError(WorkflowError):
    """The run was cancelled with `cancel()`.

    Attributes:
        reason: The reason given to `cancel`, or `None`.
    """

    def __init__(
        self, message: str, *, run_id: str | None = None, reason: str | None = None
    ) -> None:
        super().__init__(message, run_id=run_id)
        self.reason = reason


class RunCrashedError(WorkflowError):
    """The run was quarantined: its drivers kept dying or failing before a step could commit.

    Attributes:
        crashes: The number of drivers that died or failed since a step of the run last committed.
    """

    def __init__(self, message: str, *, run_id: str | None = None, crashes: int) -> None:
        super().__init__(message, run_id=run_id)
        self.crashes = crashes

    @classmethod
    def set_aside(cls, run_id: str, cause: str, crashes: int) -> Self:
        """Return the error for a run that was set aside for this cause."""
        message = (
            f"run {run_id!r} is set aside: {cause}. Find and fix the cause; resume_from then tries "
            "the run again"
        )
        return cls(message, run_id=run_id, crashes=crashes)


class RunStalledError(WorkflowError):
    """The run has no pending work, nothing can arrive, and no step returned a `StopEvent`.

    Attributes:
        half_collected: The incomplete joins and `ctx.collect` buffers, one sentence each.
    """

    def __init__(
        self, message: str, *, run_id: str | None = None, half_collected: Sequence[str] = ()
    ) -> None:
        super().__init__(message, run_id=run_id)
        self.half_collected = tuple(half_collected)


class RunFinishedError(WorkflowError):
    """The operation is impossible because the run has ended.

    Attributes:
        status: The status in which the run ended.
    """

    def __init__(self, message: str, *, run_id: str | None = None, status: Any) -> None:
        super().__init__(message, run_id=run_id)
        self.status = status

    @classmethod
    def ended(cls, run_id: str, status: Any, consequence: str) -> Self:
        """Return the error for a run that has ended, with what is therefore impossible."""
        message = f"run {run_id!r} has ended ({status.value}): {consequence}"
        return cls(message, run_id=run_id, status=status)

    @classmethod
    def left(cls, run_id: str, status: Any, advice: str) -> Self:
        """Return the error for a run that this process has left, with advice on what to do."""
        message = f"run {run_id!r} is no longer driven by this process: {advice}"
        return cls(message, run_id=run_id, status=status)


class SerializationError(WorkflowError):
    """A value can't be stored, or stored data does not match its type.

    Attributes:
        subject: The event type or the state key concerned.
        path: The place in it: field names, keys and indices, joined; empty for the whole value.
        newer: Whether a newer version of the program stored it: its `schema_version` is greater
            than that of the class.
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
    """The store has no run with this id."""


class RunExistsError(WorkflowError):
    """The store already has a run with this id. `resume_from` continues it."""


class RunLockedError(WorkflowError):
    """The run has a live driver.

    Attributes:
        owner: The driver's host and process id, as far as known.
    """

    def __init__(self, message: str, *, run_id: str | None = None, owner: str = "") -> None:
        super().__init__(message, run_id=run_id)
        self.owner = owner


class StaleRunError(WorkflowError):
    """Another process took the run over, or the store has a later state of it.

    Nothing was written.
    """


class IncompatibleRunError(WorkflowError):
    """A stored run does not fit the workflow that should continue it.

    Attributes:
        problems: One sentence per mismatch.
    """

    def __init__(self, message: str, *, run_id: str | None = None, problems: Sequence[str]) -> None:
        super().__init__(message, run_id=run_id)
        self.problems = tuple(problems)


class StoreError(WorkflowError):
    """The store failed: a write is not known to be on disk. `__cause__` is the reason."""


class SchemaError(StoreError):
    """The database does not have the schema that this version needs, or is another program's."""
