"""A run's observers: each has a bounded buffer of its own, and none ever slows the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from blazen_trio._definitions.events import Event, Lagged, StopEvent

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Broadcast", "EventStream"]


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
