"""The interface between the engine and a telemetry listener.

Without a listener, `listener` is `None`. It is read once per run that a process starts to drive,
and once per batch that is written. Steps don't read it: runs with a listener have another class of
`Attempt`. Listeners are called synchronously: they must not wait and must not raise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Mapping

    from blazen_trio._state.model import RunState
    from blazen_trio._state.status import RunStatus

__all__ = [
    "AttemptListener",
    "Backlog",
    "Listener",
    "Population",
    "RunListener",
    "populations",
    "writers",
]


class AttemptListener(Protocol):
    """The listener to one attempt.

    It is entered around the whole attempt, so that the step's own work can be attributed to it.
    """

    def __enter__(self) -> object: ...

    def __exit__(self, *exception: object) -> None: ...

    def ended(self, outcome: str, error: BaseException | None) -> None:
        """Report the end of the attempt.

        Args:
            outcome: `completed`; `retried` or `failed`, after an error; `rerun`, if its commit
                conflicted; `cancelled`; `discarded`, if its run had ended before it.
            error: The error of a failed attempt.
        """


class RunListener(Protocol):
    """The listener to a run, from when this process starts to drive it until it leaves it."""

    @property
    def trace(self) -> Mapping[str, str] | None:
        """The trace context to store for later drivers, as W3C headers; `None` if there is none."""

    def driven_in(self, context: contextvars.Context) -> None:
        """Set up the context variables in whose copies the run's tasks will run."""

    def attempt(self, step: str, event_type: str, number: int) -> AttemptListener:
        """Return a listener to an attempt that is about to start; attempts count from 1."""

    def recorded(self, kind: str, at: float, detail: str | None) -> None:
        """Report a history record.

        Args:
            kind: The kind of the record.
            at: The time, in UTC (seconds since the epoch).
            detail: The error, or the reason of a pause.
        """

    def ended(self, state: RunState) -> None:
        """Report that this process no longer drives the run: it has ended, or was left."""

    def lost(self, failure: BaseException) -> None:
        """Report that this process no longer drives the run, since it could not continue it."""


class Listener(Protocol):
    """The listener to all stores and runs of this process."""

    def run(self, run_id: str, workflow: str, state: RunState | None = None) -> RunListener:
        """Return a listener to a run that is about to be driven.

        Args:
            run_id: The run's id.
            workflow: Its workflow's name.
            state: The stored state of the run; `None`: the run is new.
        """

    def submitted(self) -> Mapping[str, str] | None:
        """Return the trace context to store with a run that is about to be queued."""

    def run_ended(self, workflow: str, status: RunStatus, seconds: float) -> None:
        """Report the end of a run that had no driver, this long after its creation."""

    def batch_written(self, commits: int) -> None:
        """Report commits that one transaction has put on disk. Called in the writer's thread."""

    def lease_lost(self) -> None:
        """Report the loss of a lease and of all runs under it. Called in the writer's thread."""


class Backlog(Protocol):
    """The owner of a queue. Its length is read from any thread."""

    @property
    def waiting(self) -> int:
        """The length of the queue."""


class Population(Protocol):
    """The owner of many runs. Their numbers are read from any thread."""

    @property
    def working(self) -> int:
        """The number of runs at work."""

    @property
    def waiting(self) -> int:
        """The number of runs that wait or are paused."""


listener: Listener | None = None
"""The listener of this process; `None`: there is none."""
writers: Final[list[Backlog]] = []
"""The writers of the open stores."""
populations: Final[list[Population]] = []
"""The supervisors of the open runtimes."""
