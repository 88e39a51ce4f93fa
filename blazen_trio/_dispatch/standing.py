"""Where a run stands that is being driven, and why its period is to end early."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Standing"]


class Standing:
    """What those who act on a run leave word of, for its driver to act on once no step is in flight; and what it tells of itself."""

    __slots__ = (
        "abandoned",
        "asking",
        "at_rest",
        "attending",
        "cancel_reason",
        "cause",
        "changed",
        "closing",
        "detached",
        "dismissed",
        "draining",
        "failure",
        "has_asked",
        "has_slot",
        "holds",
        "leaving",
        "over",
        "parked",
        "paused",
        "pauses",
        "pins",
        "rest_began",
        "unpauses",
    )

    def __init__(self) -> None:
        self.over = False
        """The run has ended, in memory: nothing of it commits any more."""
        self.holds = 0
        """How many want the run to be paused: no new step may start."""
        self.pauses = self.unpauses = 0
        """How often it was paused, and told to go on."""
        self.cancel_reason: tuple[str | None] | None = None
        self.failure: BaseException | None = None
        """The engine's own: the store failed, or the run was lost to another process."""
        self.cause: BaseException | None = None
        """The exception that failed the run, as long as this process lives."""
        self.leaving = False
        """Nobody is there any more to answer or unpause: don't wait for it."""
        self.abandoned = False
        """The block that held the run has ended: somebody else, later, may send what it waits for."""
        self.dismissed = False
        """The run is to leave this process as soon as it rests, whatever it waits for; somebody takes it up when that comes."""
        self.draining = False
        """No new step may start, and once those in flight have ended the run leaves this process; somebody else goes on with it."""
        self.closing = False
        """This process is writing down what is committed and giving the run back: nothing may be decided any more."""
        self.rest_began = 0.0
        """When the present rest began, on Trio's clock."""
        self.parked = False
        """The run waits for something from outside or for a time, and that is on disk."""
        self.paused = False
        """The run is paused, and that is on disk."""
        self.at_rest = False
        """The run waits, on disk, and has left its task; its host brings it back with another dispatcher."""
        self.detached = False
        """This process drives the run no more."""
        self.changed = trio.Event()
        """Set, and replaced, whenever the status or what it rests on changes."""
        self.pins = 0
        """How many tasks rely on this very object to drive the run."""
        self.attending = False
        """A task of the period waits for signals."""
        self.has_slot = False
        """It holds one of its host's slots."""
        self.asking: set[str] | None = None
        """The questions that the input handler is at work on."""
        self.has_asked = False
        """The questions that were open when this was made have been asked already."""

    def notify(self) -> None:
        """Let those who wait for the run look again."""
        self.changed.set()
        self.changed = trio.Event()

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """While somebody watches the run or is about to act on it: it may wait, and not leave for a rest."""
        self.pins += 1
        try:
            yield
        finally:
            self.pins -= 1
