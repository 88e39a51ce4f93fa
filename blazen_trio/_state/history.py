"""What happened in a run, for people: the records of its history."""

from __future__ import annotations

import datetime as dt  # noqa: TC003  # attrs resolves it

import attrs

__all__ = ["HistoryRecord"]


@attrs.frozen
class HistoryRecord:
    """One thing that happened to a run.

    Attributes:
        sequence: Counts the run's records from 1, over all processes that drove it.
        timestamp: When, UTC.
        kind: `workflow_started`, `event_received`, `step_dispatched`, `step_completed`, `step_failed`, `step_retried`,
            `workflow_paused`, `workflow_resumed`, `input_requested`, `input_received`, `event_rejected`,
            `workflow_completed`, `workflow_failed`, `workflow_timed_out` or `workflow_cancelled`.
        step: The step's name, where one is concerned.
        event_type: The event's type, where one is concerned.
        duration: In seconds, of an attempt that ended.
        error: What went wrong; of a pause, whether it was `manual` or for `input`.
    """

    sequence: int
    timestamp: dt.datetime
    kind: str
    step: str | None = None
    event_type: str | None = None
    duration: float | None = None
    error: str | None = None
