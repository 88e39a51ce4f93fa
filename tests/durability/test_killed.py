"""A process is killed in each status of its run, and repeatedly, on each store.

To kill a simulated process, its store is severed first, so nothing that its tasks do while they
are cancelled reaches the storage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing

from blazen_trio import (
    Context,
    Event,
    InputRequestEvent,
    InputRequiredError,
    InputResponseEvent,
    RetryPolicy,
    RunNotFoundError,
    RunStatus,
    RunTimeoutError,
    StartEvent,
    StepFailedError,
    StopEvent,
    StoreError,
    Workflow,
    WorkflowError,
    step,
)
from blazen_trio.testing import FaultyStore
from tests.durability.openings import Storage
from tests.mixed import INPUT, Log, check_result, mixed_workflow, pending_keys_of

if TYPE_CHECKING:
    from pathlib import Path

    from blazen_trio import Run

on_each_store = pytest.mark.parametrize("kind", ["memory", "sqlite"])
in_each_mode = pytest.mark.parametrize("durability", ["sync", "async", "exit"])
KILLED_IN = {
    # status -> the outcome of resume_from in a new process
    "running": "resumes",
    "paused": "resumes",
    "waiting": "resumes, parks again",
    "completed": "recorded result",
    "failed": "tries again",
    "timed_out": "tries again",
    "cancelled": "resumes",
}


@attrs.frozen
class Work(Event):
    status: str


@attrs.frozen
class Attempt:
    key: str
    number: int


class World:
    """The world outside the run, which the steps read and change."""

    def __init__(self) -> None:
        self.fixed = False
        self.attempts: list[Attempt] = []

    def workflow(self) -> Workflow:
        @step
        async def begin(ev: StartEvent) -> Work | InputRequestEvent:
            return InputRequestEvent("well?") if ev.data == "waiting" else Work(ev.data)

        @step(retry=RetryPolicy(max_attempts=2, initial_delay=0.001))
        async def work(ev: Work, ctx: Context) -> StopEvent:
            self.attempts.append(Attempt(ctx.idempotency_key, ctx.attempt))
            if not self.fixed:
                if ev.status == "failed":
                    msg = "broken"
                    raise OSError(msg)
                if ev.status != "completed":
                    await trio.sleep_forever()
            return StopEvent("result")

        @step
        async def answered(ev: InputResponseEvent) -> StopEvent:
            return StopEvent("result")

        return Workflow("killed", [begin, work, answered])


async def bring(run: Run, status: str, world: World) -> None:
    if status in ("running", "paused", "cancelled"):
        while not world.attempts:  # noqa: ASYNC110  # until the step is in flight
            await trio.sleep(0.001)
    if status == "running":
        await run.snapshot()
    elif status == "paused":
        await run.pause(grace=0)
    else:
        if status == "cancelled":
            run.cancel()
        try:
            await run.result()
        except (InputRequiredError, StepFailedError, RunTimeoutError, WorkflowError):
            assert status != "completed"
    assert run.status is RunStatus(status)


@on_each_store
@in_each_mode
@pytest.mark.parametrize("status", KILLED_IN)
async def test_a_run_resumes_after_its_process_was_killed_in_each_status(
    status: str, durability: str, kind: str, tmp_path: Path
) -> None:
    storage, world = Storage(kind, tmp_path), World()
    timeout = 0.02 if status == "timed_out" else 100
    async with storage.opened() as store:
        faulty = FaultyStore(store)
        with trio.CancelScope() as scope:
            start = world.workflow().run(
                status, store=faulty, run_id="run", durability=durability, timeout=timeout
            )
            async with start as run:
                await bring(run, status, world)
                await faulty.sever()
                scope.cancel()
                await trio.lowlevel.checkpoint()
    before, world.attempts = world.attempts, []
    world.fixed = True
    async with storage.opened() as store:
        # Its status is unchanged.
        assert (await store.get_run("run")).status is RunStatus(status)
        async with world.workflow().resume_from("run", store=store) as run:
            if "parks again" in KILLED_IN[status]:
                with pytest.raises(InputRequiredError):
                    await run.result()
                await run.respond("yes")
            assert await run.result() == "result"
    if KILLED_IN[status] == "recorded result" or status == "waiting":
        assert not world.attempts
    else:
        # Another attempt has the same key.
        assert world.attempts == [Attempt(before[-1].key, 1)]


# Killed repeatedly


@on_each_store
@in_each_mode
@pytest.mark.parametrize("every", [2, 5, 17])
async def test_a_run_killed_repeatedly_ends_the_same_way(
    every: int, durability: str, kind: str, tmp_path: Path
) -> None:
    """Each process makes `every` commits; odd ones die before the last of them, even ones after."""
    if durability == "exit" and every == 2:
        # A process that dies at its second commit never stores an answer: no run would end.
        every = 3
    storage = Storage(kind, tmp_path)
    committed: dict[str, int] = {}
    began: set[str] = set()
    for process in range(500):
        log = Log()
        async with storage.opened() as store:
            pending = await pending_keys(store)
            crash: dict[str, Any] = {"fail_before" if process % 2 else "fail_after": every}
            faulty = FaultyStore(store, **crash)
            workflow = mixed_workflow(log, durability=durability, slowness=0.0005)
            start = (
                workflow.run(INPUT, store=faulty, run_id="run")
                if pending is None
                else workflow.resume_from("run", store=faulty)
            )
            try:
                result = await start
            except StoreError:
                result = None
            redone = {key for key, _ in log.attempts} & began
            assert redone <= (pending or set()), "a step whose commit was on disk ran again"
            began |= {key for key, _ in log.attempts}
            if result is not None:
                check_result(result)
                committed = (await store.load_snapshot("run")).state["commits"]
                break
    else:
        pytest.fail("it never ends")
    assert committed["read"] == 9
    assert committed["replace_book"] == 3
    assert committed["close_shelf"] == 3
    assert committed["close_library"] == 1
    assert committed["count"] == 4
    if every == 2 and durability == "sync":
        assert process > 10


async def pending_keys(store: Any) -> set[str] | None:
    """Return the idempotency keys of the deliveries pending on disk; `None`: there is no run."""
    try:
        snapshot = await store.load_snapshot("run")
    except RunNotFoundError:
        return None
    return pending_keys_of(snapshot)
