"""The observers of a run: its history, its event streams, the log and telemetry.

Each stream has its own bounded buffer, so a slow reader never slows the run.
"""

from __future__ import annotations

import contextvars
import datetime as dt
import logging
from typing import TYPE_CHECKING

import trio

from blazen_trio._codec.histories import UnwrittenHistory
from blazen_trio._definitions.events import Event, Lagged, LifecycleEvent, StopEvent
from blazen_trio._state.entry import HistoryRecord
from blazen_trio._telemetry.logs import LEVELS, log_record

if TYPE_CHECKING:
    from types import TracebackType

    from blazen_trio._telemetry.hooks import RunListener

__all__ = [
    "Broadcast",
    "EventStream",
    "Recorder",
]


class EventStream:
    """An async iterator over the events that a run publishes, from its creation to the run's end.

    A reader that falls behind by more than the buffer loses the oldest events and gets a
    `Lagged(count)` in their place. To stop observing before the run's end, use the stream as an
    `async with` block, or call `close()`.
    """

    def __init__(self, broadcast: Broadcast, buffer: int) -> None:
        self._broadcast = broadcast
        self._send, self._receive = trio.open_memory_channel[Event](buffer)
        self._dropped = 0

    def _put(self, event: Event) -> None:
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self._receive.receive_nowait()
            self._dropped += 1
            self._send.send_nowait(event)

    def _end(self) -> None:
        self._send.close()

    def close(self) -> None:
        """Stop observing; the events in the buffer are dropped."""
        self._broadcast.forget(self)
        self._send.close()
        self._receive.close()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        if self._dropped:
            await trio.lowlevel.checkpoint()
            count, self._dropped = self._dropped, 0
            return Lagged(count)
        try:
            return await self._receive.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise StopAsyncIteration from None

    async def __aenter__(self) -> EventStream:
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Broadcast:
    """The distributor of events to all streams of a run."""

    __slots__ = ("_ended", "_last", "_prologue", "_streams")

    def __init__(self) -> None:
        self._streams: list[EventStream] = []
        self._prologue: list[Event] | None = []
        """Events published before the run is driven, when no stream of it can exist yet."""
        self._last: StopEvent | None = None
        self._ended = False

    @property
    def observed(self) -> bool:
        """True if there is a stream that has not ended."""
        return bool(self._streams)

    def subscribe(self, buffer: int) -> EventStream:
        """Return a new stream. That of an ended run contains only its `StopEvent`, if any.

        Raises:
            ValueError: `buffer` is not a positive number of events.
        """
        if type(buffer) is not int or buffer < 1:
            msg = f"stream(buffer={buffer!r}): buffer must be a number of events, at least 1"
            raise ValueError(msg)
        stream = EventStream(self, buffer)
        for event in self._prologue or ():
            stream._put(event)  # noqa: SLF001
        if self._ended:
            if self._last is not None:
                stream._put(self._last)  # noqa: SLF001
            stream._end()  # noqa: SLF001
        else:
            self._streams.append(stream)
        return stream

    def forget(self, stream: EventStream) -> None:
        if stream in self._streams:
            self._streams.remove(stream)

    def publish(self, event: Event) -> None:
        """Hand an event to every stream at once."""
        if self._prologue is not None:
            self._prologue.append(event)
        for stream in self._streams:
            stream._put(event)  # noqa: SLF001

    def begin(self) -> None:
        """Stop keeping events for new streams: from now on, each starts with the next event."""
        self._prologue = None

    def end(self, last: StopEvent | None) -> None:
        """End every stream, after the event `last` if there is one."""
        if self._ended:
            return
        self._ended, self._last = True, last
        for stream in self._streams:
            if last is not None:
                stream._put(last)  # noqa: SLF001
            stream._end()  # noqa: SLF001
        self._streams.clear()


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
"""The records that are kept even with the history off: the start, the end and the failures."""


class Recorder:
    """The recorder of a run's history, which also feeds the log, telemetry and the streams.

    `detailed` is false if no observer wants more than the start, the end and the failures.

    Args:
        broadcast: The run's streams.
        history: Whether to record everything that happens.
        lifecycle: Whether to publish it to the streams as well.
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
        """The records that no commit contains yet; `None`: no store keeps the history."""
        self.run = ("", "")
        """The run's id, and its workflow's name."""
        self.log_from = logging.WARNING
        """The lowest level at which a record is passed to the log."""
        self.listener: RunListener | None = None
        """The telemetry listener of this run, if there is one."""
        self.context = contextvars.copy_context()
        """The run's own context variables."""

    def log_from_level(self, level: int) -> None:
        """Log records of at least this level from now on."""
        self.log_from = level
        self.detailed = self.detailed or level <= logging.DEBUG

    def load(self, records: list[HistoryRecord]) -> None:
        """Continue the history of an earlier process, which the store has."""
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
        """Record an occurrence in the history, and report it to the other observers.

        Args:
            kind: A kind of history record.
            at: The time, in UTC (seconds since the epoch).
            step: The step concerned.
            event_type: The type of the event concerned.
            duration: The duration in seconds.
            error: A description of the error, for people.
            cause: The exception; its traceback is logged.
            context: The context variables to log in; by default the run's.
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
            # Not in the task's own context: a step task runs many steps, and an error tracker,
            # which goes by context variables, would attribute the record to the wrong one.
            # In a copy: a context can't be entered twice, and a log handler may itself log.
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
