"""A question is answered exactly once, in any process and by any means."""

from __future__ import annotations

import functools
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from blazen_trio import (
    Context,
    Delayed,
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
from tests.databases import KINDS, an_engine, fresh_database


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
    """The answers that were accepted, and those that were refused."""

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
async def test_one_answer_counts_if_two_processes_answer_at_the_same_moment(
    tmp_path: Any, driven: bool
) -> None:
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


async def test_an_answer_in_the_inbox_and_a_local_one_exclude_each_other() -> None:
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


async def test_an_unusable_answer_leaves_the_question_open() -> None:
    store = MemoryStore()
    await parked(store)
    async with open_runtime(store) as front:
        # The workflow does not have its class, so the driver of the run rejects it.
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


async def test_an_answer_from_elsewhere_wins_against_a_slower_input_handler() -> None:
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
        await front.respond("r", "the other's")
        answered.set()
        assert await run.result() == "the other's"


@pytest.mark.parametrize("request_id", [[], {}, None, 7])
@pytest.mark.parametrize("stored", [True, False])
async def test_an_invalid_request_id_is_refused(request_id: Any, stored: bool) -> None:
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


async def test_keys_reserved_for_the_engine_are_refused() -> None:
    store = MemoryStore()
    await parked(store)
    async with open_runtime(store) as front:
        with pytest.raises(ValueError, match="reserved for the engine"):
            await front.send("r", InputResponseEvent("q", 1), key="blazen:answer:3:0")


async def test_another_run_with_the_same_id_has_other_idempotency_keys() -> None:
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


@pytest.mark.parametrize("how", ["respond", "send", "send under a key"])
@pytest.mark.parametrize("driven", [False, True])
async def test_a_second_answer_is_refused_however_it_is_given(how: str, driven: bool) -> None:
    """Two processes answer by `respond` or `send`, with a key or without one."""
    store = MemoryStore()
    numbers = iter(range(100))

    async def give(runtime: Runtime, value: str) -> None:
        response = InputResponseEvent("q", value)
        if how == "respond":
            await runtime.respond("r", response)
        else:
            key = None if how == "send" else f"k{next(numbers)}"
            assert await runtime.send("r", response, key=key)

    async with open_runtime(store, [FLOW]) as here, open_runtime(store.beside()) as there:
        if driven:
            run = await here.start(FLOW, run_id="r")
            with pytest.raises(InputRequiredError):
                await run.result()
        else:
            await parked(store)
        heard: list[str] = []

        async def click(runtime: Runtime, value: str) -> None:
            try:
                await give(runtime, value)
            except InputResponseError:
                return
            except RunFinishedError:
                assert driven  # it has already continued with the first
                return
            heard.append(value)

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(click, (here, there)[number % 2], f"{number}")
        assert len(heard) == 1
        await FLOW.resume_from("r", store=store) if not driven else await here.result("r")
        assert await there.result("r") == heard[0]


async def test_keys_of_answers_apply_to_the_run_and_to_other_processes() -> None:
    store = MemoryStore()
    async with open_runtime(store) as front, TWO.run(store=store, run_id="r") as run:
        with pytest.raises(InputRequiredError):
            await run.result()
        assert await run.send(InputResponseEvent("a", 1), key="k")
        assert not await run.send(InputResponseEvent("a", 1), key="k")
        assert not await front.send("r", InputResponseEvent("a", 1), key="k")
        for send in (run.send, functools.partial(front.send, "r")):
            with pytest.raises(InputResponseError, match="already answered"):
                await send(InputResponseEvent("a", 2), key="l")
        # A refused answer does not use up its key.
        assert await front.send("r", InputResponseEvent("b", 3), key="l")
        assert await run.result() == [1, 3]


@step
async def ask_two(ev: StartEvent) -> tuple[InputRequestEvent, InputRequestEvent]:
    return InputRequestEvent("a", request_id="a"), InputRequestEvent("b", request_id="b")


@step
async def gather(ev: InputResponseEvent, ctx: Context) -> StopEvent | None:
    answers = [*ctx.get("answers", default=[]), ev.response]
    ctx.set("answers", answers)
    return StopEvent(answers) if ev.request_id == "b" else None


TWO = Workflow("two", [ask_two, gather])


async def test_a_run_without_a_store_takes_an_answer_once_per_key() -> None:
    async with TWO.run() as run:
        with pytest.raises(InputRequiredError):
            await run.result()
        assert await run.send(InputResponseEvent("a", 1), key="k")
        assert not await run.send(InputResponseEvent("a", 2), key="k")
        with pytest.raises(InputResponseError, match="already answered"):
            await run.send(InputResponseEvent("a", 2), key="l")
        assert await run.send(InputResponseEvent("b", 3), key="l")
        assert await run.result() == [1, 3]


async def test_a_delayed_answer_is_refused() -> None:
    store = MemoryStore()
    async with open_runtime(store) as front, FLOW.run(store=store, run_id="r") as run:
        late = Delayed(InputResponseEvent("q", 1), 60)
        for send in (run.send, functools.partial(front.send, "r")):
            with pytest.raises(ValueError, match="not take a delayed answer"):
                await send(late)
        while run.status.value != "waiting":
            await trio.lowlevel.checkpoint()
        await run.respond("now")
        assert await run.result() == "now"


@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_in_the_callers_transaction_counts_once(kind: str, tmp_path: Any) -> None:
    with fresh_database(kind, tmp_path) as url, an_engine(url) as engine:
        async with open_store(url, migrate=True) as store, open_runtime(store) as front:
            with pytest.raises(InputRequiredError):
                await TWO.run(store=store, run_id="r")

            def given(request_id: str, value: Any, connection: Any, **more: Any) -> Any:
                response = InputResponseEvent(request_id, value)
                return front.send("r", response, connection=connection, **more)

            with engine.connect() as mine:
                with mine.begin():
                    assert await given("a", 0, mine)
                    with pytest.raises(InputResponseError, match="already answered"):
                        await given("a", 1, mine)
                    mine.rollback()  # so the question is still open
                with mine.begin():
                    assert await given("a", 2, mine, key="k")
                    assert not await given("a", 2, mine, key="k")
                with mine.begin(), pytest.raises(InputResponseError, match="already answered"):
                    await given("a", 3, mine)
            with pytest.raises(InputResponseError, match="already answered"):
                await front.respond("r", InputResponseEvent("a", 4))
            assert not await front.send("r", InputResponseEvent("a", 2), key="k")
            await front.respond("r", InputResponseEvent("b", 5))
            with engine.begin() as mine, pytest.raises(InputResponseError, match="already answ"):
                await given("b", 6, mine)
            assert await TWO.resume_from("r", store=store) == [2, 5]
            with engine.begin() as mine, pytest.raises(RunFinishedError):
                await given("b", 7, mine)


@pytest.mark.parametrize("kind", KINDS)
async def test_one_of_several_answers_in_concurrent_transactions_is_taken(
    kind: str, tmp_path: Any
) -> None:
    """The others wait for it, and can then keep their own rows where the database allows that."""
    with fresh_database(kind, tmp_path) as url, an_engine(url) as engine:
        async with open_store(url, migrate=True) as store, open_runtime(store) as front:
            await parked(store)
            answers = Answers()

            async def give(value: str) -> None:
                with engine.connect() as mine, mine.begin():

                    async def respond(response: InputResponseEvent) -> None:
                        await front.send("r", response, key=f"key {value}", connection=mine)

                    await answers.click(respond, value)
                    await trio.sleep(0.05)

            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(give, str(number))
            assert (len(answers.heard), len(answers.refused)) == (1, 3)
            assert await FLOW.resume_from("r", store=store) == answers.heard[0]
