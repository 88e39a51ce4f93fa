"""Who hears of what happens in a run: its history, the log, telemetry, and whoever reads its stream.

Each stream has a bounded buffer of its own, and none ever slows the run.
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
    """What a run publishes, from when this was made: an async iterator (`async for`), closed by itself at the run's end.

    One that falls behind its buffer loses the oldest events and gets a `Lagged(count)` in their place. Leave it with
    `async with` or `close()` to stop being an observer before the run's end.
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
        """Stop observing; what is in the buffer is dropped."""
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
    """Hands events to all streams of a run."""

    __slots__ = ("_ended", "_last", "_prologue", "_streams")

    def __init__(self) -> None:
        self._streams: list[EventStream] = []
        self._prologue: list[Event] | None = []
        """Published before the run is driven, when nobody can have a stream of it yet."""
        self._last: StopEvent | None = None
        self._ended = False

    @property
    def observed(self) -> bool:
        """Whether anybody has a stream of it that has not ended."""
        return bool(self._streams)

    def subscribe(self, buffer: int) -> EventStream:
        """A new stream; of a run that has ended, one that holds its `StopEvent` at most."""
        if type(buffer) is not int or buffer < 1:
            msg = f"stream(buffer={buffer!r}): the buffer is a number of events, at least 1"
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
        """Hand an event to every stream, at once."""
        if self._prologue is not None:
            self._prologue.append(event)
        for stream in self._streams:
            stream._put(event)  # noqa: SLF001

    def begin(self) -> None:
        """Note that the run is driven from here on: a stream made later starts later."""
        self._prologue = None

    def end(self, last: StopEvent | None) -> None:
        """No more events: `last`, if there is one, is the last."""
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
