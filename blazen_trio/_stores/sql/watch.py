"""An end to waiting for a server that has gone silent: its socket is shut, from another thread.

A server whose host, or whose way here, fails without a word breaks no connection: nothing comes any
more, and whoever waits for an answer waits for ever. Some drivers have a timeout for that, others
have none, and an engine of a user's has been made already. So whoever asks a server something says
for how long it may be silent, and one thread looks after all of them. It uses the real monotonic
clock: Trio's may be a mock one, and its loop may stand still.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

import trio

from blazen_trio._concurrency import bare_errors
from blazen_trio._stores.sql.dialects import socket_of
from blazen_trio._telemetry.logs import about, logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import sqlalchemy as sa

__all__ = ["Line", "Watch", "watching"]

_LOOK: Final = 0.5
"""Seconds between two looks."""

# Where Linux tells how many milliseconds ago the last data came, in its `struct tcp_info`.
_LAST_DATA: Final = struct.Struct("52xI")


class Line:
    """One connection to a server, and for how long that may be silent now.

    Holds the connection's socket a second time: the driver may close its own at any moment, and its
    number could be another socket's by the time that the watch comes to shut it.
    """

    __slots__ = ("_asked", "_silence", "_socket", "_watch")

    def __init__(self, watch: Watch, number: int | None) -> None:
        self._watch = watch
        self._asked: float | None = None
        self._silence = 0.0
        self._socket = None if number is None else socket.socket(fileno=os.dup(number))
        if self._socket is not None:
            watch.add(self)

    def asked(self, silence: float) -> None:
        """Something is asked from now on, and the server may be silent for so long meanwhile."""
        self._silence = silence
        self._asked = time.monotonic()

    def answered(self) -> None:
        """Nothing is asked any more."""
        self._asked = None

    def close(self) -> None:
        """Forget the connection."""
        if self._socket is not None:
            self._watch.discard(self)

    # For the watch, which has its lock.

    def look(self, now: float) -> bool:
        """Shut the connection if its server has been silent for too long; tell whether it was."""
        asked, silence = self._asked, self._silence
        if asked is None or now - asked <= silence or self._last_came(now) <= silence:
            return False
        self.shut()
        self._asked = None
        return True

    def shut(self) -> None:
        """Shut the connection if something is asked: whoever waits for an answer gets an error."""
        if self._asked is not None and self._socket is not None:
            with contextlib.suppress(OSError):  # the server was faster
                self._socket.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """Give the socket up."""
        if self._socket is not None:
            self._socket.close()

    def _last_came(self, now: float) -> float:
        """Return how long ago something came: a long answer may well take longer than it may begin.

        As of when it was asked, where the system does not tell.
        """
        assert self._socket is not None
        assert self._asked is not None
        since_asked = now - self._asked
        if sys.platform != "linux":
            return since_asked
        try:
            told = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA.size)
            came = int(_LAST_DATA.unpack(told)[0]) / 1000
        except (OSError, struct.error):  # no TCP: a server on this machine
            return since_asked
        return min(came, since_asked)


class Watch:
    """Looks after the lines of one opening."""

    def __init__(self) -> None:
        self._lines: set[Line] = set()
        self._lock = threading.Lock()
        self._some = threading.Event()
        """Whether there is any line, or this is closed."""
        self._closed = threading.Event()

    @property
    def closed(self) -> bool:
        """Whether all was shut, as the store is closed: nothing that is asked now is of use."""
        return self._closed.is_set()

    def line(self, connection: sa.Connection) -> Line:
        """Look after a connection, until its line is closed. Nothing happens without a server."""
        return Line(self, socket_of(connection))

    @contextlib.contextmanager
    def connected(self, engine: sa.Engine, silence: float) -> Iterator[sa.Connection]:
        """Connect, for as long as the block lasts, to a server that may be silent for so long."""
        connection = engine.connect()
        line = self.line(connection)
        line.asked(silence)
        # To give the connection back to its pool asks the server something, too.
        try:
            with connection:
                try:
                    yield connection
                finally:
                    if self.closed:
                        # Its pool has been disposed of: nobody would ever close it there.
                        connection.invalidate()
        finally:
            line.close()

    def add(self, line: Line) -> None:
        """Look after this one too; a `Line` does this itself."""
        with self._lock:
            self._lines.add(line)
            self._some.set()

    def discard(self, line: Line) -> None:
        """Look after it no more; a `Line` does this itself."""
        with self._lock:
            if line in self._lines:
                self._lines.remove(line)
                line.end()

    def close(self) -> None:
        """Shut all connections on which something is asked, and end the thread."""
        with self._lock:
            self._closed.set()
            self._some.set()
            for line in self._lines:
                line.shut()

    def loop(self) -> None:
        """Look after the lines, in this thread, until this is closed."""
        while True:
            self._some.wait()
            if self._closed.wait(_LOOK):
                return
            now = time.monotonic()
            with self._lock:
                silent = sum(line.look(now) for line in self._lines)
                if not self._lines and not self._closed.is_set():
                    self._some.clear()
            if silent:
                text = "the database has been silent for too long; connections shut: %d"
                logger.warning(text, silent, extra=about())


@contextlib.asynccontextmanager
async def watching() -> AsyncIterator[Watch]:
    """Have a thread look after the lines of a watch, for as long as the block lasts."""
    watch = Watch()
    with bare_errors():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_run, watch)
            try:
                yield watch
            finally:
                watch.close()


@trio.lowlevel.enable_ki_protection
async def _run(watch: Watch) -> None:
    # Shielded: it has to be there for those who are cancelled, too, until the block is left.
    with trio.CancelScope(shield=True):
        limiter = trio.CapacityLimiter(1)
        await trio.to_thread.run_sync(watch.loop, limiter=limiter, thread_name="blazen_trio watch")
