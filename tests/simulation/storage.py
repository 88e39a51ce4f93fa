"""Openings of one store that fail as databases, networks and killed processes do."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, cast

import attrs
import trio

from blazen_trio._stores.base import StoreQueries
from blazen_trio.errors import StoreError, WorkflowError
from tests.simulation.backends import LEASE_TTL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blazen_trio._clock import Utc
    from blazen_trio._stores.driver import Driver
    from tests.simulation.backends import Backend

_CANCELLABLE = frozenset({"create", "claim", "claim_end", "take", "post", "delete_run", "purge"})
_READS = frozenset({"poll", "load", "asked_run", "get_run", "list_runs"})


@attrs.frozen
class Faults:
    """The probability of each fault in one call."""

    before: float = 0.0
    after: float = 0.0
    delay: float = 0.0
    long_delay: float = 0.0

    @classmethod
    def drawn(cls, chance: random.Random) -> Faults:
        """Draw probabilities: often of no faults, sometimes of many."""

        def rate(most: float) -> float:
            return chance.choice([0.0, most / 10, most])

        return cls(before=rate(0.1), after=rate(0.1), delay=rate(0.3), long_delay=rate(0.02))


class Opening(StoreQueries):
    """The store as one process sees it. Faults are drawn for each call.

        before      the call fails, and nothing has happened
        after       the call has happened, but its answer is lost: the caller sees a failure
        delay       the connection is lost and made again, or the process is slow
        long delay  the process is frozen, or the database is away, for longer than the lease lasts

    Writes happen one at a time, in the order of the calls, as with a writer. If the answer to a
    call that makes the process a driver is lost, the process does not know which runs it drives,
    so it lets its lease expire and takes a new one. A release that has failed is owed.

    Args:
        backend: The store, of which this is one opening.
        name: The name of the process.
        chance: Draws the faults.
        faults: The probability of each fault.
        before: Called just before each call happens.
        observe: Called after each call that has happened, before its caller continues, with a
            description of the call and whether its caller was entitled to it.
    """

    def __init__(
        self,
        backend: Backend,
        name: str,
        chance: random.Random,
        faults: Faults,
        *,
        before: Callable[[], None],
        observe: Callable[[str, bool], None],
    ) -> None:
        self.name = name
        self.faults = faults
        self.severed = False
        self._backend = backend
        self._store = backend.open()
        self._chance = chance
        self._before = before
        self._observe = observe
        self._writer = trio.StrictFIFOLock()
        self._owed: list[Callable[[], Awaitable[None]]] = []
        self._watching = trio.CancelScope()
        self._renewed = trio.current_time()

    async def renew(self) -> None:
        """Do what the store does by itself. Runs as a task of its own."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_inboxes)
            while not self.severed:
                await trio.sleep(1.0 if self._owed else LEASE_TTL / 3)
                async with self._writer:
                    if not self.severed:
                        self._backend.renew(self._store)
                        owed, self._owed = self._owed, []
                        for give_back in owed:
                            await give_back()
                    self._renew()

    async def _watch_inboxes(self) -> None:
        with self._watching:
            await self._backend.watch_inboxes(self._store)

    def kill(self, *, same_host: bool) -> None:
        """End the process: nothing that it still does has any effect.

        Other processes on the same host know that immediately.
        """
        self.severed = True
        self._watching.cancel()
        if same_host:
            self._backend.expire(self._store)
            self._renewed = float("-inf")

    def lapse(self) -> None:
        """Let the other processes find the lease expired if it is."""
        if trio.current_time() - self._renewed > LEASE_TTL:
            self._backend.lapse(self._store)

    def _renew(self) -> None:
        if not self.severed:
            self._renewed = trio.current_time()

    def _abandon_lease(self) -> None:
        self._store = self._backend.abandon(self._store)

    # The protocol

    def clock(self) -> Utc:
        return cast("Utc", self._store.clock())

    async def create(self, run: Any, first: Any, *, connection: Any = None) -> Any:
        return await self._write("create", run, first)

    async def claim(self, run_id: str) -> Any:
        return await self._write("claim", run_id)

    async def claim_end(self, run_id: str, kinds: Any) -> Any:
        return await self._write("claim_end", run_id, kinds)

    async def asked_run(
        self, run_id: str, request_id: str | None = None, *, connection: Any = None
    ) -> Any:
        return await self._call("asked_run", run_id, request_id)

    async def take(self, workflows: Any, limit: int, **options: Any) -> Any:
        return await self._write("take", workflows, limit, **options)

    async def commit(self, driver: Driver, commit: Any) -> None:
        try:
            await self._write("commit", driver, commit)
        except StoreError as error:
            driver.lose(error)
            raise

    async def release(self, driver: Driver, **how: Any) -> None:
        await self._give_back("release", driver, **how)

    async def set_aside(self, driver: Driver, error: str) -> None:
        await self._give_back("set_aside", driver, error)

    async def _give_back(self, name: str, driver: Driver, *args: Any, **how: Any) -> None:
        store = self._store

        async def again() -> None:
            await getattr(store, name)(driver, *args, **how)

        try:
            await self._write(name, driver, *args, **how)
        except StoreError as error:
            driver.lose(error)  # so that it can be claimed again before the owed release is made
            if not self.severed:
                self.owe(again)
            raise

    def owe(self, give_back: Callable[[], Awaitable[None]]) -> None:
        """Make a failed release later, while this is open."""
        self._owed.append(give_back)

    async def post(
        self, run_id: str, kind: str, data: bytes, *, key: str | None = None, connection: Any = None
    ) -> Any:
        return await self._write("post", run_id, kind, data, key=key)

    async def delete_run(self, run_id: str) -> None:
        await self._write("delete_run", run_id)

    async def poll(self, workflows: Any, watched: Any = ()) -> Any:
        return await self._call("poll", workflows, watched)

    async def load(self, run_id: str) -> Any:
        return await self._call("load", run_id)

    async def get_run(self, run_id: str) -> Any:
        return await self._call("get_run", run_id)

    async def list_runs(self, **options: Any) -> Any:
        return await self._call("list_runs", **options)

    # What happens to a call

    async def _write(self, name: str, *args: Any, **options: Any) -> Any:
        """Make writes one after the other. A write that has started can't be cancelled."""
        if name in _CANCELLABLE:
            await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope(shield=True):
            async with self._writer:
                return await self._call(name, *args, **options)

    async def _call(self, name: str, *args: Any, **options: Any) -> Any:
        fault = self._draw()
        if fault == "delay":
            await trio.sleep(self._chance.uniform(0.05, 3.0))
        elif fault == "long_delay":
            await trio.sleep(LEASE_TTL * self._chance.uniform(1.0, 3.0))
        self._check(name)
        if fault == "before":
            await trio.lowlevel.checkpoint()
            raise StoreError(f"{name}: the simulated database failed before it did anything")
        self._before()
        may_write = name != "commit" or self._backend.drives(self._store, args[0].run_id)
        try:
            result = await getattr(self._store, name)(*args, **options)
            self._observe(
                f"{self.name} {name} {args[0] if args and isinstance(args[0], str) else ''}",
                may_write,
            )
        except WorkflowError as refusal:
            self._observe(f"{self.name} {name} refused: {type(refusal).__name__}", True)
            raise
        finally:
            if name not in _READS:
                self._renew()
        self._check(name)
        if fault == "after" and name not in _READS:
            if name in ("take", "claim", "claim_end", "create"):
                self._abandon_lease()
            raise StoreError(f"{name}: the simulated database's answer was lost")
        return result

    def _check(self, name: str) -> None:
        if self.severed:
            raise StoreError(f"{name}: the simulated process is dead")

    def _draw(self) -> str | None:
        kinds = attrs.fields_dict(Faults)
        drawn = self._chance.random()
        for kind in kinds:
            drawn -= getattr(self.faults, kind)
            if drawn < 0:
                return kind
        return None
