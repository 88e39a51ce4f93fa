"""Runs that wait without a task: what is kept of each until what it waits for has come."""

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
"""So many outdated times are kept before they are thrown out."""


class Parking(Protocol):
    """Hears of runs that wait without a task."""

    def mail_came(self, run_id: str, mail: Sequence[Mail]) -> None:
        """Somebody has sent this to a run that waits here."""

    def lost(self, run_id: str, error: Exception) -> None:
        """A run that waits here is somebody else's now."""


@attrs.frozen(eq=False)
class ParkedRun:
    """A run that waits, on disk, and that this process goes on to drive when what it waits for has come.

    Attributes:
        options: How it is driven.
        state: Its state.
        driver: The token by which this process drives it.
        mark: How far its journal is.
        records: Its history.
        context: The context variables that it was started with.
        since: When it began to wait, on Trio's clock.
        timers: The times that it waits for; `None`: there are none.
        parking: Hears of its mail, and of its loss.
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
        """Keep what is needed of a run that has left its task at rest."""
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
        """The soonest time that it waits for, UTC; infinity: none."""
        return float("inf") if self.timers is None else self.timers.next

    @property
    def waits_for_a_time_only(self) -> bool:
        """Return whether it goes on by itself, without anything from outside."""
        return self.due < float("inf") and not self.state.questions

    def mail_came(self, mail: Sequence[Mail]) -> None:
        """See `DriverListener`."""
        self.parking.mail_came(self.state.run_id, mail)

    def driver_lost(self, error: Exception) -> None:
        """See `DriverListener`."""
        self.parking.lost(self.state.run_id, error)

    def left(self, failure: Exception | None = None) -> RunCore:
        """Return what tells, to who holds its `Run`, that it is not driven here any more; and why, if that is a fault."""
        core = self.brought_back()
        self.driver.listen(None)
        if failure is not None:
            core.control.fail(failure)
        core.broadcast.end(None)
        core.enter(Phase.CLOSING)
        core.enter(Phase.LEFT)
        return core

    def brought_back(self) -> RunCore:
        """Return what goes on with it."""
        return open_rested(
            self.options,
            self.state,
            self.driver,
            self.records,
            self.mark,
            self.timers,
            self.context,
        )


class ParkedRuns:
    """The runs of one process that wait without a task, by id, in the order in which they began to; and what is due when."""

    def __init__(self) -> None:
        self._runs: dict[str, ParkedRun] = {}
        self._times: list[tuple[float, str]] = []
        self.changes = Changes()
        """Told when another one is due soonest, or none is waited for any more."""

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._runs

    def __iter__(self) -> Iterator[ParkedRun]:
        """Begin with the run that has waited for the longest."""
        return iter(self._runs.values())

    @property
    def next(self) -> float:
        """The soonest time that one waits for, UTC; infinity: none."""
        return self._times[0][0] if self._times else float("inf")

    def add(self, run: ParkedRun) -> None:
        """It waits here from now on. Tells of what comes at once, if something came already."""
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
        """Take it out; `None`: it does not wait here."""
        return self._runs.pop(run_id, None)

    def due(self, now: float) -> list[str]:
        """Return the ids of those whose time has come; they still wait here."""
        due: list[str] = []
        while self._times and self._times[0][0] <= now:
            time, run_id = heapq.heappop(self._times)
            run = self._runs.get(run_id)
            if run is not None and run.due == time:
                due.append(run_id)
        return due
