"""Events, failures and ends that occur while the dispatcher waits for its own commit."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import trio
import trio.testing

from blazen_trio import (
    Context,
    Delayed,
    Event,
    InputRequestEvent,
    InputResponseEvent,
    MemoryStore,
    Run,
    RunFinishedError,
    RunStatus,
    StartEvent,
    StepFailedError,
    StopEvent,
    Workflow,
    step,
)

COMMIT = 10.0  # seconds on Trio's clock


class SlowStore(MemoryStore):
    """A store whose commits take `COMMIT` seconds to be acknowledged while `slow` is set."""

    slow = False

    async def commit(self, driver: Any, commit: Any) -> None:
        slow = self.slow
        await super().commit(driver, commit)
        if slow:
            with trio.CancelScope(shield=True):
                await trio.sleep(COMMIT)


@step
async def ask(_ev: StartEvent) -> InputRequestEvent:
    return InputRequestEvent("ok?")


@step
async def answered(ev: InputResponseEvent) -> StopEvent:
    return StopEvent(ev.response)


ASKS = Workflow("asks", [ask, answered], timeout=None)


@pytest.mark.parametrize("during", ["pause", "unpause"])
async def test_an_input_handler_that_fails_during_a_commit_fails_the_run(
    autojump_clock: Any, during: str
) -> None:
    fails = trio.Event()

    async def handler(_request: Any) -> None:
        await fails.wait()
        raise ValueError("no one is there")

    async def act(run: Run) -> None:
        if during == "pause":
            with pytest.raises(RunFinishedError):
                await run.pause()
        else:
            await run.unpause()

    store = SlowStore()
    with pytest.raises(StepFailedError, match="no one is there"):
        async with ASKS.run(store=store, run_id="run", input_handler=handler) as run:
            await trio.testing.wait_all_tasks_blocked()
            if during == "unpause":
                await run.pause()
            store.slow = True
            async with trio.open_nursery() as nursery:
                nursery.start_soon(act, run)
                await trio.sleep(COMMIT / 2)
                fails.set()
            await run.result()
    assert (await store.get_run("run")).status is RunStatus.FAILED


class Tick(Event):
    pass


class Work(Event):
    pass


class Finish(Event):
    pass


async def test_a_run_is_stored_as_completed_only_once_its_steps_are_over(
    autojump_clock: Any,
) -> None:
    """The dispatcher routes a due event while a step ends the run and another one is at work."""
    release = threading.Event()
    store = SlowStore()

    @step
    async def begin(ctx: Context, _ev: StartEvent) -> Delayed[Tick] | Work | Finish | None:
        ctx.send(Work())
        ctx.send(Finish())
        return Delayed(Tick(), 1)

    @step
    async def tick(_ev: Tick) -> None: ...

    @step
    def work(_ev: Work) -> None:
        release.wait()

    @step
    async def finish(_ev: Finish) -> StopEvent:
        store.slow = True
        await trio.sleep(1 + COMMIT / 2)
        return StopEvent("done")

    workflow = Workflow("w", [begin, tick, work, finish])
    async with workflow.run(store=store, run_id="run") as run:
        await trio.sleep(3 * COMMIT)
        in_memory, on_disk = run.status, (await store.get_run("run")).status
        release.set()
        assert await run.result() == "done"
    assert (in_memory, on_disk) == (RunStatus.COMPLETED, RunStatus.RUNNING)
    assert (await store.get_run("run")).status is RunStatus.COMPLETED
