"""A durable, event-driven, pausable workflow engine for Trio.

A step is a transaction over its run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blazen_trio._codec.names import DynamicValue
from blazen_trio._definitions.events import (
    Delayed,
    DynamicEvent,
    Event,
    InputRequestEvent,
    InputResponseEvent,
    Lagged,
    LifecycleEvent,
    StartEvent,
    StepFailedEvent,
    StopEvent,
)
from blazen_trio._definitions.retry import RetryPolicy
from blazen_trio._definitions.steps import step
from blazen_trio._dispatch.observers import EventStream
from blazen_trio._state.entry import HistoryRecord
from blazen_trio._state.status import RunStatus
from blazen_trio._stores.open_store import open_store
from blazen_trio._surface.context import Context
from blazen_trio._surface.run import Run
from blazen_trio._surface.workflow import Workflow
from blazen_trio.errors import (
    IncompatibleRunError,
    InputRequiredError,
    InputResponseError,
    NoHandlerError,
    RunCancelledError,
    RunCrashedError,
    RunExistsError,
    RunFinishedError,
    RunLockedError,
    RunNotFoundError,
    RunPausedError,
    RunStalledError,
    RunTimeoutError,
    SchemaError,
    SerializationError,
    SnapshotVersionError,
    StaleRunError,
    StateConflictError,
    StepFailedError,
    StepOutputError,
    StepTimeoutError,
    StoreError,
    UnstorableFieldWarning,
    WorkflowError,
    WorkflowValidationError,
)

if TYPE_CHECKING:
    from blazen_trio._codec.snapshot import Snapshot
    from blazen_trio._runtime.open_runtime import open_runtime
    from blazen_trio._runtime.runtime import Runtime
    from blazen_trio._runtime.statistics import RuntimeStatistics
    from blazen_trio._stores.memory import MemoryStore
    from blazen_trio._stores.protocol import CheckpointStore, RunInfo

__version__ = "0.1.0"

__all__ = [
    "CheckpointStore",
    "Context",
    "Delayed",
    "DynamicEvent",
    "DynamicValue",
    "Event",
    "EventStream",
    "HistoryRecord",
    "IncompatibleRunError",
    "InputRequestEvent",
    "InputRequiredError",
    "InputResponseError",
    "InputResponseEvent",
    "Lagged",
    "LifecycleEvent",
    "MemoryStore",
    "NoHandlerError",
    "RetryPolicy",
    "Run",
    "RunCancelledError",
    "RunCrashedError",
    "RunExistsError",
    "RunFinishedError",
    "RunInfo",
    "RunLockedError",
    "RunNotFoundError",
    "RunPausedError",
    "RunStalledError",
    "RunStatus",
    "RunTimeoutError",
    "Runtime",
    "RuntimeStatistics",
    "SchemaError",
    "SerializationError",
    "Snapshot",
    "SnapshotVersionError",
    "StaleRunError",
    "StartEvent",
    "StateConflictError",
    "StepFailedError",
    "StepFailedEvent",
    "StepOutputError",
    "StepTimeoutError",
    "StopEvent",
    "StoreError",
    "UnstorableFieldWarning",
    "Workflow",
    "WorkflowError",
    "WorkflowValidationError",
    "open_runtime",
    "open_store",
    "step",
]

_WHEN_ASKED_FOR = {
    "CheckpointStore": "blazen_trio._stores.protocol",
    "MemoryStore": "blazen_trio._stores.memory",
    "RunInfo": "blazen_trio._stores.protocol",
    "Runtime": "blazen_trio._runtime.runtime",
    "RuntimeStatistics": "blazen_trio._runtime.statistics",
    "Snapshot": "blazen_trio._codec.snapshot",
    "open_runtime": "blazen_trio._runtime.open_runtime",
}
"""Names that many programs don't need, and their modules, which are imported on first use."""

if not TYPE_CHECKING:  # with a module `__getattr__`, type checkers accept every misspelt name

    def __getattr__(name: str) -> object:
        if name not in _WHEN_ASKED_FOR:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(_WHEN_ASKED_FOR[name]), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
