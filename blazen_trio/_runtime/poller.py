"""The poller of a runtime: one poll of the store per interval, for all runs and all waiters."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

from blazen_trio._telemetry import hooks
from blazen_trio._telemetry.logs import about, logger
from blazen_trio.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blazen_trio._runtime.supervisor import Supervisor
    from blazen_trio._stores.protocol import CheckpointStore, Poll, RunInfo

__all__ = ["Poller"]

_PATIENCE: Final = 60.0
"""Seconds for which a store may fail to answer before the runtime gives up."""
_LOOK_AGAIN: Final = 30.0
"""Seconds after which a waiter reads its run again, even if the run's row has not changed."""


class Poller:
    """The task that polls the store while there is anything to look for.

    That is: inbox messages of the runs that this process drives (the store hands them over),
    changes of other processes' runs that have waiters in this one and, while it serves, runs to
    take.

    Args:
        store: The store.
        supervisor: The runs that this process drives.
        workflows: The names of the workflows whose runs are taken while serving.
        interval: Seconds between two polls.
        idle_after: Seconds after which a run that waits or is paused may be released.
    """

    def __init__(
        self,
        store: CheckpointStore,
        supervisor: Supervisor,
        workflows: tuple[str, ...],
        interval: float,
        idle_after: float,
    ) -> None:
        self._store = store
        self._supervisor = supervisor
        self._workflows = workflows
        self._interval = interval
        self._idle_after = idle_after
        self._watched: dict[str, list[_Watch]] = {}
        self._needed = trio.Event()
        self.serving = False
        self.ready = False
        """True if there may be a run to take."""
        self.polls = 0

    @property
    def watching(self) -> int:
        """The number of other processes' runs that have waiters in this one."""
        return len(self._watched)

    def need(self) -> None:
        """Start polling: there is something to look for."""
        self._needed.set()

    def has_ready(self) -> None:
        """Note that there may be a run to take, and wake the task that takes runs."""
        self.ready = True
        self._supervisor.changes.notify()

    async def wait_changed(self, info: RunInfo) -> None:
        """Wait until a run's row differs from this one, or `_LOOK_AGAIN` seconds have passed."""
        with self._watch(info) as watch, trio.move_on_after(_LOOK_AGAIN):
            await watch.changed.wait()

    @contextmanager
    def _watch(self, info: RunInfo) -> Iterator[_Watch]:
        watch = _Watch(info)
        watches = self._watched.setdefault(info.run_id, [])
        watches.append(watch)
        self.need()
        try:
            yield watch
        finally:
            watches.remove(watch)
            if not watches and self._watched.get(info.run_id) is watches:
                del self._watched[info.run_id]

    async def run(self) -> None:
        """Poll until cancelled. The metrics count this process's runs for as long.

        Raises:
            StoreError: The store has not answered for a long time.
        """
        hooks.populations.append(self._supervisor)
        try:
            await self._look_again_and_again()
        finally:
            hooks.populations.remove(self._supervisor)

    async def _look_again_and_again(self) -> None:
        failing_since: float | None = None
        while True:
            if not (self.serving or self._watched) and self._supervisor.idle:
                self._needed = trio.Event()
                await self._needed.wait()
            try:
                await self._look()
                failing_since = None
            except StoreError as failure:
                failing_since = failing_since or trio.current_time()
                if trio.current_time() - failing_since >= _PATIENCE:
                    raise
                logger.warning(
                    "the store could not be polled; trying again: %s", failure, extra=about()
                )
            await trio.sleep(self._interval)

    async def _look(self) -> None:
        await self._supervisor.dismiss_idle(self._idle_after, serving=self.serving)
        poll = await self._store.poll(self._workflows if self.serving else (), tuple(self._watched))
        self.polls += 1
        if poll.ready:
            self.has_ready()
        self._tell(poll)

    def _tell(self, poll: Poll) -> None:
        for run_id, watches in self._watched.items():
            line = poll.watched.get(run_id)
            for watch in watches:
                if line != watch.info:
                    watch.changed.set()


class _Watch:
    """A waiter for a change of a run's row."""

    def __init__(self, info: RunInfo) -> None:
        self.info = info
        self.changed = trio.Event()
