"""What the engine tells to whoever listens, and how it finds out that nobody does: `listener` is `None`.

It is looked at once per run that begins to be driven, and once per batch that is written. A step asks nobody: runs that are listened to
have other `Attempts`. What is told here must be taken at once: nothing may wait, and nothing may be raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Mapping

    from blazen_trio._state.model import RunState

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
    """Hears of one attempt. Entered around all of it, so that the step's own work is told from that of others."""

    def __enter__(self) -> object: ...

    def __exit__(self, *exception: object) -> None: ...

    def ended(self, outcome: str, error: BaseException | None) -> None:
        """It is over.

        Args:
            outcome: `completed`; `retried` or `failed`, for an error; `rerun`, its commit came too late; `cancelled`; `discarded`, its run
                had ended before it.
            error: What it failed with.
        """


class RunListener(Protocol):
    """Hears of one driving of a run, from its beginning to where this process leaves it."""

    @property
    def trace(self) -> Mapping[str, str] | None:
        """What is to be stored with the run for those who drive it later, as W3C headers; `None`: nothing."""

    def driven_in(self, context: contextvars.Context) -> None:
        """What the run does goes on in copies of these context variables."""

    def attempt(self, step: str, event_type: str, number: int) -> AttemptListener:
        """A step is about to run; attempts count from 1."""

    def recorded(self, kind: str, at: float, detail: str | None) -> None:
        """Something of the history's kinds happened at this UTC; `detail` is its error, or why it pauses."""

    def ended(self, state: RunState) -> None:
        """This process drives it no more: it has ended, or is left as it stands."""

    def lost(self, failure: BaseException) -> None:
        """This process drives it no more, since the engine could not go on with it."""


class Listener(Protocol):
    """Hears of all that this process does."""

    def run(self, run_id: str, workflow: str, state: RunState | None = None) -> RunListener:
        """A run is about to be driven here; `state`: as it was left, of one that is not new."""

    def submitted(self) -> Mapping[str, str] | None:
        """A run is about to be queued: what is to be stored with it for whoever drives it."""

    def run_ended(self, state: RunState) -> None:
        """A run has ended, driven by nobody."""

    def batch_written(self, commits: int) -> None:
        """So many commits are on disk, in one transaction. Called in the writer's thread."""

    def lease_lost(self) -> None:
        """What this opening of a store drove is driven by others now. Called in the writer's thread."""


class Backlog(Protocol):
    """What has a queue; asked from any thread."""

    @property
    def waiting(self) -> int:
        """How many wait in it."""


class Population(Protocol):
    """What drives many runs; asked from any thread."""

    @property
    def working(self) -> int:
        """How many are at work."""

    @property
    def waiting(self) -> int:
        """How many wait or are paused."""


listener: Listener | None = None
"""Whoever listens."""
writers: Final[list[Backlog]] = []
"""Of the stores that are open."""
populations: Final[list[Population]] = []
"""Of the runtimes that are open."""
