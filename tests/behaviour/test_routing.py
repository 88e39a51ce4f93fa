"""The routing of events to steps."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from blazen_trio import (
    Context,
    Delayed,
    Event,
    InputRequestEvent,
    MemoryStore,
    NoHandlerError,
    StartEvent,
    StepFailedError,
    StepOutputError,
    StopEvent,
    Workflow,
    step,
)
from tests.behaviour.events import A, B, C, SubA


async def test_the_result_is_the_stop_payload() -> None:

    @step
    async def echo(ev: StartEvent) -> StopEvent:
        return StopEvent(ev.data)

    assert await Workflow("echo", [echo]).run({"hello": "world"}) == {"hello": "world"}
    assert await Workflow("echo", [echo]).run() is None


async def test_steps_run_in_the_order_of_their_events() -> None:
    order = []

    @step
    async def first(ev: StartEvent) -> A:
        order.append("first")
        return A(1)

    @step
    async def second(ev: A) -> B:
        order.append("second")
        return B(ev.n + 1)

    @step
    async def third(ev: B) -> StopEvent:
        order.append("third")
        return StopEvent(ev.n + 1)

    assert await Workflow("chain", [third, second, first]).run() == 3
    assert order == ["first", "second", "third"]


@pytest.mark.parametrize(("given", "taken"), [(1, "left"), (0, "right")])
async def test_only_the_steps_of_the_returned_type_run(given: int, taken: str) -> None:
    ran = []

    @step
    async def choose(ev: StartEvent) -> A | B:
        return A() if ev.data else B()

    @step
    async def left(ev: A) -> StopEvent:
        ran.append("left")
        return StopEvent()

    @step
    async def right(ev: B) -> StopEvent:
        ran.append("right")
        return StopEvent()

    await Workflow("branch", [choose, left, right]).run(given)
    assert ran == [taken]


async def test_each_returned_event_reaches_its_steps_and_the_first_stop_ends_the_run(
    autojump_clock: Any,
) -> None:
    """The losers are cancelled."""
    cancelled = []

    @step
    async def both(ev: StartEvent) -> tuple[A, B]:
        return A(), B()

    @step
    async def quick(ev: A) -> StopEvent:
        await trio.sleep(1)
        return StopEvent("quick")

    @step
    async def slow(ev: B) -> StopEvent:
        try:
            await trio.sleep(10)
        except trio.Cancelled:
            cancelled.append(True)
            raise
        return StopEvent("slow")

    assert await Workflow("race", [both, quick, slow]).run() == "quick"
    assert cancelled == [True]


@pytest.mark.parametrize(
    "returned", [1, "text", {"a": 1}, [1], ("x",), object(), StartEvent, [A(), 3]]
)
async def test_the_error_of_an_invalid_return_value_names_the_step(returned: Any) -> None:

    @step
    async def rubbish(ev: StartEvent) -> StopEvent | list[A]:
        return returned  # type: ignore[no-any-return]

    @step
    async def take(ev: A) -> None:
        return None

    with pytest.raises(StepOutputError, match="'rubbish'") as caught:
        await Workflow("rubbish", [rubbish, take]).run()
    assert caught.value.step_name == "rubbish"
    assert caught.value.attempts == 1


async def test_an_input_that_no_run_starts_with_is_refused_before_any_step_runs() -> None:
    ran = []

    @step
    async def begin(ev: A) -> StopEvent:
        ran.append(1)
        return StopEvent(ev.n)

    workflow = Workflow("typed", [begin])
    with pytest.raises(NoHandlerError):
        await workflow.run(B())
    with pytest.raises(NoHandlerError):
        await workflow.run({"n": 1})
    assert not ran
    assert await workflow.run(A(3)) == 3


async def test_a_sent_event_reaches_every_accepting_step() -> None:
    seen = []

    @step
    async def begin(ev: StartEvent, ctx: Context) -> A | None:
        ctx.send(A(1))
        ctx.send(A(2))
        return None

    @step
    async def one(ev: A) -> None:
        seen.append(("one", ev.n))

    @step
    async def two(ev: A, ctx: Context) -> StopEvent | None:
        seen.append(("two", ev.n))
        return StopEvent() if ctx.collect(ev, [A, A]) else None

    await Workflow("every", [begin, one, two], max_concurrency=1).run()
    assert set(seen) == {("one", 1), ("one", 2), ("two", 1), ("two", 2)}


async def test_sending_an_undeclared_event_raises_in_the_step() -> None:

    @step
    async def begin(ev: StartEvent, ctx: Context) -> A | StopEvent:
        try:  # noqa: SIM105
            ctx.send(B())
        except StepOutputError:
            pass  # swallowed, and the step fails all the same
        return StopEvent()

    @step
    async def take(ev: A | B) -> StopEvent:
        return StopEvent()

    with pytest.raises(StepOutputError, match=r"sent B.*declares A"):
        await Workflow("sends", [begin, take], external=[B]).run()


async def test_an_external_event_that_no_step_accepts_is_refused() -> None:

    @step
    async def begin(ev: StartEvent) -> InputRequestEvent:
        return InputRequestEvent("?")

    @step
    async def take(ev: A) -> StopEvent:
        return StopEvent(ev.n)

    async with Workflow("outside", [begin, take], external=[A]).run() as run:
        with pytest.raises(
            NoHandlerError, match="no step of workflow 'outside' accepts B"
        ) as caught:
            await run.send(B())
        assert caught.value.event_type == "B"
        with pytest.raises(TypeError):
            await run.send("no event")  # type: ignore[arg-type]
        await run.send(A(7))
        assert await run.result() == 7


async def test_concurrent_runs_of_one_workflow_do_not_mix(autojump_clock: Any) -> None:

    @step
    async def begin(ev: StartEvent, ctx: Context) -> A:
        ctx.set("mine", ev.data)
        await trio.sleep(1)
        return A(ev.data)

    @step
    async def end(ev: A, ctx: Context) -> StopEvent:
        await trio.sleep(1)
        return StopEvent((ev.n, ctx.get("mine"), ctx.run_id))

    workflow = Workflow("many", [begin, end])
    results = []

    async def one(number: int) -> None:
        results.append(await workflow.run(number, run_id=f"run {number}"))

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(one, number)
    assert sorted(results) == [(number, number, f"run {number}") for number in range(20)]


async def test_a_typed_stop_event_is_the_result() -> None:
    """A stored run returns it, too."""

    @attrs.frozen
    class Report(StopEvent):
        lines: int = 0

    @step
    async def begin(ev: StartEvent) -> Report:
        return Report(lines=3)

    workflow = Workflow("typed", [begin])
    store = MemoryStore()
    assert await workflow.run(store=store, run_id="run") == Report(lines=3)
    assert await workflow.resume_from("run", store=store) == Report(lines=3)


async def test_a_subclass_reaches_steps_that_accept_its_base_and_keeps_its_class() -> None:
    seen = []

    @step
    async def begin(ev: StartEvent) -> A:
        return SubA(1, "more")

    @step
    async def base(ev: A) -> StopEvent:
        seen.append(ev)
        return StopEvent(ev)

    @step
    async def special(ev: SubA) -> None:
        seen.append(ev)

    result = await Workflow("sub", [special, begin, base]).run(store=MemoryStore())
    assert result == SubA(1, "more")


async def test_a_list_starts_a_fan_out_and_a_tuple_does_not() -> None:
    @step
    async def begin(ev: StartEvent) -> list[A]:
        return (A(), A())  # type: ignore[return-value]

    @step
    async def end(ev: A) -> StopEvent:
        return StopEvent()

    with pytest.raises(StepOutputError, match="tuple"):
        await Workflow("tuple", [begin, end]).run()


@pytest.mark.parametrize("kind", [A, StopEvent])
async def test_a_delayed_event_is_delivered_after_its_time(
    kind: type[Event], autojump_clock: Any
) -> None:
    """A delayed event may also be the one that stops the run."""

    @step
    async def begin(ev: StartEvent) -> Delayed[A] | Delayed[StopEvent]:
        return Delayed(kind(7), 100)

    @step
    async def end(ev: A) -> StopEvent:
        return StopEvent(ev.n)

    before = trio.current_time()
    assert await Workflow("late", [begin, end], timeout=5).run(store=MemoryStore()) == 7
    assert trio.current_time() - before == pytest.approx(100, abs=1)


async def test_events_returned_with_a_stop_event_are_recorded_and_not_routed() -> None:
    ran = []

    @step
    async def begin(ev: StartEvent) -> list[A] | list[StopEvent]:
        return [A(1), StopEvent("end"), A(2)]

    @step
    async def take(ev: A) -> None:
        ran.append(ev)

    workflow = Workflow("siblings", [begin, take], history=True)
    async with workflow.run(store=MemoryStore()) as run:
        assert await run.result() == "end"
        snapshot = await run.snapshot()
    assert not ran
    assert snapshot.deliveries == ()


async def test_an_event_may_have_any_type_name() -> None:
    @attrs.frozen
    class Named(Event):
        event_type = "orders.Named"  # type: ignore[misc]
        n: int = 0

    @step
    async def begin(ev: StartEvent) -> Named:
        return Named(1)

    @step
    async def end(ev: Named) -> StopEvent:
        return StopEvent(ev)

    store = MemoryStore()
    assert await Workflow("named", [begin, end]).run(store=store, run_id="run") == Named(1)


async def test_the_failure_of_a_step_is_raised_to_the_caller() -> None:

    @step
    async def broken(ev: StartEvent) -> StopEvent:
        raise LookupError("what was looked for")

    with pytest.raises(
        StepFailedError, match=r"step 'broken'.*LookupError: what was looked for"
    ) as caught:
        await Workflow("broken", [broken]).run(run_id="mine")
    assert isinstance(caught.value.__cause__, LookupError)
    assert (caught.value.run_id, caught.value.step_name, caught.value.attempts) == (
        "mine",
        "broken",
        1,
    )


async def test_two_steps_of_one_event_run_concurrently(autojump_clock: Any) -> None:
    @step
    async def begin(ev: StartEvent) -> A:
        return A()

    @step
    async def left(ev: A) -> C:
        await trio.sleep(5)
        return C(1)

    @step
    async def right(ev: A) -> C:
        await trio.sleep(5)
        return C(2)

    @step
    async def end(numbers: list[C]) -> StopEvent:
        return StopEvent([one.n for one in numbers])

    before = trio.current_time()
    assert await Workflow("both", [begin, left, right, end]).run() == [1, 2]
    assert trio.current_time() - before == pytest.approx(5, abs=0.1)
