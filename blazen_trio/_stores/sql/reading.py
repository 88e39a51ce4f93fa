"""Reads of one opening: in threads, abandoned by whoever is cancelled, each with an end.

A server whose host, or whose way here, fails without a word breaks no connection: nothing comes any
more, and whoever waits for an answer waits for ever. Some drivers have a timeout for that, others
have none, and an engine of a user's has been made already. So whoever asks a server something says
for how long it may be silent, and one thread looks after all of them, and shuts a silent one's
socket (`Watch`). It uses the real monotonic clock: Trio's may be a mock one, and its loop may stand
still.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING, Final, TypeVar

import sqlalchemy as sa
import trio

from blazen_trio._concurrency import bare_errors, protected_methods
from blazen_trio._stores.sql import dialects
from blazen_trio._stores.sql.dialects import socket_of
from blazen_trio._stores.sql.faults import translate
from blazen_trio._stores.sql.troubles import Patience, is_crowded
from blazen_trio._telemetry.logs import about, logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from blazen_trio._stores.sql.clock import DatabaseClock
    from blazen_trio._stores.sql.sqlite_files import Looker, Place
    from blazen_trio._stores.sql.troubles import Reach

__all__ = [
    "Line",
    "Readers",
    "Watch",
    "watching",
]


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


T = TypeVar("T")

_THREADS: Final = 4
"""Threads that read at once."""
_LEFT: Final = 2.0
"""Seconds for which a store that closes waits for reads that nobody waits for any more."""


@protected_methods
class Readers:
    """Runs queries in a few threads.

    Args:
        engine: Makes their connections, of which it has a pool.
        watch: Has an eye on these.
        silence: For how many seconds a server may be silent over a query.
        place: Where the database is.
        reach: What is known of the way there.
        clock: Is told the database's time now and then.
        looker: Whom reads go by, where the opening only looks.
    """

    def __init__(
        self,
        engine: sa.Engine,
        watch: Watch,
        *,
        silence: float,
        place: Place | None,
        reach: Reach,
        clock: DatabaseClock,
        looker: Looker | None = None,
    ) -> None:
        self._engine = engine
        self._watch = watch
        self._silence = silence
        self._place = place
        self._reach = reach
        self._clock = clock
        self._looker = looker
        self._limiter = trio.CapacityLimiter(_THREADS)

    async def read(self, query: Callable[[sa.Connection], T]) -> T:
        """Run a query, in one transaction that reads as of one moment.

        Whoever is cancelled does not wait for its end. Its thread does: it has its place among the
        others for as long as the server may be silent, and no longer.

        Raises:
            StoreError: The database can't be read.
        """
        patience = Patience(self._reach, locks=1)
        while True:
            try:
                return await trio.to_thread.run_sync(
                    self._read,
                    query,
                    limiter=self._limiter,
                    abandon_on_cancel=True,
                )
            except (sa.exc.SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error) as error:
                # A pool was waited for already, for as long as it is set to be.
                pause = None if is_crowded(error) else patience.pause(error)
                if pause is None:
                    raise translate(error, "the store could not be read", writing=False) from error
            await trio.sleep(pause)

    async def drain(self) -> None:  # noqa: ASYNC910  # it waits four times
        """Wait for a moment until nobody reads any more: to be called when the watch is closed.

        What is still reading then closes its connection itself when it ends.
        """
        with trio.move_on_after(_LEFT, shield=True):  # noqa: ASYNC912  # as above
            for _ in range(_THREADS):
                await self._limiter.acquire_on_behalf_of(object())

    def _read(self, query: Callable[[sa.Connection], T]) -> T:
        if self._looker is not None:
            return self._looker.steadily(lambda: self._read_once(query))
        return self._read_once(query)

    def _read_once(self, query: Callable[[sa.Connection], T]) -> T:
        if self._place is not None:
            self._place.check()
        connected = self._watch.connected(self._engine, self._silence)
        with connected as connection, dialects.begin(connection):
            found = query(connection)
            if self._clock.stale:
                observe(self._clock, connection)
        if self._reach.since is not None:
            self._reach.answered()
        return found


def observe(clock: DatabaseClock, connection: sa.Connection) -> None:
    """Ask the database for its time."""
    began = time.perf_counter()
    told = connection.execute(sa.select(dialects.now(connection.dialect.name))).scalar_one()
    clock.observed(int(told), began, time.perf_counter())
