"""A question is answered once, by whomever and in whatever process."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
import trio.testing

from blazen_trio import (
    Context,
    InputRequestEvent,
    InputRequiredError,
    InputResponseError,
    InputResponseEvent,
    MemoryStore,
    RunFinishedError,
    Runtime,
    StartEvent,
    StopEvent,
    Workflow,
    open_runtime,
    open_store,
    step,
)


@step
async def ask(ev: StartEvent) -> InputRequestEvent:
    return InputRequestEvent("Pay out?", request_id="q")


@step
async def heed(ev: InputResponseEvent) -> StopEvent:
    return StopEvent(ev.response)


FLOW = Workflow("payout", [ask, heed])


async def parked(store: Any, run_id: str = "r") -> None:
    with pytest.raises(InputRequiredError):
        await FLOW.run(store=store, run_id=run_id)


class Answers:
    """Who was told that they were heard."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.refused: list[str] = []

    async def click(self, respond: Any, answer: str) -> None:
        try:
            await respond(InputResponseEvent("q", answer))
        except (InputResponseError, RunFinishedError):  # the first answer ends the run
            self.refused.append(answer)
        else:
            self.heard.append(answer)


def to_run(runtime: Runtime) -> Any:
    async def respond(response: Any) -> None:
        await runtime.respond("r", response)

    return respond


@pytest.mark.parametrize("driven", [False, True])
async def test_two_processes_answer_at_the_same_moment(tmp_path: Any, driven: bool) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    async with (
        open_store(url) as one,
        open_store(url) as two,
        open_runtime(one, [FLOW]) as first,
        open_runtime(two) as second,
    ):
        if driven:
            run = await first.start(FLOW, run_id="r")
            with pytest.raises(InputRequiredError):
                await run.result()
        else:
            await parked(one)
        answers = Answers()
        async with trio.open_nursery() as nursery:
            for n, runtime in enumerate([first, second] * 3):
                nursery.start_soon(answers.click, to_run(runtime), str(n))
        if not driven:
            assert await FLOW.resume_from("r", store=one) == answers.heard[0]
        else:
            assert await first.result("r") == answers.heard[0]
        assert (len(answers.heard), len(answers.refused)) == (1, 5)


async def test_an_answer_that_lies_in_the_inbox_counts_before_one_given_here() -> None:
    store = MemoryStore()
    answers = Answers()
    async with open_runtime(store) as front, FLOW.run(store=store, run_id="r") as run:
        while run.status.value != "waiting":
            await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answers.click, run.respond, "here")
            nursery.start_soon(answers.click, to_run(front), "there")
        assert [await run.result()] == answers.heard
    assert len(answers.refused) == 1


async def test_an_answer_that_cannot_be_taken_leaves_the_question_to_the_next() -> None:
    store = MemoryStore()
    await parked(store)
    async with open_runtime(store) as front:
        # Of a class that the workflow does not have: whoever drives the run rejects it.
        await front.respond("r", _other_answer("q", "lost"))
        with pytest.raises(InputResponseError):
            await front.respond("r", "too late, for all that is known")
        with pytest.raises(InputRequiredError):
            await FLOW.resume_from("r", store=store)
        await front.respond("r", "second")
        with pytest.raises(InputResponseError):
            await front.respond("r", "third")
    assert await FLOW.resume_from("r", store=store) == "second"


def _other_answer(request_id: str, response: Any) -> Any:
    cls = attrs.make_class("Unknown", [], bases=(InputResponseEvent,), frozen=True)
    return cls(request_id, response)


async def test_a_handlers_answer_is_one_among_others() -> None:
    answered = trio.Event()

    async def handler(request: InputRequestEvent) -> str:
        await answered.wait()
        return "the handler's"

    store = MemoryStore()
    async with (
        open_runtime(store) as front,
        FLOW.run(store=store, run_id="r", input_handler=handler) as run,
    ):
        while not (await run.snapshot()).input_requests:
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        await front.respond("r", "somebody's")
        answered.set()
        assert await run.result() == "somebody's"


@pytest.mark.parametrize("request_id", [[], {}, None, 7])
@pytest.mark.parametrize("stored", [True, False])
async def test_an_id_that_is_none_is_refused(request_id: Any, stored: bool) -> None:
    store = MemoryStore()
    async with FLOW.run(store=store if stored else None, run_id="r") as run:
        while run.status.value != "waiting":
            await trio.lowlevel.checkpoint()
        with pytest.raises(InputResponseError, match="request_id"):
            await run.respond(InputResponseEvent(request_id, "x"))
        await run.respond("y")
        assert await run.result() == "y"
    await parked(store, "other")
    async with open_runtime(store) as front:
        with pytest.raises(InputResponseError, match="request_id"):
            await front.respond("other", InputResponseEvent(request_id, "x"))


async def test_keys_of_the_engine_are_nobody_elses() -> None:
    store = MemoryStore()
    await parked(store)
    async with open_runtime(store) as front:
        with pytest.raises(ValueError, match="engine's own"):
            await front.send("r", InputResponseEvent("q", 1), key="blazen:answer:3:0")


async def test_another_run_of_an_id_has_other_idempotency_keys() -> None:
    keys = []

    @step
    async def charge(ev: StartEvent, ctx: Context) -> StopEvent:
        keys.append(ctx.idempotency_key)
        return StopEvent()

    flow = Workflow("pay", [charge])
    store = MemoryStore()
    await flow.run(store=store, run_id="order-7")
    await store.delete_run("order-7")
    await flow.run(store=store, run_id="order-7")
    await store.delete_run("order-7")
    async with open_runtime(store, [flow]) as runtime:
        await runtime.submit(flow, run_id="order-7")
        await flow.resume_from("order-7", store=store)
    await flow.run(run_id="order-7")
    assert len(set(keys)) == 4
