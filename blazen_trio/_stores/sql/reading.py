"""Reads of one opening: in threads, abandoned by whoever is cancelled, each with an end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeVar

import sqlalchemy as sa
import trio

from blazen_trio._concurrency import protected_methods
from blazen_trio._stores.sql import dialects
from blazen_trio._stores.sql.faults import translate
from blazen_trio._stores.sql.troubles import Patience, is_crowded

if TYPE_CHECKING:
    from collections.abc import Callable

    from blazen_trio._stores.sql.clock import DatabaseClock
    from blazen_trio._stores.sql.looking import Looker
    from blazen_trio._stores.sql.place import Place
    from blazen_trio._stores.sql.troubles import Reach
    from blazen_trio._stores.sql.watch import Watch

__all__ = ["Readers"]

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
