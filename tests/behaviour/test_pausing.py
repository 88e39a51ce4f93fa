"""Pausing: no step starts, steps in flight may finish, and the caller gets a snapshot."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from blazen_trio import (
    Run,
    RunFinishedError,
    RunStatus,
    RunTimeoutError,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from tests.behaviour.events import SLOW, A, B


async def test_a_pause_lets_steps_finish_and_starts_none(autojump_clock: Any) -> None:
    began = trio.current_time()
    async with SLOW.run() as run:
        await trio.sleep(1)
        snapshot = await run.pause()
        assert trio.current_time() == began + 5
        assert [one.step for one in snapshot.deliveries] == ["end"]
        await trio.sleep(1000)
        await run.unpause()
        assert await run.result() == "end"
        assert await SLOW.resume(snapshot) == "end"


async def test_a_pause_cancels_steps_in_flight_after_its_grace(autojump_clock: Any) -> None:
    async with SLOW.run() as run:
        await trio.sleep(1)
        before = trio.current_time()
        snapshot = await run.pause(grace=2)
        assert trio.current_time() - before == pytest.approx(2, abs=0.1)
        assert [one.step for one in snapshot.deliveries] == ["begin"]
        await run.unpause()
        assert await run.result() == "end"


async def test_a_cancelled_pause_is_withdrawn(autojump_clock: Any) -> None:
    async with SLOW.run() as run:
        await trio.sleep(1)
        with trio.move_on_after(1) as scope:
            await run.pause()
        assert scope.cancelled_caught
        assert await run.result() == "end"


async def test_a_cancelled_pause_does_not_undo_another(autojump_clock: Any) -> None:
    async with SLOW.run() as run, trio.open_nursery() as nursery:
        await trio.sleep(1)
        nursery.start_soon(run.pause)
        with trio.move_on_after(1):
            await run.pause()
        await trio.sleep(100)
        assert run.status is RunStatus.PAUSED
        with trio.CancelScope() as scope:
            scope.cancel()
            await run.pause()
        assert run.status is RunStatus.PAUSED
        await run.unpause()
        assert await run.result() == "end"


async def test_unpause_does_nothing_to_a_run_that_is_not_paused_yet(autojump_clock: Any) -> None:
    """The run is still running, and the caller of `pause` may be cancelled."""
    snapshots = []

    async def pause(run: Run) -> None:
        snapshots.append(await run.pause())

    async with SLOW.run() as run, trio.open_nursery() as nursery:
        await trio.sleep(1)
        nursery.start_soon(pause, run)
        await trio.sleep(1)
        await run.unpause()
        await trio.sleep(3)
        # To act before the tasks that wait for the pause.
        while run.status is RunStatus.RUNNING:  # noqa: ASYNC110
            await trio.lowlevel.checkpoint()
        await run.unpause()
        assert await run.result() == "end"
    assert [one.run_id for one in snapshots] == [run.run_id], (
        "whoever paused it is told, though it went on at once"
    )


async def test_a_run_that_uses_up_its_timeout_before_a_pause_times_out(
    autojump_clock: Any,
) -> None:
    async with SLOW.run(timeout=3) as run:
        await trio.sleep(1)
        with pytest.raises(RunFinishedError) as caught:
            await run.pause()
        assert isinstance(caught.value.__cause__, RunTimeoutError)
        snapshot = await run.snapshot()
    assert snapshot.status is RunStatus.TIMED_OUT
    assert await SLOW.resume(snapshot, timeout=20) == "end"


async def test_many_steps_in_flight_survive_a_pause(autojump_clock: Any) -> None:

    @step
    async def spread(ev: StartEvent) -> list[A]:
        return [A(n) for n in range(8)]

    @step(max_concurrency=4)
    async def work(ev: A) -> B:
        await trio.sleep(10)
        return B(ev.n)

    @step
    async def join(done: list[B]) -> StopEvent:
        return StopEvent([one.n for one in done])

    workflow = Workflow("many", [spread, work, join])
    async with workflow.run() as run:
        await trio.sleep(5)
        snapshot = await run.pause(grace=0)
        assert len(snapshot.deliveries) == 8
    assert await workflow.resume(snapshot) == list(range(8))
