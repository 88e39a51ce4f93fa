"""Reads of an opening: in threads, abandoned if the caller is cancelled, and always bounded.

If a server's host or the network fails silently, no connection breaks: no more data arrives, and a
caller that waits for an answer waits forever. Some drivers have a timeout for that and others have
none, and a user's engine already exists when it is passed in. Every query therefore states for how
long its server may be silent. One thread watches all connections, and shuts the socket of a server
that is silent for longer (`Watch`). It uses the real monotonic clock: Trio's may be a mock clock,
and its event loop may be blocked.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

import sqlalchemy as sa
import trio

from blazen_trio._concurrency import bare_errors, protected_methods
from blazen_trio._stores import store_rules
from blazen_trio._stores.base import StoreQueries
from blazen_trio._stores.sql import databases, queries
from blazen_trio._stores.sql.faults import translate
from blazen_trio._stores.sql.troubles import Patience, is_crowded
from blazen_trio._telemetry.logs import about, logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from blazen_trio._clock import DatabaseClock
    from blazen_trio._state.status import RunStatus
    from blazen_trio._stores.protocol import RunInfo, StoredRun
    from blazen_trio._stores.sql.sqlite_files import Looker, Place
    from blazen_trio._stores.sql.troubles import Reach

__all__ = [
    "Line",
    "Readers",
    "SqlLooks",
    "Watch",
    "raise_fault",
    "watching",
]


_LOOK: Final = 0.5
"""Seconds between two looks."""

# The field of Linux's `struct tcp_info` with the milliseconds since data last arrived.
_LAST_DATA: Final = struct.Struct("52xI")


class Line:
    """A connection to a server, and for how long the server may be silent.

    This has a duplicate of the connection's socket. The driver may close its own at any moment, and
    its descriptor could belong to another socket by the time that the watch shuts it.
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
        """Note that a query starts, during which the server may be silent for this many seconds."""
        self._silence = silence
        self._asked = time.monotonic()

    def answered(self) -> None:
        """Note that the query has been answered."""
        self._asked = None

    def close(self) -> None:
        """Stop watching the connection."""
        if self._socket is not None:
            self._watch.discard(self)

    # For the watch, which holds its lock.

    def look(self, now: float) -> bool:
        """Shut the connection if its server was silent for too long. Returns whether it was."""
        asked, silence = self._asked, self._silence
        if asked is None or now - asked <= silence or self._last_came(now) <= silence:
            return False
        self.shut()
        self._asked = None
        return True

    def shut(self) -> None:
        """Shut the connection if a query is running: its caller gets an error."""
        if self._asked is not None and self._socket is not None:
            with contextlib.suppress(OSError):  # the server was faster
                self._socket.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """Close the duplicate of the socket."""
        if self._socket is not None:
            self._socket.close()

    def _last_came(self, now: float) -> float:
        """Return how many seconds ago data arrived: a long answer may take longer than the limit.

        If the system does not report that, return the seconds since the query started.
        """
        assert self._socket is not None
        assert self._asked is not None
        since_asked = now - self._asked
        if sys.platform != "linux":
            return since_asked
        try:
            told = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA.size)
            came = int(_LAST_DATA.unpack(told)[0]) / 1000
        except (OSError, struct.error):  # not TCP: a server on this machine
            return since_asked
        return min(came, since_asked)


class Watch:
    """Watches the connections of one opening."""

    def __init__(self) -> None:
        self._lines: set[Line] = set()
        self._lock = threading.Lock()
        self._some = threading.Event()
        """Set while there is any line, or once this is closed."""
        self._closed = threading.Event()

    @property
    def closed(self) -> bool:
        """Indicates that all connections were shut because the store is closed."""
        return self._closed.is_set()

    def line(self, connection: sa.Connection) -> Line:
        """Watch a connection until its line is closed. No effect without a server."""
        return Line(self, _socket_of(connection))

    @contextlib.contextmanager
    def connected(self, engine: sa.Engine, silence: float) -> Iterator[sa.Connection]:
        """Connect for the length of the block to a server that may be silent for `silence` s."""
        connection = engine.connect()
        line = self.line(connection)
        line.asked(silence)
        # The outer `finally`: returning the connection to its pool waits for an answer, too.
        try:
            with connection:
                try:
                    yield connection
                finally:
                    if self.closed:
                        # Its pool has been disposed of, and would never close it.
                        connection.invalidate()
        finally:
            line.close()

    def add(self, line: Line) -> None:
        """Watch a line; called by the `Line` itself."""
        with self._lock:
            self._lines.add(line)
            self._some.set()

    def discard(self, line: Line) -> None:
        """Stop watching a line; called by the `Line` itself."""
        with self._lock:
            if line in self._lines:
                self._lines.remove(line)
                line.end()

    def close(self) -> None:
        """Shut all connections with a running query, and end the thread."""
        with self._lock:
            self._closed.set()
            self._some.set()
            for line in self._lines:
                line.shut()

    def loop(self) -> None:
        """Watch the lines in this thread until `close`."""
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
                text = "the database was silent for too long; connections shut: %d"
                logger.warning(text, silent, extra=about())


@contextlib.asynccontextmanager
async def watching() -> AsyncIterator[Watch]:
    """Run a watch in a thread for as long as the block lasts."""
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
    # Shielded: cancelled tasks still need the watch, until the block is left.
    with trio.CancelScope(shield=True):
        limiter = trio.CapacityLimiter(1)
        await trio.to_thread.run_sync(watch.loop, limiter=limiter, thread_name="blazen_trio watch")


T = TypeVar("T")

_THREADS: Final = 4
"""Threads that read at once."""
_LEFT: Final = 2.0
"""Seconds that a closing store waits for reads whose callers were cancelled."""


@protected_methods
class Readers:
    """Runs queries in a few threads.

    Args:
        engine: Makes the connections, and has a pool of them.
        watch: Watches the connections.
        silence: For how many seconds a server may be silent during a query.
        place: The database's file.
        reach: Whether the database can be reached, as far as is known.
        clock: Gets the database's time now and then.
        looker: Runs the reads of an opening that only reads; `None`: any other opening.
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
        """Run a query in one transaction that reads as of one moment.

        A cancelled caller does not wait for its end. The thread does, and counts among the others
        for as long as the server may be silent, but no longer.

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
                # The pool's own timeout has already passed.
                pause = None if is_crowded(error) else patience.pause(error)
                if pause is None:
                    raise translate(error, "the store could not be read", writing=False) from error
            await trio.sleep(pause)

    async def drain(self) -> None:  # noqa: ASYNC910  # it waits four times
        """Wait briefly for all reads to end. Call this once the watch is closed.

        A read that has not ended by then closes its connection itself when it ends.
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
        with connected as connection, databases.of(connection).begin(connection):
            found = query(connection)
            if self._clock.stale:
                observe(self._clock, connection)
        if self._reach.since is not None:
            self._reach.answered()
        return found


def observe(clock: DatabaseClock, connection: sa.Connection) -> None:
    """Query the database's time for the clock."""
    began = time.perf_counter()
    told = connection.execute(sa.select(databases.of(connection).now())).scalar_one()
    clock.observed(int(told), began, time.perf_counter())


def _socket_of(connection: sa.Connection) -> int | None:
    """Return the file descriptor of a connection's socket; `None` if it is unknown."""
    driver: Any = connection.connection.dbapi_connection
    for having in (driver, getattr(driver, "_sock", None)):  # psycopg's connection; PyMySQL's
        fileno = getattr(having, "fileno", None)
        if fileno is not None:
            number = int(fileno())
            return number if number >= 0 else None
    return None


@protected_methods
class SqlLooks(StoreQueries):
    """Read-only access to the runs of a database.

    Args:
        readers: Threads that run the queries.
    """

    def __init__(self, readers: Readers) -> None:
        self._readers = readers

    async def load(self, run_id: str, *, connection: Any = None) -> StoredRun:
        """See `CheckpointStore.load`. A `connection` can't be given for read-only access."""
        assert connection is None
        [stored] = found = await self._read(
            lambda connection: queries.load_runs(connection, [queries.find_run(connection, run_id)])
        )
        raise_fault(found)
        return stored

    async def list_runs(
        self,
        *,
        status: RunStatus | str | Sequence[RunStatus | str] | None = None,
        workflow: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[RunInfo]:
        """See `CheckpointStore.list_runs`."""
        store_rules.check_limit(limit)
        wanted = store_rules.parse_statuses(status, store_rules.ALL)
        return await self._read(
            lambda connection: queries.list_runs(connection, wanted, workflow, limit, after)
        )

    async def get_run(self, run_id: str) -> RunInfo:
        """See `CheckpointStore.get_run`."""
        return await self._read(lambda connection: queries.get_run(connection, run_id))

    async def _read(self, query: Callable[[sa.Connection], T]) -> T:
        """Run a query in a thread, in one transaction that reads as of one moment."""
        return await self._readers.read(query)


def raise_fault(found: Sequence[StoredRun]) -> None:
    """Raise the first fault of these runs, if the data of any of them could not be read."""
    for stored in found:
        if stored.fault is not None:
            raise stored.fault
