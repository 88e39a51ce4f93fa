"""Human in the loop."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
import trio.testing

from blazen_trio import (
    Context,
    Event,
    InputRequestEvent,
    InputRequiredError,
    InputResponseError,
    InputResponseEvent,
    MemoryStore,
    RunStatus,
    Snapshot,
    StartEvent,
    StepFailedError,
    StopEvent,
    Workflow,
    step,
)
from tests.behaviour.events import A


@attrs.frozen
class AskName(InputRequestEvent):
    pass


@attrs.frozen
class Name(InputResponseEvent):
    pass


@attrs.frozen
class AskAge(InputRequestEvent):
    pass


@attrs.frozen
class Age(InputResponseEvent):
    pass


RAN: list[str] = []


@step
async def ask(ev: StartEvent) -> AskName:
    RAN.append("ask")
    return AskName("name?", {"hint": 1})


@step
async def named(ev: Name) -> StopEvent:
    RAN.append("named")
    return StopEvent(ev.response)


ONE = Workflow("one", [ask, named], timeout=10)


@step
async def ask_both(ev: StartEvent) -> tuple[AskName, AskAge]:
    return AskName("name?", request_id="n"), AskAge("age?", request_id="a")


@step
async def both(ev: Name | Age, ctx: Context) -> StopEvent | None:
    found = ctx.collect(ev, [Name, Age])
    return StopEvent([one.response for one in found]) if found else None


TWO = Workflow("two", [ask_both, both])


async def test_a_question_is_streamed_and_its_answer_continues_the_run() -> None:
    async with ONE.run() as run:
        async for event in run.stream():
            if isinstance(event, AskName):
                assert event.metadata == {"hint": 1}
                await run.respond(Name(event.request_id, "ann"))
        assert await run.result() == "ann"


async def test_a_run_parks_and_its_result_may_be_awaited_again(autojump_clock: Any) -> None:
    async with ONE.run() as run:
        with pytest.raises(InputRequiredError) as caught:
            await run.result()
        assert caught.value.request.prompt == "name?"
        assert run.input_requests == caught.value.requests == (caught.value.request,)
        assert caught.value.snapshot.status is RunStatus.WAITING
        await trio.sleep(1000)  # the deadline stands still meanwhile
        await run.respond(Name(caught.value.request.request_id, "bob"))
        assert await run.result() == "bob"


async def test_the_question_of_an_awaited_run_is_raised_and_answered_through_its_snapshot() -> None:
    """Each step runs once."""
    RAN.clear()
    with pytest.raises(InputRequiredError) as caught:
        await ONE.run()
    snapshot = Snapshot.from_msgpack(
        Snapshot.from_json(caught.value.snapshot.to_json()).to_msgpack()
    )
    answer = Name(snapshot.input_requests[0].request_id, "eve")
    assert await ONE.resume_with_input(snapshot, answer) == "eve"
    assert RAN == ["ask", "named"]


@pytest.mark.parametrize("answer", ["plain", Name])
async def test_the_input_handler_answers_while_other_steps_run(
    answer: Any, autojump_clock: Any
) -> None:
    went_on = []

    @step
    async def begin(ev: StartEvent) -> tuple[AskName, A]:
        return AskName("?"), A()

    @step
    async def other(ev: A) -> None:
        await trio.sleep(1)
        went_on.append(trio.current_time())

    @step
    async def end(ev: InputResponseEvent) -> StopEvent:
        return StopEvent(ev.response)

    async def handler(request: AskName) -> Any:
        await trio.sleep(5)
        return "yes" if answer == "plain" else Name(request.request_id, "yes")

    workflow = Workflow("handled", [begin, other, end], input_handler=handler)
    assert await workflow.run(store=MemoryStore()) == "yes"
    assert len(went_on) == 1


async def test_an_input_handler_that_returns_none_leaves_the_question_open() -> None:
    async def handler(request: InputRequestEvent) -> None:
        await trio.lowlevel.checkpoint()

    async with ONE.run(input_handler=handler) as run:
        with pytest.raises(InputRequiredError):
            await run.result()
        await run.respond(Name(run.input_requests[0].request_id, "later"))
        assert await run.result() == "later"


async def test_an_input_handler_that_fails_fails_the_run() -> None:
    async def handler(request: InputRequestEvent) -> None:
        raise ConnectionError("nobody there")

    store = MemoryStore()
    with pytest.raises(StepFailedError, match="nobody there") as caught:
        await ONE.run(store=store, run_id="run", input_handler=handler)
    assert caught.value.step_name == "input_handler"
    assert isinstance(caught.value.__cause__, ConnectionError)

    async def better(request: InputRequestEvent) -> Name:
        return Name(request.request_id, "somebody")

    assert await ONE.resume_from("run", store=store, input_handler=better) == "somebody"


async def test_the_input_handler_is_called_again_after_a_crash() -> None:
    async def never(request: InputRequestEvent) -> None:
        await trio.sleep_forever()

    async def handler(request: InputRequestEvent) -> Name:
        return Name(request.request_id, "at last")

    store = MemoryStore()
    with trio.CancelScope() as scope:
        async with ONE.run(store=store, run_id="run", input_handler=never) as run:
            while not run.input_requests:
                await trio.lowlevel.checkpoint()
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert await ONE.resume_from("run", store=store, input_handler=handler) == "at last"


async def test_answers_are_matched_to_questions_by_type_and_by_id() -> None:
    async with TWO.run(store=MemoryStore()) as run:
        with pytest.raises(InputRequiredError) as caught:
            await run.result()
        assert [type(one) for one in caught.value.requests] == [AskName, AskAge]
        with pytest.raises(InputResponseError, match="2 open questions"):
            await run.respond("which?")
        await run.respond(Age("a", 30))
        with pytest.raises(InputRequiredError):
            await run.result()
        await run.respond(Name("n", "ann"))
        assert await run.result() == ["ann", 30]


@pytest.mark.parametrize("request_id", ["unknown", "a"])
async def test_a_wrong_or_second_answer_is_refused(request_id: str) -> None:
    async with TWO.run() as run:
        with pytest.raises(InputRequiredError):
            await run.result()
        await run.respond(Age("a", 1))
        with pytest.raises(InputResponseError, match=request_id) as caught:
            await run.respond(Age(request_id, 2))
        assert caught.value.request_id == request_id
        await run.respond(Name("n", "x"))
        assert await run.result() == ["x", 1]


async def test_an_acknowledged_answer_survives_an_immediate_crash() -> None:
    """An acknowledged answer is there after a crash, and no step before it runs again."""
    RAN.clear()
    store = MemoryStore()
    with trio.CancelScope() as scope:
        async with TWO.run(store=store, run_id="run") as run:
            with pytest.raises(InputRequiredError):
                await run.result()
            await run.respond(Age("a", 30))
            scope.cancel()
            await trio.lowlevel.checkpoint()
    async with TWO.resume_from("run", store=store) as run:
        with pytest.raises(InputRequiredError) as caught:
            await run.result()
        assert [one.request_id for one in caught.value.requests] == ["n"]
        await run.respond(Name("n", "ann"))
        assert await run.result() == ["ann", 30]


async def test_published_events_need_no_accepting_step() -> None:
    """A step may still accept them."""
    seen: list[Event] = []

    @step
    async def watch(ev: InputRequestEvent) -> None:
        seen.append(ev)

    async with Workflow("watched", [ask, watch, named]).run() as run:
        with pytest.raises(InputRequiredError):
            await run.result()
        assert [type(one) for one in seen] == [AskName]
        run.cancel()
