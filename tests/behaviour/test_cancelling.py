"""A run whose surroundings are cancelled."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from blazen_trio import Event, MemoryStore, StartEvent, StopEvent, Workflow, step


@attrs.frozen
class Member(Event):
    n: int


@attrs.frozen
class Done(Event):
    n: int


@pytest.mark.parametrize("durability", [None, "sync", "async", "exit"])
async def test_a_cancelled_fan_out_starts_no_more_members(durability: Any) -> None:
    began = 0

    @step
    async def spread(_ev: StartEvent) -> list[Member]:
        return [Member(n) for n in range(5000)]

    @step
    async def work(ev: Member) -> Done:
        nonlocal began
        began += 1
        if began == 100:
            scope.cancel()
        await trio.lowlevel.checkpoint()
        return Done(ev.n)

    @step
    async def gather(done: list[Done]) -> StopEvent:
        return StopEvent(len(done))

    store = None if durability is None else MemoryStore()
    with trio.CancelScope() as scope, trio.fail_after(10):
        await Workflow("fan", [spread, work, gather]).run(store=store, durability=durability)
    assert scope.cancelled_caught
    # Those that had been recruited may have begun, and no others.
    assert 100 <= began < 1000


@pytest.mark.parametrize("durability", [None, "sync", "async", "exit"])
async def test_steps_that_never_wait_can_be_cancelled(durability: Any) -> None:
    began = 0

    @step
    async def begin(_ev: StartEvent) -> Member:
        return Member(0)

    @step
    async def count(ev: Member) -> Member | StopEvent:
        nonlocal began
        began += 1
        if began == 100:
            scope.cancel()
        return Member(ev.n + 1) if ev.n < 5000 else StopEvent()

    store = None if durability is None else MemoryStore()
    with trio.CancelScope() as scope, trio.fail_after(10):
        await Workflow("count", [begin, count]).run(store=store, durability=durability)
    assert scope.cancelled_caught
    assert 100 <= began < 140
