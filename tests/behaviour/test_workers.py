"""What is ready runs at once, however much waits already."""

from __future__ import annotations

import attrs
import pytest
import trio

from blazen_trio import Event, StartEvent, StopEvent, Workflow, step


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
async def test_what_becomes_ready_beside_steps_that_wait_runs_at_once(
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
