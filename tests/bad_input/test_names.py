"""Names and texts that can't be stored are refused, or escaped, where they are given."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from blazen_trio import (
    Context,
    Event,
    MemoryStore,
    SerializationError,
    StartEvent,
    StepFailedError,
    StopEvent,
    Workflow,
    WorkflowValidationError,
    step,
)

STORES = [lambda: None, MemoryStore]


@pytest.mark.parametrize("make_store", STORES, ids=["in memory", "stored"])
@pytest.mark.parametrize("how", ["set", "get", "update", "delete"])
async def test_a_state_key_that_is_not_unicode_fails_its_step(make_store: Any, how: str) -> None:
    @step
    async def work(ev: StartEvent, ctx: Context) -> StopEvent:
        if how == "set":
            ctx.set("key \ud800", 1)
        elif how == "get":
            ctx.get("key \ud800")
        elif how == "update":
            ctx.update("key \ud800", lambda value: value)
        else:
            ctx.delete("key \ud800")
        return StopEvent()

    with pytest.raises(StepFailedError, match=r"state key 'key .ud800'.*surrogates") as failed:
        await Workflow("flow", [work]).run(store=make_store())
    assert isinstance(failed.value.__cause__, SerializationError)


async def test_a_state_key_may_contain_nul() -> None:
    @step
    async def work(ev: StartEvent, ctx: Context) -> StopEvent:
        ctx.set("\0", 1)
        return StopEvent(ctx.get("\0"))

    assert await Workflow("flow", [work]).run(store=MemoryStore()) == 1


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_names_that_a_database_can_not_hold_are_validation_errors(name: str) -> None:
    @step
    async def work(ev: StartEvent) -> StopEvent:
        raise NotImplementedError

    for options in ({"name": name}, {"name": "flow", "version": name}):
        with pytest.raises(WorkflowValidationError, match="without NUL or lone surrogates"):
            Workflow(options["name"], [work], version=options.get("version", "1"))
    with pytest.raises(WorkflowValidationError, match="NUL or lone surrogates"):
        step(name=name)(lambda ev: ev)

    class Odd(Event):
        event_type: ClassVar[str] = name

    @step
    async def odd(ev: Odd) -> StopEvent:
        raise NotImplementedError

    with pytest.raises(WorkflowValidationError, match=r"of .*Odd contains NUL or lone surrogates"):
        Workflow("flow", [work, odd], external=[Odd])


@pytest.mark.parametrize("make_store", STORES, ids=["in memory", "stored"])
async def test_the_message_of_an_error_is_escaped(make_store: Any) -> None:
    @step
    async def work(ev: StartEvent) -> StopEvent:
        msg = "a \0 and a \ud800"
        raise ValueError(msg)

    with pytest.raises(StepFailedError) as failed:
        await Workflow("flow", [work]).run(store=make_store())
    assert r"a \x00 and a \ud800" in str(failed.value)
