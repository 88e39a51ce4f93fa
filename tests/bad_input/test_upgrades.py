"""A stored run meets a version of its workflow whose steps accept other events."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from blazen_trio import (
    Event,
    IncompatibleRunError,
    MemoryStore,
    StartEvent,
    StepFailedError,
    StepFailedEvent,
    StopEvent,
    Workflow,
    step,
)


class Asked(Event):
    """The base of the old and the new events."""


@attrs.frozen
class Old(Asked):
    n: int


@attrs.frozen
class New(Event):
    pass


@attrs.frozen
class Odd(Event):
    pass


def made(name: str, accepts: Any, *emits: Any, returns: Any = None) -> Any:
    """Return a step that returns a value, or raises it if it is an exception."""

    async def function(ev: Any) -> Any:
        if isinstance(returns, Exception):
            raise returns
        return returns

    function.__annotations__ = {"ev": accepts}
    return step(name=name, emits=emits)(function)


def workflow(*steps: Any) -> Workflow:
    return Workflow("flow", steps, external=[Asked, Old, New])


async def left_by(*steps: Any) -> MemoryStore:
    """Return the store of a failed run."""
    store = MemoryStore()
    with pytest.raises(StepFailedError, match="down"):
        await workflow(*steps).run(store=store, run_id="run")
    return store


async def problems(store: MemoryStore, *steps: Any) -> list[str]:
    before = await store.load_snapshot("run")
    with pytest.raises(IncompatibleRunError) as refused:
        await workflow(*steps).resume_from("run", store=store)
    assert await store.load_snapshot("run") == before
    return list(refused.value.problems)


BEGIN = made("begin", StartEvent, Old, returns=Old(1))
DOWN = RuntimeError("down")
STOP = StopEvent("done")


async def test_a_step_that_now_accepts_another_event_is_incompatible() -> None:
    store = await left_by(BEGIN, made("two", Old, StopEvent, returns=DOWN))
    assert await problems(
        store, BEGIN, made("two", New, StopEvent, returns=STOP), made("three", Old)
    ) == [
        (
            "a pending delivery to step 'two' holds an event of type 'Old', but the step now "
            "accepts New"
        )
    ]
    assert await problems(
        store, BEGIN, made("two", list[Old], StopEvent, returns=STOP), made("three", Old)
    ) == [
        (
            "a pending delivery to step 'two' holds one event, of type 'Old', but the step "
            "now accepts list[Old]"
        )
    ]
    assert (
        await workflow(BEGIN, made("two", Asked, StopEvent, returns=STOP)).resume_from(
            "run", store=store
        )
        == "done"
    )


async def test_a_run_resumes_if_its_step_accepts_more_now() -> None:
    store = await left_by(BEGIN, made("two", Old, StopEvent, returns=DOWN))
    two = made("two", New | Old, StopEvent, returns=STOP)
    assert await workflow(BEGIN, two).resume_from("run", store=store) == "done"


FAN_OUT = made("begin", StartEvent, list[Old], returns=[Old(1), Old(2)])


async def test_a_join_that_has_collected_other_events_is_incompatible() -> None:
    store = await left_by(FAN_OUT, made("join", list[Old], StopEvent, returns=DOWN))
    new = made("join", list[New], StopEvent, returns=STOP)
    assert await problems(store, BEGIN, made("two", Old, list[New], returns=[]), new) == [
        (
            "a pending delivery to step 'join' holds an event of type 'Old', but the step "
            "now accepts list[New]"
        )
    ]
    assert await problems(store, BEGIN, made("join", Old, StopEvent, returns=STOP)) == [
        "a pending delivery to step 'join' holds a list of events, but the step now accepts Old"
    ]
    join = made("join", list[Asked], StopEvent, returns=STOP)
    assert await workflow(FAN_OUT, join).resume_from("run", store=store) == "done"


async def test_an_open_fan_out_that_has_collected_other_events_is_incompatible() -> None:
    begin = made("begin", StartEvent, list[Old | Odd], returns=[Old(1), Odd()])
    work = made("work", Odd, Old, returns=DOWN)
    store = await left_by(begin, work, made("join", list[Old], StopEvent, returns=STOP))
    other = made("other", Old, list[New], returns=[])
    assert await problems(
        store, begin, work, other, made("join", list[New], StopEvent, returns=STOP)
    ) == [
        (
            "the collection of the join 'join' holds an event of type 'Old', but the step "
            "now accepts list[New]"
        )
    ]
    assert await problems(store, begin, work, made("join", Old, StopEvent, returns=STOP)) == [
        "an open fan-out waits for the join 'join', but this step now accepts Old, not a list"
    ]
    work = made("work", Odd, Old, returns=Old(3))
    join = made("join", list[Asked], StopEvent, returns=STOP)
    assert await workflow(begin, work, join).resume_from("run", store=store) == "done"


async def test_a_pending_failure_of_a_step_without_a_handler_now_is_incompatible() -> None:
    two = made("two", Old, StopEvent, returns=RuntimeError("first"))
    store = await left_by(BEGIN, two, made("handler", StepFailedEvent, StopEvent, returns=DOWN))
    assert await problems(store, BEGIN, two, made("handler", New, StopEvent, returns=STOP)) == [
        (
            "a pending delivery to step 'handler' holds an event of type "
            "'StepFailedEvent', but the step now accepts New"
        )
    ]
    handler = made("handler", StepFailedEvent, StopEvent, returns=STOP)
    assert await workflow(BEGIN, two, handler).resume_from("run", store=store) == "done"
