"""Steps that return, send, store or raise invalid values fail clearly; fixed, the run resumes."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from blazen_trio import (
    Context,
    Delayed,
    DynamicEvent,
    Event,
    InputRequestEvent,
    InputResponseEvent,
    MemoryStore,
    RetryPolicy,
    SerializationError,
    StartEvent,
    StepFailedError,
    StepFailedEvent,
    StepOutputError,
    StopEvent,
    Workflow,
    step,
)


@attrs.frozen
class Item(Event):
    value: Any = None


@attrs.frozen
class Undeclared(Event):
    pass


class Hostile:
    """An object whose attributes and `repr` raise."""

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        raise RuntimeError("no text")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparing")

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")


async def coroutine() -> None:
    return None


NO_EVENTS: dict[str, Any] = {
    "number": 1,
    "nothing": 0,
    "false": False,
    "text": "text",
    "bytes": b"bytes",
    "dict": {"a": Item()},
    "set": {1},
    "list of no events": [1],
    "list with a class": [Item, Item()],
    "list in a list": [[Item()]],
    "none in a list": [Item(), None],
    "tuple": (Item(), Item()),
    "event class": Item,
    "object": object(),
    "hostile": Hostile(),
    "hostile in a list": [Hostile()],
    "delayed no event": Delayed(3, 1),  # type: ignore[type-var]
    "delayed twice": Delayed(Delayed(Item(), 1), 1),  # type: ignore[type-var]
    "iterator": iter([Item()]),
    "function": coroutine,
    "exception": ValueError("returned"),
    "not implemented": NotImplemented,
    "undeclared": Undeclared(),
    "undeclared in a list": [Item(), Undeclared()],
    "stand-in": DynamicEvent("Item", {"value": 1}),
    "list subclass": type("Items", (list,), {})([Item()]),
}
UNSTORABLE: dict[str, Any] = {
    "object": object(),
    "hostile": Hostile(),
    "deep": {"a": [(1, {2: Hostile()})]},
    "class": int,
    "function": coroutine,
    "module": pytest,
    "generator": (n for n in range(3)),
    "exception": ValueError(),
    "lone surrogate": "\ud800",
}


def mended(wrong: Any) -> tuple[Workflow, dict[str, Any]]:
    """Return a workflow whose first step does `wrong` until fixed. Its retries must not be used."""
    notes: dict[str, Any] = {"mended": False, "attempts": 0}

    @step(retry=RetryPolicy(max_attempts=3, initial_delay=0))
    async def faulty(ev: StartEvent, ctx: Context) -> Item | StopEvent | list[Item]:
        notes["attempts"] += 1
        ctx.set("written", notes["attempts"])
        if notes["mended"]:
            return StopEvent(ctx.get("written"))
        return wrong(ctx)  # type: ignore[no-any-return]

    @step
    async def take(ev: Item) -> StopEvent:
        return StopEvent("taken")

    return Workflow("faulty", [faulty, take]), notes


async def fails_and_goes_on(wrong: Any) -> StepFailedError:
    workflow, notes = mended(wrong)
    store = MemoryStore()
    with pytest.raises(StepFailedError) as caught:
        await workflow.run(store=store, run_id="run")
    assert "'faulty'" in str(caught.value)
    assert (caught.value.step_name, notes["attempts"]) == ("faulty", 1), (
        "faults of the code are not tried again"
    )
    stored = await store.load_snapshot("run")
    assert (stored.state, [one.step for one in stored.deliveries]) == ({}, ["faulty"])
    notes["mended"] = True
    assert await workflow.resume_from("run", store=store) == 2
    return caught.value


@pytest.mark.parametrize("what", NO_EVENTS)
async def test_a_step_that_returns_an_invalid_value_fails(what: str) -> None:
    error = await fails_and_goes_on(lambda ctx: NO_EVENTS[what])
    assert isinstance(error, StepOutputError)
    assert "it declares Item | StopEvent | list[Item]" in str(error)


@pytest.mark.parametrize("what", [*NO_EVENTS, "none"])
async def test_a_step_that_sends_an_invalid_value_fails(what: str) -> None:
    error = await fails_and_goes_on(lambda ctx: ctx.send(NO_EVENTS.get(what)))
    assert isinstance(error, StepOutputError)
    assert "'faulty' sent " in str(error)


@pytest.mark.parametrize("what", UNSTORABLE)
@pytest.mark.parametrize(
    "how", ["returned", "in a list", "sent", "delayed", "result", "set", "update", "default"]
)
async def test_a_step_that_stores_an_invalid_value_fails(how: str, what: str) -> None:
    value = UNSTORABLE[what]
    uses: dict[str, Any] = {
        "returned": lambda ctx: Item(value),
        "in a list": lambda ctx: [Item(1), Item(value)],
        "sent": lambda ctx: ctx.send(Item(value)),
        "delayed": lambda ctx: ctx.send(Delayed(Item(value), 1)),
        "result": lambda ctx: StopEvent(value),
        "set": lambda ctx: ctx.set("key", value),
        "update": lambda ctx: ctx.update("key", lambda _: value),
        "default": lambda ctx: ctx.update("key", lambda found: found, value),
    }
    error = await fails_and_goes_on(uses[how])
    cause = error.__cause__
    assert isinstance(cause, SerializationError)
    where = (
        "key" if how in {"set", "update", "default"} else "StopEvent" if how == "result" else "Item"
    )
    assert where in str(cause)


# Exceptions that are rubbish themselves


class NoTextError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class WrongTextError(Exception):
    def __str__(self) -> str:
        return None  # type: ignore[return-value]  # noqa: PLE0307


class NoTruthError(Exception):
    def __bool__(self) -> bool:
        raise RuntimeError("no truth")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparing")

    __hash__ = None  # type: ignore[assignment]


RAISED = [
    NoTextError(),
    WrongTextError(),
    NoTruthError("text"),
    OSError("can't read 'caf\udce9.txt'"),
    ValueError("a\0b"),
    ExceptionGroup("several", [NoTextError(), ValueError("\ud800")]),
]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("handled", [False, True])
@pytest.mark.parametrize("attempts", [1, 2])
async def test_any_exception_fails_the_step_and_not_the_engine(
    error: Exception, handled: bool, attempts: int
) -> None:
    broken = True

    @step(retry=RetryPolicy(max_attempts=attempts, initial_delay=0))
    async def raising(ev: StartEvent) -> StopEvent:
        if broken:
            raise error
        return StopEvent("mended")

    @step
    async def handler(ev: StepFailedEvent) -> StopEvent:
        return StopEvent([ev.error_type, ev.attempts])

    store = MemoryStore()
    workflow = Workflow(
        "raising",
        [raising, handler] if handled else [raising],
        history=True,
        publish_lifecycle=True,
    )
    if handled:
        assert await workflow.run(store=store, run_id="run") == [type(error).__name__, attempts]
        return
    with pytest.raises(StepFailedError, match=type(error).__name__) as caught:
        await workflow.run(store=store, run_id="run")
    assert caught.value.__cause__ is error
    assert caught.value.attempts == attempts
    broken = False
    assert await workflow.resume_from("run", store=store) == "mended"
    assert [one.kind for one in await store.history("run")].count("step_failed") == attempts


async def test_a_retry_on_that_fails_fails_the_step() -> None:
    """The step fails with the error of `retry_on`; the original one is in its context."""
    broken = True

    def asked(error: Exception) -> bool:
        raise LookupError("which errors?")

    @step(retry=RetryPolicy(retry_on=asked))
    async def raising(ev: StartEvent) -> StopEvent:
        if broken:
            raise OSError("the first")
        return StopEvent("mended")

    store = MemoryStore()
    workflow = Workflow("raising", [raising])
    with pytest.raises(StepFailedError, match="LookupError: which errors") as caught:
        await workflow.run(store=store, run_id="run")
    assert isinstance(caught.value.__cause__, LookupError)
    assert isinstance(caught.value.__cause__.__context__, OSError)
    broken = False
    assert await workflow.resume_from("run", store=store) == "mended"


@pytest.mark.parametrize("answer", ["object", "other question", "not async", "raises", "no text"])
async def test_an_input_handler_that_returns_an_invalid_value_fails_the_run(answer: str) -> None:
    @step
    async def ask(ev: StartEvent) -> InputRequestEvent:
        return InputRequestEvent("well?", request_id="q")

    @step
    async def take(ev: InputResponseEvent) -> StopEvent:
        return StopEvent(ev.response)

    async def wrong(request: InputRequestEvent) -> Any:
        if answer == "raises":
            raise OSError("'\udcff'")
        if answer == "no text":
            raise NoTextError
        return object() if answer == "object" else InputResponseEvent("other", 1)

    async def right(request: InputRequestEvent) -> str:
        return "yes"

    handler: Any = (lambda request: 3) if answer == "not async" else wrong
    store = MemoryStore()
    workflow = Workflow("asks", [ask, take])
    with pytest.raises(StepFailedError) as caught:
        await workflow.run(store=store, run_id="run", input_handler=handler)
    assert caught.value.step_name == "input_handler"
    assert await workflow.resume_from("run", store=store, input_handler=right) == "yes"
