"""Refusals: taken runs that can't be driven are left to others, retried later, or set aside."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from blazen_trio._dispatch.calls import hold_after
from blazen_trio._state.safe_text import text_of
from blazen_trio._telemetry.logs import about, logger
from blazen_trio.errors import (
    IncompatibleRunError,
    SchemaError,
    SnapshotVersionError,
    StoreError,
)

if TYPE_CHECKING:
    from blazen_trio._stores.driver import Driver
    from blazen_trio._stores.protocol import CheckpointStore, StoredRun

__all__ = ["Refusals", "give_back"]

_KNOWN: Final = 10_000
"""The number of refused runs that are remembered."""
_FOR_LATER_VERSIONS: Final = (IncompatibleRunError, SchemaError, SnapshotVersionError)
"""Errors that are not the run's fault: a process with other code may be able to drive it."""


class Refusals:
    """The handling of runs that this process can't drive, with the number of refusals of each.

    Args:
        store: The store of the runs.
        max_crashes: The number of drivers that a run may crash before it is set aside.

    Attributes:
        count: The number of refusals.
    """

    def __init__(self, store: CheckpointStore, max_crashes: int) -> None:
        self._store = store
        self._max_crashes = max_crashes
        self._times: dict[str, int] = {}
        self.count = 0

    def forget(self, run_id: str) -> None:
        """Forget the refusals of a run that can be driven by now."""
        self._times.pop(run_id, None)

    async def refuse(self, stored: StoredRun, driver: Driver, failure: Exception) -> None:
        """Release a run with a hold, or set it aside if no process can drive it.

        The hold grows with each refusal. Without it, this process would take the run again at once,
        in a busy loop.
        """
        run_id = stored.info.run_id
        self.count += 1
        again = run_id in self._times
        seconds = self._next_hold(run_id)
        what = (
            "does not fit its workflow in this process"
            if isinstance(failure, IncompatibleRunError)
            else "can't be driven by this process"
        )
        text = f"{type(failure).__name__}: {text_of(failure)}"
        extra = about(run_id, stored.info.workflow)
        if driver.lost is not None:
            logger.warning(
                "run %r %s and is left to others: %s", run_id, what, failure, extra=extra
            )
            await give_back(self._store, driver, hold=seconds)
        elif isinstance(failure, _FOR_LATER_VERSIONS) or getattr(failure, "newer", False):
            # A warning only once, and not at each poll: the run's row contains the reason as well.
            logger.log(
                logging.DEBUG if again else logging.WARNING,
                "run %r %s and is left to others: %s. Start a worker whose version of workflow %r "
                "fits, or cancel the run",
                run_id,
                what,
                failure,
                stored.info.workflow,
                extra=extra,
            )
            text = f"left to other workers: {text}"
            await give_back(self._store, driver, hold=seconds, reason=text)
        elif stored.crashes + 1 < self._max_crashes:
            logger.warning(
                "run %r %s and will be tried again later: %s", run_id, what, failure, extra=extra
            )
            await give_back(self._store, driver, hold=seconds, crash=text)
        else:
            logger.error("run %r %s and is set aside: %s", run_id, what, failure, extra=extra)
            await self._set_aside(driver, text)

    def _next_hold(self, run_id: str) -> float:
        if run_id not in self._times and len(self._times) >= _KNOWN:
            del self._times[next(iter(self._times))]
        times = self._times.get(run_id, 0)
        self._times[run_id] = times + 1
        return hold_after(times)

    async def _set_aside(self, driver: Driver, text: str) -> None:  # noqa: ASYNC910  # suspends
        try:
            await self._store.set_aside(driver, text)
        except StoreError as failure:
            extra = about(driver.run_id)
            logger.warning("run %r could not be set aside: %s", driver.run_id, failure, extra=extra)


async def give_back(  # noqa: ASYNC910  # the store suspends
    store: CheckpointStore,
    driver: Driver,
    *,
    wake: float | None = None,
    hold: float | None = None,
    crash: str | None = None,
    reason: str | None = None,
) -> None:
    """Release a run. Not cancellable, and bounded; if it fails, the store keeps trying.

    Args:
        store: The store of the run.
        driver: The token with which this process drives the run.
        wake: See `CheckpointStore.release`.
        hold: Seconds for which no worker takes the run.
        crash: See `CheckpointStore.release`.
        reason: See `CheckpointStore.release`.
    """
    until = None if hold is None else store.clock().now() + hold
    try:
        more = {} if reason is None else {"reason": reason}
        await store.release(driver, wake=wake, hold=until, crash=crash, **more)
    except StoreError as failure:
        extra = about(driver.run_id)
        logger.warning(
            "run %r could not be released yet; the store keeps trying: %s",
            driver.run_id,
            failure,
            extra=extra,
        )
