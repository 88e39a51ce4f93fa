"""Stores alone, with the simulation's faults.

Each inbox message is delivered and taken once, none is lost, and no run is stuck.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from blazen_trio._state.status import RunStatus
from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio.errors import StoreError, WorkflowError
from blazen_trio.testing.promises import Heard
from tests.simulation.backends import InMemory, InSqlite
from tests.simulation.storage import Faults, Opening
from tests.thorough import try_many

if TYPE_CHECKING:
    from blazen_trio._stores.protocol import StoredRun
    from tests.simulation.backends import Backend

_RUNS = [f"r{number}" for number in range(4)]
_PROCESSES = 3
_MESSAGES = 25  # that each process sends


class _World:
    """Processes that take runs and their inbox messages, release them, and send messages to runs
    of each other.
    """

    def __init__(self, backend: Backend, seed: int) -> None:
        self.chance = random.Random(seed)
        self.openings = [
            Opening(
                backend,
                f"p{number}",
                random.Random(self.chance.random()),
                Faults.drawn(self.chance),
                before=self._lapse,
                observe=lambda *_: None,
            )
            for number in range(_PROCESSES)
        ]
        self.taken: Counter[int] = Counter()
        self.errors: list[str] = []

    def _lapse(self) -> None:
        for opening in self.openings:
            opening.lapse()

    async def live(self) -> None:
        for run_id in _RUNS:
            await self._submit(run_id)
        async with trio.open_nursery() as nursery:
            for opening in self.openings:
                nursery.start_soon(opening.renew)
                nursery.start_soon(self._work, opening, nursery)
            async with trio.open_nursery() as senders:
                for opening in self.openings:
                    senders.start_soon(self._send, opening)
            for opening in self.openings:
                opening.faults = Faults()
            await trio.sleep(100)  # enough for every lease to expire, and to take all messages
            assert [len((await self.openings[0].load(run_id)).inbox) for run_id in _RUNS] == [0] * 4
            assert set(self.taken.values()) == {1}
            assert not [error for error in self.errors if "took its inbox messages" in error]
            nursery.cancel_scope.cancel()

    async def _submit(self, run_id: str) -> None:
        first = Commit(run_id, [(1, b"")], status=RunStatus.WAITING, at=1.0, release=True)
        while True:
            try:
                await self.openings[0].create(NewRun("w", "1", 1.0), first)
            except StoreError:
                continue  # the outcome is unknown
            except WorkflowError:
                return  # the run was created nevertheless
            return

    async def _send(self, opening: Opening) -> None:
        for _ in range(_MESSAGES):
            await trio.sleep(self.chance.random() * 2)
            try:
                await opening.post(self.chance.choice(_RUNS), "event", b"")
            except StoreError:
                continue

    async def _work(self, opening: Opening, nursery: trio.Nursery) -> None:
        while True:
            try:
                for run in await opening.take(["w"], 3):
                    nursery.start_soon(self._drive, opening, run)
            except StoreError:
                pass
            await trio.sleep(0.5)

    async def _drive(self, opening: Opening, run: StoredRun) -> None:
        driver, seq = run.driver, run.last
        assert driver is not None
        assert seq is not None
        heard = Heard(driver)
        heard.mail[:0] = run.inbox
        done = 0
        try:
            for _ in range(self.chance.randrange(1, 30)):
                await trio.sleep(self.chance.random() * 3)
                assert len({mail.id for mail in heard.mail}) == len(heard.mail)
                rows = [mail.id for mail in heard.mail[done : done + 2]]
                done, seq = done + len(rows), seq + 1
                step = Commit(driver.run_id, [(seq, b"")], taken=rows, status=RunStatus.WAITING)
                await opening.commit(driver, step)
                self.taken.update(rows)
                if heard.lost:
                    return
        except WorkflowError as error:
            self.errors.append(str(error))
        finally:
            wake = self.chance.choice([None, float("inf"), float("inf")])
            with trio.CancelScope(shield=True):
                await self._give_back(opening, driver, wake)

    async def _give_back(self, opening: Opening, driver: Any, wake: float | None) -> None:
        try:
            await opening.release(driver, wake=wake)
        except StoreError:
            return  # the release is owed


@pytest.mark.parametrize("seed", range(try_many(2, 20)))
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_messages_are_taken_once_and_no_run_is_stuck_whatever_fails(kind: str, seed: int) -> None:
    async def live(backend: Backend) -> None:
        await _World(backend, seed).live()

    def run(backend: Backend) -> None:
        trio.run(live, backend, clock=trio.testing.MockClock(autojump_threshold=0))

    if kind == "memory":
        run(InMemory())
    else:
        with InSqlite.simulated() as backend:
            run(backend)
