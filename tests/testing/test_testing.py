"""Tests for `try_step`, which runs one step as the engine does, and `run_without_waiting`."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from blazen_trio import (
    Context,
    Delayed,
    DynamicValue,
    Event,
    SerializationError,
    StartEvent,
    StateConflictError,
    StepOutputError,
    StepTimeoutError,
    StopEvent,
    Workflow,
    step,
)
from blazen_trio.testing import StepTrial, run_without_waiting, try_step


@attrs.frozen
class Order(Event):
    n: int = 0


@attrs.frozen
class Part(Event):
    n: int = 0


@attrs.frozen
class Done(Event):
    n: int = 0


@attrs.frozen
class Note(Event):
    text: str = ""


@attrs.frozen
class Opaque(Event):
    value: Any = None


@attrs.frozen
class Basket:
    size: int


@step
async def start(ev: StartEvent) -> Order:
    raise AssertionError("no other step runs")


@step
async def spread(ev: Order) -> list[Part]:
    return [Part(n) for n in range(ev.n)]


@step
async def work(ev: Part, ctx: Context) -> Done | Note:
    ctx.publish(Note(f"part {ev.n}"))
    ctx.send(Note("sent"))
    ctx.update("done", lambda count: count + 1, default=0)
    return Done(ev.n)


@step
async def note(ev: Note) -> None:
    raise AssertionError("no other step runs")


@step
async def total(parts: list[Done]) -> StopEvent:
    return StopEvent(sum(one.n for one in parts))


SHOP = Workflow("shop", [start, spread, work, note, total])


def alone(function: Any, **options: Any) -> Workflow:
    """Make a workflow of this step alone."""
    return Workflow("alone", [function], **options)


async def test_sent_events_come_before_returned_ones() -> None:
    trial = await try_step(SHOP, work, Part(3), state={"done": 4, "other": [1]})
    assert trial == StepTrial(
        (Note("sent"), Done(3)), None, {"done": 5, "other": [1]}, (Note("part 3"),)
    )
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        trial.outputs = ()


async def test_trials_share_nothing() -> None:
    given = {"done": 1}
    for _ in range(2):
        assert (await try_step(SHOP, "work", Part(), state=given)).state == {"done": 2}
    assert given == {"done": 1}


async def test_a_returned_list_gives_the_members() -> None:
    trial = await try_step(SHOP, "spread", Order(3))
    assert (trial.outputs, trial.members) == ((), (Part(0), Part(1), Part(2)))
    assert (await try_step(SHOP, "spread", Order(0))).members == ()


@pytest.mark.parametrize("container", [list, tuple])
async def test_a_join_is_given_a_list(container: Any) -> None:
    trial = await try_step(SHOP, total, container([Done(1), Done(2)]))
    assert trial.outputs == (StopEvent(3),)
    assert (await try_step(SHOP, total, container())).outputs == (StopEvent(0),)


async def test_a_delayed_event_stays_delayed() -> None:
    @step
    async def later(ev: StartEvent) -> Delayed[StopEvent]:
        return Delayed(StopEvent(ev.data), 3600)

    assert (await try_step(alone(later), later, StartEvent(1))).outputs == (
        Delayed(StopEvent(1), 3600),
    )


async def test_the_context_describes_the_trial() -> None:
    @step
    async def look(ev: StartEvent, ctx: Context) -> StopEvent:
        return StopEvent(
            [ctx.workflow_name, ctx.step_name, ctx.attempt, dict(ctx.metadata), ctx.get("absent")]
        )

    trial = await try_step(alone(look), look, StartEvent(), metadata={"customer": 7})
    assert trial.outputs == (StopEvent(["alone", "look", 1, {"customer": 7}, None]),)


async def test_a_trial_deletes_state_and_collects_events() -> None:
    @step
    async def tidy(ev: StartEvent, ctx: Context) -> StopEvent | None:
        ctx.delete("old")
        ctx.set("new", [*ctx.get("list"), 2])
        return None if ctx.collect(ev, [StartEvent, StartEvent]) is None else StopEvent()

    trial = await try_step(alone(tidy), tidy, StartEvent(), state={"old": 1, "list": [1]})
    assert trial.state == {"list": [1], "new": [1, 2]}
    assert trial.outputs == ()


async def test_a_state_value_of_a_known_class_is_returned_as_it_is() -> None:
    @step
    async def fill(ev: StartEvent, ctx: Context) -> StopEvent:
        ctx.set("basket", Basket(ctx.get("basket").size + 1))
        return StopEvent()

    trial = await try_step(
        alone(fill, types=[Basket]), fill, StartEvent(), state={"basket": Basket(1)}
    )
    assert trial.state == {"basket": Basket(2)}


async def test_a_state_value_of_another_class_is_shown_as_stored() -> None:
    @step
    async def fill(ev: StartEvent, ctx: Context) -> StopEvent:
        return StopEvent(ctx.get("basket", type=Basket).size)

    trial = await try_step(alone(fill), fill, StartEvent(), state={"basket": Basket(1)})
    assert trial.outputs == (StopEvent(1),)
    assert trial.state == {"basket": DynamicValue("Basket", {"size": 1})}


async def test_all_of_many_published_events_are_returned() -> None:
    @step
    def tell(ev: StartEvent, ctx: Context) -> StopEvent:
        for n in range(500):
            ctx.publish(Note(str(n)))
        return StopEvent(ctx.get("x"))

    trial = await try_step(alone(tell), tell, StartEvent(), state={"x": "in a thread"})
    assert [int(one.text) for one in trial.published] == list(range(500))
    assert trial.outputs == (StopEvent("in a thread"),)


async def test_output_errors_are_those_of_the_engine() -> None:
    @step
    async def wrong(ev: StartEvent) -> StopEvent:
        return ev.data

    @step
    async def swallows(ev: StartEvent, ctx: Context) -> StopEvent:
        with contextlib.suppress(StepOutputError):
            ctx.send(Note())
        return StopEvent()

    for value in (Order(), "text", [StopEvent()], (StopEvent(),)):
        with pytest.raises(StepOutputError) as of_trial:
            await try_step(alone(wrong), wrong, StartEvent(value))
        with pytest.raises(StepOutputError) as of_run:
            await alone(wrong).run(StartEvent(value))
        assert str(of_run.value).endswith(f"failed: StepOutputError: {of_trial.value}")
    with pytest.raises(StepOutputError, match="sent Note"):
        await try_step(alone(swallows), swallows, StartEvent())


async def test_values_that_can_not_be_stored_are_refused() -> None:
    @step
    async def opaque(ev: StartEvent) -> Opaque | StopEvent:
        return Opaque(object())

    @step
    async def end(ev: Opaque) -> StopEvent:
        return StopEvent()

    workflow = Workflow("opaque", [opaque, end])
    with pytest.raises(SerializationError):
        await try_step(workflow, opaque, StartEvent())
    with pytest.raises(SerializationError, match="state key 'x'"):
        await try_step(SHOP, work, Part(), state={"x": object()})
    with pytest.raises(SerializationError, match="metadata"):
        await try_step(SHOP, work, Part(), metadata={"x": object()})


async def test_a_value_changed_in_place_is_refused() -> None:
    @step
    async def forgets(ev: StartEvent, ctx: Context) -> StopEvent:
        ctx.get("list").append(1)
        return StopEvent()

    with pytest.raises(StateConflictError):
        await try_step(alone(forgets), forgets, StartEvent(), state={"list": []})


async def test_an_exception_of_the_step_is_raised_and_not_retried() -> None:
    contexts = []

    @step
    async def fails(ev: StartEvent, ctx: Context) -> StopEvent:
        contexts.append(ctx)
        raise OSError("broke")

    with pytest.raises(OSError, match="broke"):
        await try_step(alone(fails), fails, StartEvent())
    (ctx,) = contexts
    with pytest.raises(RuntimeError, match="after the step had ended"):
        ctx.set("x", 1)


async def test_a_step_of_another_workflow_is_refused() -> None:
    @step
    async def stranger(ev: StartEvent) -> StopEvent:
        return StopEvent()

    for given in (stranger, "stranger"):
        with pytest.raises(
            ValueError, match=r"'shop' has no step 'stranger'; it has start, spread"
        ):
            await try_step(SHOP, given, StartEvent())
    with pytest.raises(TypeError, match="takes a step"):
        await try_step(SHOP, len, StartEvent())


@pytest.mark.parametrize(
    ("name", "event", "message"),
    [
        ("work", Order(), "accepts Part, got Order"),
        ("work", [Part()], "accepts Part, got \\["),
        ("total", Done(), "is a join: pass a list of Done"),
        ("total", [Done(), Part()], "accepts Done, got Part"),
    ],
)
async def test_an_event_that_the_step_does_not_accept_is_refused(
    name: str, event: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        await try_step(SHOP, name, event)


async def test_a_state_key_that_is_not_a_str_is_refused() -> None:
    with pytest.raises(TypeError, match="a key of the run's state must be a str"):
        await try_step(SHOP, "work", Part(), state={1: 1})  # type: ignore[dict-item]


async def test_a_trial_is_a_checkpoint() -> None:
    with trio.testing.assert_checkpoints():
        await try_step(SHOP, "spread", Order())


def test_a_timeout_of_an_hour_takes_no_time() -> None:
    @step(timeout=3600)
    async def slow(ev: StartEvent) -> StopEvent:
        await trio.sleep_forever()

    began = time.monotonic()
    with pytest.raises(StepTimeoutError, match="3600 s"):
        run_without_waiting(try_step, alone(slow), slow, StartEvent())
    assert time.monotonic() - began < 60


def test_run_without_waiting_returns_and_raises_like_the_function() -> None:
    async def nap(value: int, by: int) -> int:
        await trio.sleep(86400)
        return value // by

    assert run_without_waiting(nap, 6, 2) == 3
    with pytest.raises(ZeroDivisionError):
        run_without_waiting(nap, 6, 0)
