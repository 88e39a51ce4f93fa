"""Give runs back that are not driven here: to others, or for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from blazen_trio._telemetry.logs import about, logger
from blazen_trio.errors import StoreError

if TYPE_CHECKING:
    from blazen_trio._stores.protocol import CheckpointStore, Driver

__all__ = ["Holds", "give_back", "set_aside"]

_FIRST: Final = 1.0
_LONGEST: Final = 60.0
_KNOWN: Final = 10_000


class Holds:
    """For how many seconds each run that can't be driven here is left to others: twice as long each
    time. Some thousands of them are remembered.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def next(self, run_id: str) -> float:
        """Return for how long this time."""
        if run_id not in self._seconds and len(self._seconds) >= _KNOWN:
            del self._seconds[next(iter(self._seconds))]
        seconds = min(_LONGEST, 2 * self._seconds.get(run_id, _FIRST / 2))
        self._seconds[run_id] = seconds
        return seconds

    def forget(self, run_id: str) -> None:
        """It is driven here after all."""
        self._seconds.pop(run_id, None)


async def give_back(  # noqa: ASYNC910  # the store suspends
    store: CheckpointStore,
    driver: Driver,
    *,
    wake: float | None = None,
    hold: float | None = None,
    crash: str | None = None,
) -> None:
    """Give a run back; where that fails, the store goes on trying. `hold`: seconds from now."""
    driver.listen(None)
    until = None if hold is None else store.clock().now() + hold
    try:
        await store.release(driver, wake=wake, hold=until, crash=crash)
    except StoreError as failure:
        extra = about(driver.run_id)
        logger.warning("run %r is given back later: %s", driver.run_id, failure, extra=extra)


async def set_aside(  # noqa: ASYNC910  # the store suspends
    store: CheckpointStore, driver: Driver, text: str
) -> None:
    """Have a run's row say that it has failed: nobody can read it."""
    try:
        await store.set_aside(driver, text)
    except StoreError as failure:
        extra = about(driver.run_id)
        logger.warning("run %r could not be set aside: %s", driver.run_id, failure, extra=extra)
