"""The statistics of a runtime."""

from __future__ import annotations

import attrs

__all__ = ["RuntimeStatistics"]


@attrs.frozen
class RuntimeStatistics:
    """The present load of a runtime, and counts since it was opened.

    Attributes:
        driving: The number of runs that it drives now.
        resting: The number of these that wait without a task.
        free_slots: The number of further runs that could be at work.
        watching: The number of other processes' runs that have waiters in this one.
        started: The runs that `start` and `resume_from` have opened.
        taken: The runs that `serve` and `recover` have taken.
        ended: The runs of all these that have ended in this process.
        left: The runs that have left otherwise: waiting, paused, drained, or lost.
        refused: The times that a run could not be driven and was left to others.
        polls: The polls of the store.
        mail: The inbox messages that have arrived.
    """

    driving: int
    resting: int
    free_slots: int
    watching: int
    started: int
    taken: int
    ended: int
    left: int
    refused: int
    polls: int
    mail: int
