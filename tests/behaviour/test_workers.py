"""Ready deliveries run immediately, however many steps wait already."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
import trio.testing

from blazen_trio import Event, MemoryStore, StartEvent, StopEvent, Workflow, step


@attrs.frozen
class Nap(Event):
    pass


@attrs.frozen
class Spread(Event):
    pass


@attrs.frozen
class Late(Event):
    pass


@step
async def begin(ev: StartEvent) -> list[Spread | Nap]:
    return [Spread(), *(Nap() for _ in range(ev.data))]


@step
async def sleep(_: Nap) -> None:
    await trio.sleep(3600)


@step
async def spread(_: Spread) -> list[Late]:
    await trio.sleep(1)
    return [Late() for _ in range(50)]


@pytest.mark.parametrize("naps", [0, 1, 12, 1000])
async def test_new_deliveries_run_immediately_beside_waiting_steps(
    naps: int, autojump_clock: trio.testing.MockClock
) -> None:
    woken: list[float] = []
    began = trio.current_time()

    @step
    async def be_late(_: Late) -> StopEvent | None:
        await trio.sleep(60)
        woken.append(trio.current_time() - began)
        return StopEvent(woken) if len(woken) == 50 else None

    assert await Workflow("naps", [begin, sleep, spread, be_late]).run(naps) == [61] * 50


@attrs.frozen
class Woken(Event):
    at: float


@step
async def nap(_: Nap) -> Woken:
    await trio.sleep(60)
    return Woken(trio.current_time())


@step
async def gather(woken: list[Woken]) -> StopEvent:
    return StopEvent({one.at for one in woken})


@step
async def begin_naps(ev: StartEvent) -> list[Nap]:
    return [Nap() for _ in range(ev.data)]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_with_a_store_all_deliveries_run_concurrently(
    durability: str, autojump_clock: trio.testing.MockClock
) -> None:
    began = trio.current_time()
    workflow = Workflow("naps", [begin_naps, nap, gather])
    assert await workflow.run(2000, store=MemoryStore(), durability=durability) == {began + 60}


class Slow(MemoryStore):
    """A store whose commits take a second, and which counts concurrent ones."""

    committing = most = 0

    async def commit(self, driver: Any, commit: Any) -> None:
        self.committing += 1
        self.most = max(self.most, self.committing)
        try:
            await super().commit(driver, commit)
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
        finally:
            self.committing -= 1


async def test_the_number_of_steps_that_wait_for_the_disk_is_bounded(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Otherwise all of them would resume in one turn of the event loop, and block other tasks."""

    @step
    async def short(_: Nap) -> Woken:
        return Woken(0)

    store = Slow()
    assert await Workflow("short", [begin_naps, short, gather]).run(2000, store=store) == {0}
    assert 64 <= store.most <= 256
