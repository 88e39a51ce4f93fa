"""A run's events as server-sent events (SSE), for browsers' `EventSource`.

There are two kinds. A `history` event has one record of the run's history, and the record's number
as its id. A `claim` event has the run's current state, and is sent when that has changed. Both are
read from the store. So it does not matter which process drives the run, and the feed shows nothing
that a crash could take back. A client that reconnects with `Last-Event-ID` gets the events that it
missed, even from another process and after a `kill -9`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
import trio
from forms import show_claim, show_record
from starlette.types import Receive, Scope, Send

from blazen_trio import Snapshot

POLL_SECONDS = 0.25
KEEP_ALIVE = 15.0
"""Seconds until a silent connection gets a comment, so that no proxy closes it as dead."""


class EventFeed:
    """The response, as an ASGI application of its own.

    Args:
        read: Reads the run from the store.
        last: The number of the last `history` event that the client has, or 0.
        closing: Set when the server shuts down. The feed ends then, and the client reconnects to
            the next server.
    """

    def __init__(
        self, read: Callable[[], Awaitable[Snapshot]], last: int, closing: trio.Event
    ) -> None:
        self._read = read
        self._last = last
        self._closing = closing
        self._shown: dict[str, Any] | None = None

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the run ends, the client disconnects, or the server shuts down."""
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope)
            await self._feed(send)
            nursery.cancel_scope.cancel(reason="the feed has ended")
        await send(_body(b"", more=False))

    async def _feed(self, send: Send) -> None:
        last_sent = trio.current_time()
        while True:
            snapshot = await self._read()
            text = self._news(snapshot)
            if not text and trio.current_time() - last_sent >= KEEP_ALIVE:
                text = b": keep-alive\n\n"
            if text:
                await send(_body(text))
                last_sent = trio.current_time()
            if snapshot.status.ended:
                return
            with trio.move_on_after(POLL_SECONDS):
                await self._closing.wait()
                return

    def _news(self, snapshot: Snapshot) -> bytes:
        """Return the events that the client does not have yet."""
        fresh = [record for record in snapshot.history if record.sequence > self._last]
        texts = [
            _event("history", show_record(record), b"id: %d\n" % record.sequence)
            for record in fresh
        ]
        claim = show_claim(snapshot)
        if claim != self._shown:
            texts.append(_event("claim", claim))
        self._shown = claim
        self._last = fresh[-1].sequence if fresh else self._last
        return b"".join(texts)


async def _cancel_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel(reason="the client has gone")


def _event(kind: str, data: dict[str, Any], id_line: bytes = b"") -> bytes:
    return b"event: %s\n%sdata: %s\n\n" % (kind.encode(), id_line, orjson.dumps(data))


def _body(text: bytes, *, more: bool = True) -> MutableMapping[str, Any]:
    return {"type": "http.response.body", "body": text, "more_body": more}
