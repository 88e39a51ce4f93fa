"""Every public asynchronous call is cancelled at each scheduling point that it passes.

At every point, a call reported as cancelled has not happened, the same call made again takes
effect, and every run ends. No run stays locked, without a slot, or owned by a process that does
not drive it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing

from blazen_trio import (
    Delayed,
    Event,
    InputRequestEvent,
    InputResponseError,
    InputResponseEvent,
    Run,
    RunExistsError,
    RunFinishedError,
    RunLockedError,
    RunPausedError,
    RunStatus,
    Runtime,
    StartEvent,
    StopEvent,
    Workflow,
    open_runtime,
    step,
)
from tests.runtime.conftest import Openings
from tests.thorough import try_many

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

POLL = 0.01  # seconds


@attrs.frozen
class Go(Event):
    by: str = ""


@step
async def begin(_ev: StartEvent) -> None: ...


@step
async def go(ev: Go) -> StopEvent:
    return StopEvent(ev.by)


@step
async def ask(_ev: StartEvent) -> InputRequestEvent:
    return InputRequestEvent("ok?", request_id="q")


@step
async def answered(ev: InputResponseEvent) -> StopEvent:
    return StopEvent(ev.response)


WAITS = Workflow("waits", [begin, go], external=[Go], timeout=None)
ASKS = Workflow("asks", [ask, answered], timeout=None)
RUNS = {
    "here": WAITS,
    "asks": ASKS,
    "left": WAITS,
    "asks-left": ASKS,
    "elsewhere": WAITS,
    "new": WAITS,
}


class CancelAt(trio.abc.Instrument):
    """Cancel a scope at a given task step, counted from the moment that the scope is set."""

    def __init__(self, at: int) -> None:
        self.at, self.seen = at, 0
        self.scope: trio.CancelScope | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.scope is not None:
            self.seen += 1
            if self.seen == self.at:
                self.scope.cancel()


@attrs.frozen
class World:
    """A store with waiting runs: two driven by this runtime, two undriven, one driven by another
    process.
    """

    store: Any
    runtime: Runtime

    async def status(self, run_id: str) -> RunStatus | None:
        infos = await self.store.list_runs()
        return next((info.status for info in infos if info.run_id == run_id), None)

    async def wait_waiting(self, run_id: str) -> None:
        with trio.fail_after(120):
            while await self.status(run_id) is not RunStatus.WAITING:  # noqa: ASYNC110
                await trio.sleep(POLL)

    async def wait_undone(self, run_id: str) -> None:
        """Wait until a run is as it was before the call.

        A run whose pause was withdrawn may be left to the next process that polls, and stays
        paused until its driver has read the withdrawal.
        """
        undone = (None,) if run_id == "new" else (RunStatus.WAITING, RunStatus.RUNNING)
        paused = RunStatus.PAUSED if run_id == "elsewhere" else None
        with trio.fail_after(120):
            while (status := await self.status(run_id)) not in undone:
                assert status is paused
                await trio.sleep(POLL)

    async def here(self) -> Run:
        run = await self.runtime.get("here")
        assert run is not None
        return run


Call = Callable[[World], Awaitable[Any]]


async def leave_waiting(store: Any, run_id: str) -> None:
    with trio.CancelScope() as scope:
        async with RUNS[run_id].run(store=store, run_id=run_id) as run:
            while run.status is not RunStatus.WAITING:  # noqa: ASYNC110
                await trio.sleep(POLL)
            scope.cancel()
            await trio.lowlevel.checkpoint()


@asynccontextmanager
async def world_in(opened: Openings) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        store, other_store = [await stack.enter_async_context(opened()) for _ in range(2)]
        for run_id in ("left", "asks-left"):
            await leave_waiting(store, run_id)
        runtime, other = [
            await stack.enter_async_context(open_runtime(one, [WAITS, ASKS], poll_interval=POLL))
            for one in (store, other_store)
        ]
        await other.start(WAITS, run_id="elsewhere")
        await runtime.start(WAITS, run_id="here")
        await runtime.start(ASKS, run_id="asks")
        world = World(store, runtime)
        for run_id in ("here", "asks", "elsewhere"):
            await world.wait_waiting(run_id)
        yield world


async def finish(world: World, run_id: str) -> None:
    """Bring a run to its end in the way that its status allows.

    The withdrawal of a pause may still be on its way to the process that drives the run. That
    process then leaves it, and this one has to resume it.
    """
    status = await world.status(run_id)
    if status is None or status.ended:
        return
    runtime, sent = world.runtime, False
    with trio.fail_after(120):
        while not (status is None or status.ended):
            with suppress(RunLockedError):
                run = await runtime.get(run_id) or await runtime.resume_from(run_id)
                if status is RunStatus.PAUSED:
                    await run.unpause()
            if not sent:
                # The call's own message may have been taken.
                with suppress(RunFinishedError, InputResponseError):
                    if RUNS[run_id] is ASKS:
                        await runtime.respond(run_id, "finished")
                    else:
                        await runtime.send(run_id, Go("finished"))
                sent = True
            with trio.move_on_after(1), suppress(RunPausedError):
                await runtime.result(run_id)
            status = await world.status(run_id)
        assert await runtime.result(run_id) == "finished"


async def trial(opened: Openings, call: Call, cancel_at: CancelAt) -> None:
    async with world_in(opened) as world:
        with trio.CancelScope() as cancel_at.scope:
            await call(world)
        cancelled = cancel_at.scope.cancelled_caught
        cancel_at.scope = None
        if cancelled:
            await trio.sleep(2 * POLL)  # let this process see what happened elsewhere
            if call in UNDONE:
                await world.wait_undone(UNDONE[call])
            try:
                await call(world)
            except (RunExistsError, RunLockedError, RunFinishedError, InputResponseError):
                # It had happened, or is happening. Calls in UNDONE promise that it has not.
                assert call not in UNDONE
        for run_id in RUNS:
            await finish(world, run_id)


# The calls. Each checks its own effect unless another check covers it.


async def start(world: World) -> None:
    await world.runtime.start(WAITS, run_id="new")


async def submit(world: World) -> None:
    await world.runtime.submit(WAITS, run_id="new")


async def resume_from(world: World) -> None:
    await world.runtime.resume_from("left")


async def get(world: World) -> None:
    assert await world.runtime.get("here") is not None


async def send(world: World) -> None:
    await world.runtime.send("here", Go("finished"))


async def send_left(world: World) -> None:
    await world.runtime.send("left", Go("finished"))


async def send_elsewhere(world: World) -> None:
    await world.runtime.send("elsewhere", Go("finished"))


async def send_keyed(world: World) -> None:
    assert await world.runtime.send("here", Go("finished"), key="k")


async def send_later(world: World) -> None:
    await world.runtime.send("here", Delayed(Go("finished"), 3600))


async def respond(world: World) -> None:
    await world.runtime.respond("asks", "finished")


async def respond_left(world: World) -> None:
    await world.runtime.respond("asks-left", "finished")


async def cancel(world: World) -> None:
    await world.runtime.cancel("here")


async def cancel_left(world: World) -> None:
    await world.runtime.cancel("left")


async def cancel_elsewhere(world: World) -> None:
    await world.runtime.cancel("elsewhere")
    while await world.status("elsewhere") is not RunStatus.CANCELLED:  # noqa: ASYNC110
        await trio.sleep(POLL)


async def pause(world: World) -> None:
    assert (await world.runtime.pause("here")).status is RunStatus.PAUSED


async def pause_left(world: World) -> None:
    assert (await world.runtime.pause("left")).status is RunStatus.PAUSED


async def pause_elsewhere(world: World) -> None:
    assert (await world.runtime.pause("elsewhere")).status is RunStatus.PAUSED


async def wait_result(world: World) -> None:
    with trio.move_on_after(POLL):
        await world.runtime.result("elsewhere")


async def recover(world: World) -> None:
    assert await world.runtime.recover() == []


async def serve(world: World) -> None:
    with trio.move_on_after(2 * POLL):
        await world.runtime.serve()


async def run_send(world: World) -> None:
    await (await world.here()).send(Go("finished"))


async def run_pause(world: World) -> None:
    assert (await (await world.here()).pause()).status is RunStatus.PAUSED


async def run_unpause(world: World) -> None:
    run = await world.here()
    await run.pause()
    await run.unpause()
    assert run.status is not RunStatus.PAUSED


async def run_snapshot(world: World) -> None:
    assert (await (await world.here()).snapshot()).run_id == "here"


async def run_result(world: World) -> None:
    with trio.move_on_after(POLL):
        await (await world.here()).result()


async def run_stream(world: World) -> None:
    with trio.move_on_after(POLL):
        async for _ in (await world.here()).stream():
            pass


async def awaited(world: World) -> None:
    with trio.move_on_after(POLL):
        await WAITS.run(store=world.store, run_id="new")


async def entered(world: World) -> None:
    async with WAITS.run(store=world.store, run_id="new") as run:
        await run.send(Go("finished"))
        assert await run.result() == "finished"


async def resumed(world: World) -> None:
    async with WAITS.resume_from("left", store=world.store) as run:
        await run.send(Go("finished"))
        assert await run.result() == "finished"


async def resumed_with_input(world: World) -> None:
    snapshot = await world.store.load_snapshot("asks-left")
    await ASKS.resume_with_input(snapshot, "finished", store=world.store)


async def another_runtime(world: World) -> None:
    async with open_runtime(world.store, [WAITS], max_concurrent_runs=1) as runtime:
        run = await runtime.resume_from("left")
        await run.send(Go("finished"))
        assert await run.result() == "finished"


async def delete_run(world: World) -> None:
    await world.store.delete_run("left")


async def list_runs(world: World) -> None:
    assert len(await world.store.list_runs()) == len(RUNS) - 1


async def load_snapshot(world: World) -> None:
    assert (await world.store.load_snapshot("left")).run_id == "left"


async def history(world: World) -> None:
    assert await world.store.history("left")


async def purge(world: World) -> None:
    assert await world.store.purge(older_than=dt.timedelta(0)) == 0


UNDONE: dict[Call, str] = {
    submit: "new",
    send: "here",
    send_left: "left",
    send_elsewhere: "elsewhere",
    send_keyed: "here",
    send_later: "here",
    respond: "asks",
    respond_left: "asks-left",
    cancel: "here",
    cancel_left: "left",
    pause: "here",
    pause_left: "left",
    pause_elsewhere: "elsewhere",
    run_send: "here",
    run_pause: "here",
    delete_run: "left",
}
"""The calls that have not happened if they raise Cancelled, and the run that each acts on."""

OTHERS: list[Call] = [
    start,
    resume_from,
    get,
    cancel_elsewhere,
    wait_result,
    recover,
    serve,
    run_unpause,
    run_snapshot,
    run_result,
    run_stream,
    awaited,
    entered,
    resumed,
    resumed_with_input,
    another_runtime,
    list_runs,
    load_snapshot,
    history,
    purge,
]


def sweep(folder: Path, kind: str, call: Call, *, every: int) -> int:
    """Cancel a call at every `every`-th scheduling point. Return how many points it has."""
    for at in range(1, 10_000, every):
        instrument = CancelAt(at)
        clock = trio.testing.MockClock(autojump_threshold=0) if kind == "memory" else None
        place = folder / str(at)
        place.mkdir()
        trio.run(
            partial(trial, Openings(kind, place), call, instrument),
            clock=clock,
            instruments=[instrument],
        )
        if instrument.seen < at:
            return instrument.seen
    raise AssertionError("the call never ended")


@pytest.mark.parametrize("call", [*UNDONE, *OTHERS])
def test_a_call_can_be_cancelled_at_each_point_in_memory(tmp_path: Path, call: Call) -> None:
    assert sweep(tmp_path, "memory", call, every=1) > 0


@pytest.mark.parametrize("call", [*UNDONE, *OTHERS])
def test_a_call_can_be_cancelled_at_some_points_on_disk(tmp_path: Path, call: Call) -> None:
    assert sweep(tmp_path, "sqlite", call, every=try_many(37, 13)) > 0
