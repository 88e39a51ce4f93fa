"""The attempts in a run's history: when each started and ended, and why there were gaps.

A history has no ids of deliveries. The end of an attempt has its duration, and thereby its start.
An attempt that started but has no end was interrupted (by a pause, a crash or the end of the run),
was run again on newer state, or is still under way.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

import attrs

from blazen_trio._pictures.happened import is_detailed
from blazen_trio._state.status import RunStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blazen_trio._codec.snapshot import Snapshot
    from blazen_trio._state.entry import HistoryRecord

__all__ = ["IDLE", "Attempt", "History", "Idle", "read_history"]

IDLE: Final = {
    "waiting": "waiting for an answer, an event, a due time or a commit",
    "paused": "paused",
    "dead": "no driver",
    "ended": "ended, later resumed",
}
"""Why no attempt was under way. A run has no driver if its process died, or released it while
waiting.
"""

_ENDS: Final = {"workflow_completed", "workflow_failed", "workflow_timed_out", "workflow_cancelled"}
_SHORTEST_WAIT: Final = 0.05  # seconds; a shorter gap may be the commit


@attrs.define
class Attempt:
    """An attempt at a delivery. Times are seconds since the run's first record.

    Attributes:
        step: The step.
        event_type: The type of its event.
        start: When it started.
        end: When it ended; an estimate if its end was not recorded.
        outcome: `completed`, `failed`, `retried` (failed, and to be tried again) or `unfinished`.
        error: The error that it failed with.
    """

    step: str
    event_type: str
    start: float
    end: float
    outcome: str
    error: str | None = None


@attrs.frozen
class Idle:
    """A time in which no attempt was under way; `kind` is one of `IDLE`."""

    kind: str
    start: float
    end: float


@attrs.frozen
class History:
    """The times in a run's history, in seconds since its first record.

    Attributes:
        length: The time of the last record.
        attempts: The attempts by step, in the order in which the steps started.
        questions: (event type, when asked, when answered) of each question; an open one ends with
            the picture.
        idle: The idle times, in order and disjoint.
        detailed: Whether the history records attempts at all.
    """

    length: float
    attempts: dict[str, list[Attempt]]
    questions: list[tuple[str, float, float]]
    idle: list[Idle]
    detailed: bool


@attrs.define
class _Period:
    """A time in which one process drove the run."""

    start: float
    end: float = 0.0
    ended_by: str = "dead"
    begun: defaultdict[tuple[str, str], list[float]] = attrs.Factory(lambda: defaultdict(list))
    left: defaultdict[tuple[str, str], list[float]] = attrs.Factory(lambda: defaultdict(list))
    """The starts in `begun` of attempts that have not ended."""


def read_history(snapshot: Snapshot) -> History:
    """Return the times in a run's history."""
    records = snapshot.history
    if not records:
        return History(0.0, {}, [], [], detailed=False)
    reader = _Reader(records)
    undone = Counter(delivery.step for delivery in snapshot.deliveries)
    reader.finish(Counter() if snapshot.status is RunStatus.COMPLETED else undone)
    return History(
        reader.now,
        dict(reader.attempts),
        reader.questions(),
        reader.idle(),
        detailed=is_detailed(records),
    )


class _Reader:
    def __init__(self, records: Sequence[HistoryRecord]) -> None:
        self.attempts: defaultdict[str, list[Attempt]] = defaultdict(list)
        self.now = 0.0
        self._origin = records[0].timestamp
        self._periods = [_Period(0.0)]
        self._open: list[tuple[str, float, int]] = []
        self._answered: list[tuple[str, float, float]] = []
        self._spans: list[tuple[float, float]] = []
        for record in records:
            # The clock may have been set back, but time in the picture must never go back.
            before, self.now = (
                self.now,
                max(self.now, (record.timestamp - self._origin).total_seconds()),
            )
            self._read(record, before)

    def _read(self, record: HistoryRecord, before: float) -> None:
        period = self._periods[-1]
        key = (record.step or "", record.event_type or "")
        if record.kind == "step_dispatched":
            self.attempts[key[0]]  # the order of the rows
            period.begun[key].append(self.now)
            period.left[key].append(self.now)
        elif record.kind in ("step_completed", "step_failed"):
            self._ended(record, key, period)
        elif record.kind == "step_retried":
            for attempt in self.attempts[key[0]][-1:]:
                attempt.outcome = "retried"
        elif record.kind == "workflow_resumed":
            if period.ended_by == "dead":
                period.end = before
            self._periods.append(_Period(self.now))
        elif record.kind in _ENDS or (
            record.kind == "workflow_paused" and record.error == "manual"
        ):
            period.end, period.ended_by = self.now, "ended" if record.kind in _ENDS else "paused"
        elif record.kind == "input_requested":
            self._asked(key[1])
        elif record.kind == "input_received" and self._open:
            event_type, start, _ = self._open.pop(0)
            self._answered.append((event_type, start, self.now))

    def _ended(self, record: HistoryRecord, key: tuple[str, str], period: _Period) -> None:
        left = period.left[key]
        start = self.now if record.duration is None else max(0.0, self.now - record.duration)
        if left:
            place = bisect_left(left, start)
            if place == len(left) or (place and start - left[place - 1] < left[place] - start):
                place -= 1
            start = left.pop(place)
        outcome = record.kind.removeprefix("step_")
        self.attempts[key[0]].append(Attempt(*key, start, self.now, outcome, record.error))

    def _asked(self, event_type: str) -> None:
        """Add a question, unless it is an open one that was asked again after a resume."""
        latest = len(self._periods)
        for index, (known, start, period) in enumerate(self._open):
            if known == event_type and period < latest:
                self._open[index] = (known, start, latest)
                return
        self._open.append((event_type, self.now, latest))

    def finish(self, undone: Counter[str]) -> None:
        """Add the attempts whose end was not recorded.

        As many of them as were started again in the next period, or are pending now, lasted to the
        end of their period. The others were re-run at once.
        """
        last = self._periods[-1]
        if last.ended_by == "dead":
            last.end = self.now
        for period, following in zip(self._periods, [*self._periods[1:], None], strict=True):
            for key, left in period.left.items():
                lasting = undone[key[0]] if following is None else len(following.begun[key])
                for index, start in enumerate(left):
                    place = bisect_right(period.begun[key], start)
                    again = (
                        period.begun[key][place] if place < len(period.begun[key]) else period.end
                    )
                    end = period.end if len(left) - index <= lasting else again
                    self.attempts[key[0]].append(
                        Attempt(*key, start, max(start, end), "unfinished")
                    )
        for attempts in self.attempts.values():
            attempts.sort(key=lambda attempt: attempt.start)

    def questions(self) -> list[tuple[str, float, float]]:
        return sorted(
            [*self._answered, *((type_, start, self.now) for type_, start, _ in self._open)],
            key=lambda q: q[1],
        )

    def idle(self) -> list[Idle]:
        found = []
        self._spans = sorted(
            (one.start, one.end) for attempts in self.attempts.values() for one in attempts
        )
        for period, following in zip(self._periods, [*self._periods[1:], None], strict=True):
            found += self._waits(period)
            if following is not None and following.start > period.end:
                found.append(Idle(period.ended_by, period.end, following.start))
        return found

    def _waits(self, period: _Period) -> list[Idle]:
        """Return the gaps between a period's attempts."""
        first, last = (
            bisect_left(self._spans, (period.start,)),
            bisect_right(self._spans, (period.end, math.inf)),
        )
        spans = self._spans[first:last]
        found, covered = [], period.start
        for start, end in [*spans, (period.end, period.end)]:
            if start - covered >= _SHORTEST_WAIT:
                found.append(Idle("waiting", covered, start))
            covered = max(covered, end)
        return found
