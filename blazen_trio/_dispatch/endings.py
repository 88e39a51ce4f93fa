"""How a run ends: each way is one transition, after which nothing of the run commits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blazen_trio._state.model import StoredError
from blazen_trio._state.status import RunStatus

if TYPE_CHECKING:
    from blazen_trio._dispatch.dispatcher import Dispatcher
    from blazen_trio._state.entry import Entry

__all__ = ["Endings"]


class Endings:
    """Ends one run. `drive` sees the end to the disk, and tells of it."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._d = dispatcher

    def end(self, entry: Entry, *, by_worker: bool = False) -> None:
        """A transition ended the run: nothing commits after it. `drive` sees it to the disk and tells of it."""
        self._d.over = True
        if self._d.journal is not None:
            self._d.journal.record(entry)
        if self._d.workers.count > by_worker:
            self._d.stop_period("the run has ended")
        else:
            # Nobody is in flight but the worker itself, if it is one, which ends by itself: no scope has to be cancelled.
            self._d.wake()

    def fail(self, error: StoredError, cause: BaseException | None) -> None:
        """The run fails; what is undone stays so, for another try."""
        self._d.cause = cause
        moment = self._d.moment()
        self._d.recorder.record("workflow_failed", moment.at, step=error.step or None, error=error.message)
        self.end(self._d.machine.changed("failed", RunStatus.FAILED, moment, error))

    def record_stop(self, entry: Entry, *, by_worker: bool = False) -> None:
        """A `StopEvent` has been committed in memory."""
        assert entry.stop is not None
        self._d.recorder.record("workflow_completed", entry.at, step=entry.step, event_type=entry.stop.event_type)
        self.end(entry, by_worker=by_worker)

    def timed_out(self) -> None:
        active = tuple(sorted(self._d.workers.interrupted))
        moment = self._d.moment()
        message = f"run {self._d.state.run_id!r} took longer than its timeout of {self._d.state.timeout:g} s"
        if active:
            message += f"; in flight: {', '.join(active)}"
        error = StoredError("RunTimeoutError", message, details=active)
        self._d.recorder.record("workflow_timed_out", moment.at, error=message)
        self.end(self._d.machine.changed("timed_out", RunStatus.TIMED_OUT, moment, error))

    def cancelled(self, reason: str | None) -> None:
        moment = self._d.moment()
        message = f"run {self._d.state.run_id!r} was cancelled" + (f": {reason}" if reason else "")
        error = StoredError("RunCancelledError", message, details=() if reason is None else (reason,))
        self._d.recorder.record("workflow_cancelled", moment.at, error=reason)
        self.end(self._d.machine.changed("cancelled", RunStatus.CANCELLED, moment, error))

    def stalled(self) -> None:
        half = self._d.machine.half_collected()
        message = f"run {self._d.state.run_id!r} stalled: nothing is left to do, no event can come, and no StopEvent was returned"
        if half:
            message += "; half collected: " + "; ".join(half)
        self.fail(StoredError("RunStalledError", message, details=half), None)
