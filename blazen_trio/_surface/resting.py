"""Runs that wait without a task: what is kept of each until what it waits for has come."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

import attrs
import trio

from blazen_trio._surface.opening import open_rested

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Iterator

    from blazen_trio._dispatch.dispatcher import Dispatcher
    from blazen_trio._dispatch.journal import JournalMark
    from blazen_trio._state.history import HistoryRecord
    from blazen_trio._state.model import RunState
    from blazen_trio._surface.opening import Options

__all__ = ["RestingRun", "RestingRuns"]

_STALE_TIMES: Final = 64
"""So many outdated times are kept before they are thrown out."""


@attrs.frozen(eq=False)
class RestingRun:
    """A run that waits, on disk, and that this process goes on to drive when what it waits for has come.

    Attributes:
        options: How it is driven.
        state: Its state.
        mark: How far its journal is.
        records: Its history.
        context: The context variables that it was started with.
        since: When it began to rest, on Trio's clock.
        due: The soonest time that it waits for, on Trio's clock; infinity: none.
        wake: The same in UTC.
    """

    options: Options
    state: RunState
    mark: JournalMark
    records: list[HistoryRecord]
    context: contextvars.Context
    since: float
    due: float
    wake: float

    @classmethod
    def of(cls, dispatcher: Dispatcher, options: Options) -> RestingRun:
        """What is to be kept of a run whose dispatcher has left it at rest."""
        assert dispatcher.journal is not None
        timers = dispatcher.timers
        return cls(
            options,
            dispatcher.state,
            dispatcher.journal.mark,
            dispatcher.recorder.records,
            dispatcher.task_context,
            dispatcher.rest_began,
            timers.next,
            timers.due if timers else float("inf"),
        )

    @property
    def waits_for_a_time_only(self) -> bool:
        """Whether it goes on by itself, without anything from outside."""
        return self.due < float("inf") and not self.state.questions

    def left(self, failure: Exception | None = None) -> Dispatcher:
        """What tells, to who holds its `Run`, that it is not driven here any more; and why, if that is a fault."""
        dispatcher = self.brought_back()
        dispatcher.failure = failure
        dispatcher.detached = True
        dispatcher.broadcast.end(None)
        return dispatcher

    def brought_back(self) -> Dispatcher:
        """A dispatcher that goes on with it."""
        return open_rested(self.options, self.state, self.records, self.mark, self.context)


class RestingRuns:
    """The runs of one process that rest, by id, in the order in which they began to; and what is due when."""

    def __init__(self) -> None:
        self._runs: dict[str, RestingRun] = {}
        self._times: list[tuple[float, str]] = []
        self._changed = trio.Event()

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._runs

    def __iter__(self) -> Iterator[RestingRun]:
        """The run that has rested for the longest first."""
        return iter(self._runs.values())

    def add(self, run: RestingRun) -> None:
        """It rests from now on."""
        run_id = run.state.run_id
        self._runs[run_id] = run
        if run.due < float("inf"):
            if len(self._times) > 2 * len(self._runs) + _STALE_TIMES:
                self._times = [(each.due, name) for name, each in self._runs.items() if each.due < float("inf")]
                heapq.heapify(self._times)
            else:
                heapq.heappush(self._times, (run.due, run_id))
            if self._times[0][1] == run_id:
                self.tell()

    def take(self, run_id: str) -> RestingRun | None:
        """It rests no more; `None`: it did not."""
        return self._runs.pop(run_id, None)

    def tell(self) -> None:
        """Let `next` return."""
        self._changed.set()

    async def next(self) -> list[str]:
        """Wait until runs are due, or until told to return. Returns their ids; they still rest."""
        with trio.move_on_at(self._times[0][0] if self._times else float("inf")):
            await self._changed.wait()
        await trio.lowlevel.checkpoint()
        self._changed = trio.Event()
        due: list[str] = []
        now = trio.current_time()
        while self._times and self._times[0][0] <= now:
            time, run_id = heapq.heappop(self._times)
            run = self._runs.get(run_id)
            if run is not None and run.due == time:
                due.append(run_id)
        return due
