"""Cancellation, timeouts, and Trio's conventions for libraries."""

from __future__ import annotations

import contextvars
import gc
import warnings
from typing import Any

import pytest
import trio
import trio.testing

from blazen_trio import (
    Context,
    InputRequestEvent,
    InputResponseEvent,
    MemoryStore,
    Run,
    RunCancelledError,
    RunStatus,
    RunTimeoutError,
    StartEvent,
    StepFailedError,
    StopEvent,
    StoreError,
    Workflow,
    step,
)
from blazen_trio.testing import FaultyStore
from tests.behaviour.events import SLOW, A, B, begin, end


async def test_max_concurrency_is_reached_and_never_exceeded(autojump_clock: Any) -> None:
    """A bound costs no task per waiting delivery."""
    running = most = 0

    @step
    async def spread(ev: StartEvent) -> list[A]:
        return [A(n) for n in range(10)]

    @step(max_concurrency=5)
    async def work(ev: A) -> B:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1
        return B(ev.n)

    @step
    async def join(done: list[B]) -> StopEvent:
        return StopEvent(len(done))

    assert await Workflow("five", [spread, work, join]).run() == 10
    assert most == 5
    most = 0
    assert await Workflow("two", [spread, work, join], max_concurrency=2).run() == 10
    assert most == 2


async def test_a_cancel_before_the_first_turn_of_the_loop_is_not_lost() -> None:
    ran = []

    @step
    async def never(ev: StartEvent) -> StopEvent:
        ran.append(1)
        return StopEvent()

    async with Workflow("never", [never]).run() as run:
        run.cancel("not today")
        run.cancel("twice")
        with pytest.raises(RunCancelledError, match="not today") as caught:
            await run.result()
        assert caught.value.reason == "not today"
    assert not ran


async def test_cancel_cancels_and_awaits_the_steps(autojump_clock: Any) -> None:
    async with SLOW.run(store=MemoryStore()) as run:
        await trio.sleep(1)
        before = trio.current_time()
        run.cancel()
        with pytest.raises(RunCancelledError):
            await run.result()
        assert trio.current_time() == pytest.approx(before, abs=0.1)


async def test_each_commit_stores_the_runs_time_at_work(autojump_clock: Any) -> None:
    """The time at work is stored, and a run that timed out gets its full time again."""
    workflow = Workflow("slow", [begin, end], timeout=8)
    store = MemoryStore()
    with trio.move_on_after(7):
        await workflow.run(store=store, run_id="run")
    assert (await store.load_snapshot("run")).elapsed == pytest.approx(5, abs=0.1)
    with pytest.raises(RunTimeoutError):
        await workflow.resume_from("run", store=store)
    assert await workflow.resume_from("run", store=store) == "end"
    # A timeout given to run() stays with the run.
    with trio.move_on_after(7):
        await workflow.run(store=store, run_id="other", timeout=100)
    async with workflow.resume_from("other", store=store) as run:
        await trio.sleep(4.9)
        assert run.status is RunStatus.RUNNING
        assert await run.result() == "end"


async def test_context_variables_do_not_reach_the_next_step() -> None:
    variable = contextvars.ContextVar("variable", default="clean")
    seen = []

    @step
    async def sets(ev: StartEvent) -> A:
        seen.append(variable.get())
        variable.set("dirty")
        return A()

    @step
    async def looks(ev: A) -> StopEvent:
        seen.append(variable.get())
        return StopEvent()

    variable.set("the caller's")
    await Workflow("clean", [sets, looks]).run()
    assert seen == ["the caller's"] * 2
    assert variable.get() == "the caller's"


class Refuses:
    """An object that can't be compared."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("not with me")

    __hash__ = None  # type: ignore[assignment]


class Agrees:
    """An object that is equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("text", "other"),
        (None, [1]),
        ([1], [1]),
        (1, True),
        (object(), Refuses()),
        (Refuses(), Refuses()),
        (Agrees(), Agrees()),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_context_variable_set_in_a_step_ends_with_it(before: Any, after: Any) -> None:
    variable: contextvars.ContextVar[Any] = contextvars.ContextVar("any")
    variable.set(before)
    seen = []

    @step
    async def sets(ev: StartEvent) -> A:
        variable.set(after)
        return A()

    @step
    async def looks(ev: A) -> StopEvent:
        seen.append(variable.get())
        return StopEvent()

    await Workflow("clean", [sets, looks]).run()
    assert len(seen) == 1
    assert seen[0] is before


async def test_steps_that_never_await_do_not_hold_the_loop() -> None:
    turns = 0

    @step
    async def spin(ev: StartEvent | A) -> A | StopEvent:
        n = ev.n if isinstance(ev, A) else 0
        return A(n + 1) if n < 640 else StopEvent(n)

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await Workflow("spin", [spin]).run()
        nursery.cancel_scope.cancel()
    assert turns >= 640 // 32


async def test_public_methods_are_checkpoints() -> None:
    @step
    async def ask(ev: StartEvent) -> InputRequestEvent:
        return InputRequestEvent("?")

    @step
    async def take(ev: InputResponseEvent | B) -> StopEvent | None:
        return StopEvent("end") if isinstance(ev, InputResponseEvent) else None

    async with Workflow("points", [ask, take], external=[B]).run() as run:
        calls: list[Any] = [
            run.snapshot,
            run.pause,
            run.pause,
            run.unpause,
            run.unpause,
            lambda: run.send(B()),
        ]
        for call in calls:
            with trio.testing.assert_checkpoints():
                await call()
        while not run.input_requests:
            await trio.lowlevel.checkpoint()
        with trio.testing.assert_checkpoints():
            await run.respond("yes")
        for _ in range(2):
            with trio.testing.assert_checkpoints():
                await run.result()
        stream = run.stream()
        with trio.testing.assert_checkpoints():
            assert await stream.__anext__() == StopEvent("end")


async def test_a_cancelled_send_has_not_happened() -> None:
    @step
    async def wait(ev: StartEvent) -> InputRequestEvent:
        return InputRequestEvent("?")

    @step
    async def take(ev: A) -> StopEvent:
        return StopEvent(ev.n)

    async with Workflow("send", [wait, take], external=[A]).run(store=MemoryStore()) as run:
        with trio.CancelScope() as scope:
            scope.cancel()
            await run.send(A(1))
        assert scope.cancelled_caught
        await run.send(A(2))
        assert await run.result() == 2


async def test_the_key_of_a_sent_event_is_used_once() -> None:
    """A used `key=` is refused, also after its event was taken and after a resume."""

    @step
    async def wait(ev: StartEvent) -> InputRequestEvent:
        return InputRequestEvent("?")

    @step
    async def take(ev: A, ctx: Context) -> StopEvent | None:
        ctx.update("sum", lambda n: n + ev.n, 0)
        return StopEvent(ctx.get("sum")) if ev.n == 100 else None

    workflow = Workflow("keys", [wait, take], external=[A])
    store = MemoryStore()
    async with workflow.run(store=store, run_id="run") as run:
        assert await run.send(A(1), key="once")
        assert not await run.send(A(1), key="once")
        await run.pause()
    async with workflow.resume_from("run", store=store) as run:
        assert not await run.send(A(1), key="once")
        assert await run.send(A(100), key="other")
        assert await run.result() == 101


# The block and its errors


@step
async def broken(ev: StartEvent) -> StopEvent:
    raise LookupError("broken")


BROKEN = Workflow("broken", [broken])


async def test_the_body_is_never_cancelled_by_its_run(autojump_clock: Any) -> None:
    reached = False
    with pytest.raises(StepFailedError):
        async with BROKEN.run():
            await trio.sleep(10)
            reached = True
    assert reached


async def test_an_error_of_the_body_takes_precedence() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        async with BROKEN.run():
            await trio.testing.wait_all_tasks_blocked()
            raise ZeroDivisionError
    assert type(caught.value) is ZeroDivisionError


async def test_a_group_is_raised_only_if_the_body_and_the_engine_both_fail() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with SLOW.run(store=FaultyStore(MemoryStore(), fail_before=2)) as run:
            run.cancel()
            await trio.testing.wait_all_tasks_blocked()
            raise ZeroDivisionError
    assert [type(one) for one in caught.value.exceptions] == [ZeroDivisionError, StoreError]


async def test_a_store_that_fails_stops_the_run(autojump_clock: Any) -> None:
    cancelled = []

    @step
    async def both(ev: StartEvent) -> tuple[A, B]:
        return A(), B()

    @step
    async def commits(ev: A) -> None:
        await trio.sleep(1)

    @step
    async def runs(ev: B) -> StopEvent:
        try:
            await trio.sleep(100)
        finally:
            cancelled.append(True)
        return StopEvent()

    workflow = Workflow("fails", [both, commits, runs])
    async with workflow.run(store=FaultyStore(MemoryStore(), fail_before=3)) as run:
        for _ in range(2):
            with pytest.raises(StoreError, match="severed"):
                await run.result()
        with pytest.raises(StoreError):
            await run.send(A())
    assert cancelled == [True]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_raised_without_a_group(error: type[BaseException]) -> None:
    @step
    async def interrupted(ev: StartEvent) -> StopEvent:
        raise error

    workflow = Workflow("interrupted", [interrupted])

    async def entered() -> None:
        async with workflow.run() as run:
            await run.result()

    with pytest.raises(error):
        trio.run(workflow.run)
    with pytest.raises(error):
        trio.run(entered)


# Starting


async def test_a_start_can_be_used_only_once() -> None:
    @step
    async def echo(ev: StartEvent) -> StopEvent:
        return StopEvent(ev.data)

    workflow = Workflow("echo", [echo])
    start = workflow.run(1)
    assert await start == 1
    with pytest.raises(RuntimeError, match="before"):
        await start
    with pytest.raises(RuntimeError, match="before"):
        async with start:
            pass
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        workflow.run(2)
        gc.collect()
    assert ["neither awaited nor entered" in str(one.message) for one in seen] == [True]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(workflow.run, 3)
    async with workflow.run(4) as run:
        assert isinstance(run, Run)


def test_a_start_can_be_given_to_trio() -> None:
    @step
    async def echo(ev: StartEvent) -> StopEvent:
        return StopEvent(ev.data)

    assert trio.run(Workflow("echo", [echo]).run, {"n": 1}) == {"n": 1}


@pytest.mark.parametrize(
    "arguments",
    [
        {"run_id": ""},
        {"run_id": 5},
        {"run_id": "x" * 300},
        {"durability": "some"},
        {"timeout": 0},
        {"timeout": -1},
    ],
)
def test_invalid_arguments_are_refused_immediately(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        SLOW.run(**arguments)
