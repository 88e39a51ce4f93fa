"""What a runtime has done so far."""

from __future__ import annotations

import attrs

__all__ = ["RuntimeStatistics"]


@attrs.frozen
class RuntimeStatistics:
    """What a runtime has done so far, and what it does now.

    Attributes:
        driving: How many runs it drives now.
        resting: How many of these wait, and have no task.
        free_slots: How many more could be at work.
        watching: How many runs of others somebody here waits for.
        started: How many runs `start` and `resume_from` began to drive.
        taken: How many were taken by `serve` and `recover`.
        ended: How many of all these have ended here.
        left: How many have left otherwise: at rest, drained, or lost.
        refused: How often a run could not be driven here and was left to others.
        polls: How many looks at the store there were.
        mail: How many rows of inboxes these brought.
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
