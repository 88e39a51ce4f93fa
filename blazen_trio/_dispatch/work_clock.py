"""How long a run has been at work, which is what its timeout bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from blazen_trio._state.model import RunState

__all__ = ["WorkClock"]


class WorkClock:
    """Counts while step tasks are at work, and stands still while the run waits or is paused.

    It is apart from the nursery in which they run: while it counts, the deadline of that nursery's
    scope is when the run's timeout is used up; else there is none.

    Args:
        state: The run's.
    """

    __slots__ = ("_began", "_elapsed", "_state", "trio_time")

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._elapsed = state.elapsed
        self._began: float | None = None
        self.trio_time = trio.lowlevel.current_clock().current_time
        """Returns what `trio.current_time` does in this `trio.run`, without looking up which one
        it is."""

    @property
    def elapsed(self) -> float:
        """Seconds at work so far, in all processes that drove the run."""
        if self._began is None:
            return self._elapsed
        return self._elapsed + self.trio_time() - self._began

    @property
    def used_up(self) -> bool:
        """Whether the run has used its timeout up."""
        return self._state.timeout is not None and self.elapsed >= self._state.timeout

    def restart(self, elapsed: float) -> None:
        """Go on from there."""
        self._elapsed = elapsed

    def start(self, scope: trio.CancelScope) -> None:
        """The first step task begins. Its scope is cancelled when the timeout is used up."""
        began = self._began = self.trio_time()
        if self._state.timeout is not None:
            scope.deadline = began + max(0.0, self._state.timeout - self._elapsed)

    def stop(self, scope: trio.CancelScope | None) -> None:
        """The last step task has ended; without a scope, the run has ended too.

        A deadline that has passed stays: it has to cancel whatever waits in the scope.
        """
        self._elapsed, self._began = self.elapsed, None
        if scope is not None and self._state.timeout is not None and not self.used_up:
            scope.deadline = float("inf")
