"""What happens in a run, told to its history, to the log and, as lifecycle events, to its streams."""

from __future__ import annotations

import contextvars
import datetime as dt
import logging
from typing import TYPE_CHECKING

from blazen_trio._codec.histories import UnwrittenHistory
from blazen_trio._definitions.events import LifecycleEvent
from blazen_trio._state.history import HistoryRecord
from blazen_trio._telemetry.logs import LEVELS, log_record

if TYPE_CHECKING:
    from blazen_trio._dispatch.streams import Broadcast
    from blazen_trio._telemetry.hooks import RunListener

__all__ = ["Recorder"]

_ALWAYS = frozenset(
    {
        "workflow_started",
        "step_failed",
        "event_rejected",
        "workflow_completed",
        "workflow_failed",
        "workflow_timed_out",
        "workflow_cancelled",
    }
)
"""What a history tells even when it is off: the start, the end and the failures."""


class Recorder:
    """Keeps a run's history. `detailed` is false where nobody wants more than the start, the end and the failures.

    Args:
        broadcast: The run's streams.
        history: Whether the history has all that happens.
        lifecycle: Whether the streams have it, too.
        stored: Whether a store keeps the history.
    """

    __slots__ = (
        "_broadcast",
        "_history",
        "_lifecycle",
        "context",
        "detailed",
        "fresh",
        "listener",
        "log_from",
        "records",
        "run",
        "unwritten",
    )

    def __init__(
        self, broadcast: Broadcast, *, history: bool, lifecycle: bool, stored: bool
    ) -> None:
        self._broadcast = broadcast
        self._history = history
        self._lifecycle = lifecycle
        self.detailed = history or lifecycle
        self.records: list[HistoryRecord] = []
        self.unwritten = UnwrittenHistory() if stored else None
        """Those that the store does not have yet, and no commit has taken; `None`: no store keeps any."""
        self.run = ("", "")
        """The run's id, and its workflow's name."""
        self.log_from = logging.WARNING
        """The level from which on it is worth asking the log."""
        self.listener: RunListener | None = None
        """Who is told, too."""
        self.context = contextvars.copy_context()
        """The run's own context variables."""

    def log_from_level(self, level: int) -> None:
        """Log what is at least as important as this, from here on."""
        self.log_from = level
        self.detailed = self.detailed or level <= logging.DEBUG

    def load(self, records: list[HistoryRecord]) -> None:
        """Go on with the history of an earlier process, which the store has."""
        self.records = records

    def record(
        self,
        kind: str,
        at: float,
        *,
        step: str | None = None,
        event_type: str | None = None,
        duration: float | None = None,
        error: str | None = None,
        cause: BaseException | None = None,
        context: contextvars.Context | None = None,
    ) -> None:
        """Note that something happened, at this UTC (seconds since the epoch).

        Args:
            kind: One of the history's.
            at: When.
            step: Which step's it is.
            event_type: Which event it is about.
            duration: How long it took.
            error: What went wrong, for people.
            cause: What went wrong; the log has its traceback.
            context: The context variables that the log sees; by default the run's.
        """
        if self._history or kind in _ALWAYS:
            sequence = self.records[-1].sequence + 1 if self.records else 1
            when = dt.datetime.fromtimestamp(at, dt.UTC)
            made = HistoryRecord(sequence, when, kind, step, event_type, duration, error)
            self.records.append(made)
            if self.unwritten is not None:
                self.unwritten.add(made)
        if self._lifecycle:
            self._broadcast.publish(LifecycleEvent(kind, step, event_type, duration, error))
        if self.log_from <= LEVELS[kind]:
            # Not in those of the task, which is a step's: what that has set there ends with it, and
            # who logs by them (error trackers do) would put it down to others.
            # A copy, since one context can't be entered twice, and a log's handler may log itself.
            (context or self.context).copy().run(
                log_record,
                self.run,
                kind,
                step=step,
                event_type=event_type,
                duration=duration,
                error=error,
                cause=cause,
            )
        if self.listener is not None:
            self.listener.recorded(kind, at, error)
