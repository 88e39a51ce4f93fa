"""Long work runs in slices: other tasks get turns in between, and none sees it half done."""

from __future__ import annotations

from collections.abc import Generator
from itertools import pairwise
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from blazen_trio import Event, MemoryStore, StartEvent, StopEvent, Workflow, step
from blazen_trio._codec.codec import PLAIN
from blazen_trio._concurrency import in_slices
from blazen_trio._dispatch.observers import Broadcast, Recorder
from blazen_trio._dispatch.schedule import Standstill
from blazen_trio._state.model import RunState


def slow(clock: MockClock, pieces: int, done: list[int]) -> Generator[None, None, str]:
    """Do work in pieces that take a millisecond each."""
    for piece in range(pieces):
        clock.jump(0.001)
        done.append(piece)
        yield
    return "all of it"


async def test_other_tasks_get_turns_between_slices(mock_clock: MockClock) -> None:
    done: list[int] = []
    seen: list[int] = []

    async def watch() -> None:
        while len(done) < 100:
            seen.append(len(done))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        assert await in_slices(slow(mock_clock, 100, done)) == "all of it"
    assert len(seen) >= 100 // 6
    assert max(after - before for before, after in pairwise(seen)) <= 12


async def test_short_work_makes_no_checkpoint(mock_clock: MockClock) -> None:
    done: list[int] = []
    with trio.CancelScope() as scope, trio.testing.assert_no_checkpoints():
        scope.cancel()
        await in_slices(slow(mock_clock, 3, done), cancellable=True)
    assert len(done) == 3


@pytest.mark.parametrize("cancellable", [True, False])
async def test_only_cancellable_work_is_cancelled(mock_clock: MockClock, cancellable: bool) -> None:
    done: list[int] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        pieces = slow(mock_clock, 100, done)
        await in_slices(pieces, cancellable=cancellable)
    assert scope.cancelled_caught is cancellable
    assert (len(done) < 100) is cancellable
    with pytest.raises(StopIteration):
        next(pieces)


async def test_a_run_stands_still_until_all_slices_are_done(mock_clock: MockClock) -> None:
    state = RunState("run", "flow", "1")
    recorder = Recorder(Broadcast(), history=False, lifecycle=False, stored=False)
    standstill = Standstill(state, PLAIN, recorder)
    done: list[int] = []
    waiting = trio.Event()

    async def decide() -> None:
        waiting.set()
        await standstill.opened()
        done.append(-1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(decide)
        assert await standstill.hold(slow(mock_clock, 50, done)) == "all of it"
        assert standstill.gate is None
    assert waiting.is_set()
    assert done == [*range(50), -1]


async def test_a_standstill_ends_even_if_the_work_fails() -> None:
    def failing() -> Generator[None, None, None]:
        yield
        raise ValueError

    standstill = Standstill(
        RunState("run", "flow", "1"),
        PLAIN,
        Recorder(Broadcast(), history=False, lifecycle=False, stored=False),
    )
    with pytest.raises(ValueError):
        await standstill.hold(failing())
    with trio.fail_after(5):
        await standstill.opened()
    assert b"".join(await standstill.image(inline=True)).startswith(b'{"version":1')


@attrs.frozen
class Member(Event):
    n: int


async def test_a_wide_fan_out_is_recorded_in_slices(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = 0
    record = Recorder.record

    def count(self: Recorder, *given: Any, **named: Any) -> None:
        nonlocal recorded
        recorded += 1
        mock_clock.jump(0.00001)
        record(self, *given, **named)

    monkeypatch.setattr(Recorder, "record", count)

    @step
    async def spread(_ev: StartEvent) -> list[Member]:
        return [Member(n) for n in range(20_000)]

    @step
    async def gather(members: list[Member]) -> StopEvent:
        return StopEvent(len(members))

    seen: list[int] = []
    over = False

    async def watch() -> None:
        while not over:
            seen.append(recorded)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        workflow = Workflow("wide", [spread, gather], history=True, timeout=None)
        assert await workflow.run(store=MemoryStore()) == 20_000
        over = True
    assert recorded > 20_000
    assert max(after - before for before, after in pairwise(seen)) <= 2_048
