"""Runs that wait without a task, and the data kept of each until it can continue."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final, Protocol

import attrs

from blazen_trio._concurrency import Changes
from blazen_trio._dispatch.control import Phase
from blazen_trio._surface.prepare import open_rested

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Iterator, Sequence

    from blazen_trio._dispatch.core import RunCore
    from blazen_trio._dispatch.journal import JournalMark
    from blazen_trio._dispatch.schedule import Timers
    from blazen_trio._state.entry import HistoryRecord
    from blazen_trio._state.model import RunState
    from blazen_trio._stores.driver import Driver, Mail
    from blazen_trio._surface.prepare import Options

__all__ = ["ParkedRun", "ParkedRuns", "Parking"]

_STALE_TIMES: Final = 64
"""The number of outdated times above which the heap of times is rebuilt."""


class Parking(Protocol):
    """The receiver of the store's calls about runs that wait without a task."""

    def mail_came(self, run_id: str, mail: Sequence[Mail]) -> None:
        """Take inbox messages that have arrived for a waiting run."""

    def lost(self, run_id: str, error: Exception) -> None:
        """Note that a waiting run was lost to another process."""


@attrs.frozen(eq=False)
class ParkedRun:
    """A run that waits, on disk, and that this process resumes when what it waits for arrives.

    Attributes:
        options: The options for driving it.
        state: Its state.
        driver: The token with which this process drives it.
        mark: The extent of its stored journal.
        records: Its history.
        context: The context variables that it was started with.
        since: The start of its wait, on Trio's clock.
        timers: Its timers; `None`: there are none.
        parking: Notified of its inbox messages and of its loss.
    """

    options: Options
    state: RunState
    driver: Driver
    mark: JournalMark
    records: list[HistoryRecord]
    context: contextvars.Context
    since: float
    timers: Timers | None
    parking: Parking

    @classmethod
    def of(cls, core: RunCore, options: Options, parking: Parking) -> ParkedRun:
        """Return the data of a run that is about to wait without a task."""
        assert core.journal is not None
        return cls(
            options,
            core.state,
            core.journal.driver,
            core.journal.mark,
            core.recorder.records,
            core.task_context,
            core.rest_began,
            core.timers or None,
            parking,
        )

    @property
    def due(self) -> float:
        """The earliest time that the run waits for, in UTC; infinity if there is none."""
        return float("inf") if self.timers is None else self.timers.next

    @property
    def waits_for_a_time_only(self) -> bool:
        """True if the run continues by itself, without anything from outside."""
        return self.due < float("inf") and not self.state.questions

    def mail_came(self, mail: Sequence[Mail]) -> None:
        """See `DriverListener`."""
        self.parking.mail_came(self.state.run_id, mail)

    def driver_lost(self, error: Exception) -> None:
        """See `DriverListener`."""
        self.parking.lost(self.state.run_id, error)

    def left(self, failure: Exception | None = None) -> RunCore:
        """Return a core that has left the run, for the holder of its `Run`.

        A `Run` needs a core to answer from. This one drives nothing, and says why.

        Args:
            failure: The reason, if it is an error.
        """
        core = self.brought_back()
        self.driver.listen(None)
        if failure is not None:
            core.control.fail(failure)
        core.broadcast.end(None)
        core.enter(Phase.CLOSING)
        core.enter(Phase.LEFT)
        return core

    def brought_back(self) -> RunCore:
        """Return a core that continues the run."""
        core = open_rested(
            self.options,
            self.state,
            self.driver,
            self.records,
            self.mark,
            self.timers,
            self.context,
        )
        core.rest_began = self.since  # a caller's visit does not end the wait
        return core


class ParkedRuns:
    """The runs of one process that wait without a task, longest wait first, and their timers."""

    def __init__(self) -> None:
        self._runs: dict[str, ParkedRun] = {}
        self._times: list[tuple[float, str]] = []
        self.changes = Changes()
        """Notified when the earliest time changes, and when runs leave."""

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._runs

    def __iter__(self) -> Iterator[ParkedRun]:
        """Iterate over the runs, starting with the longest wait."""
        return iter(self._runs.values())

    @property
    def next(self) -> float:
        """The earliest time that a run waits for, in UTC; infinity if there is none."""
        return self._times[0][0] if self._times else float("inf")

    def add(self, run: ParkedRun) -> None:
        """Add a run. Inbox messages that have already arrived are passed on before this returns.

        Listening comes last, since it passes them on: the run is then brought back, which takes it
        out of the tables. Before that, it must be in them.
        """
        run_id = run.state.run_id
        self._runs[run_id] = run
        if run.due < float("inf"):
            if len(self._times) > 2 * len(self._runs) + _STALE_TIMES:
                self._times = [
                    (each.due, name) for name, each in self._runs.items() if each.due < float("inf")
                ]
                heapq.heapify(self._times)
            else:
                heapq.heappush(self._times, (run.due, run_id))
            if self._times[0][1] == run_id:
                self.changes.notify()
        run.driver.listen(run)

    def take(self, run_id: str) -> ParkedRun | None:
        """Remove and return a run; `None` if it is not one of these."""
        return self._runs.pop(run_id, None)

    def due(self, now: float) -> list[str]:
        """Return the ids of the runs that are due, which stay among these.

        A time in the heap may be stale: its run was taken out, or has parked again for another
        time. It is compared with the run's own, and dropped.
        """
        due: list[str] = []
        while self._times and self._times[0][0] <= now:
            time, run_id = heapq.heappop(self._times)
            run = self._runs.get(run_id)
            if run is not None and run.due == time:
                due.append(run_id)
        return due
