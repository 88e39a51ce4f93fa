"""An attempt gets its event as stored, whatever other code has done to the object."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from blazen_trio import (
    Context,
    Event,
    MemoryStore,
    RetryPolicy,
    StartEvent,
    StepFailedError,
    StepFailedEvent,
    StopEvent,
    Workflow,
    step,
)

AGAIN = RetryPolicy(max_attempts=2, initial_delay=0)


@attrs.frozen
class Batch(Event):
    items: list[int]


@attrs.frozen
class Special(Batch):
    pass


@attrs.frozen
class Plain(Event):
    n: int
    names: tuple[str, ...] = ()
    extra: Any = None


def stores() -> Any:
    return pytest.mark.parametrize("stored", [True, False])


def store(stored: bool) -> MemoryStore | None:
    return MemoryStore() if stored else None


@stores()
async def test_another_attempt_gets_the_same_event(stored: bool) -> None:
    @step(retry=AGAIN)
    async def work(ev: StartEvent, ctx: Context) -> StopEvent:
        taken = [ev.data["name"], ev.data["items"].pop()]
        ev.data.pop("name")
        if ctx.attempt == 1:
            raise ConnectionError
        return StopEvent(taken)

    given = {"name": "a", "items": [1, 2]}
    assert await Workflow("w", [work]).run(given, store=store(stored)) == ["a", 2]


@stores()
async def test_a_re_run_after_a_conflict_gets_the_same_event(stored: bool) -> None:
    @step
    async def begin(ev: StartEvent) -> list[Batch]:
        return [Batch([n]) for n in range(8)]

    @step
    async def work(ev: Batch, ctx: Context) -> Plain:
        total = ctx.get("total", 0)
        await trio_pause()
        ctx.set("total", total + ev.items.pop())
        return Plain(1)

    @step
    async def end(evs: list[Plain], ctx: Context) -> StopEvent:
        return StopEvent(ctx.get("total"))

    assert await Workflow("w", [begin, work, end]).run(store=store(stored)) == 28


async def trio_pause() -> None:
    await trio.lowlevel.checkpoint()


async def test_two_steps_do_not_share_the_values_of_an_event() -> None:
    @step
    async def begin(ev: StartEvent) -> Batch:
        return Batch([1, 2])

    @step(max_concurrency=1)
    async def one(ev: Batch) -> Plain:
        ev.items.clear()
        return Plain(0)

    @step(max_concurrency=1)
    async def two(ev: Batch) -> Plain:
        return Plain(sum(ev.items))

    @step
    async def end(ev: Plain, ctx: Context) -> StopEvent | None:
        both = ctx.collect(ev, [Plain, Plain])
        return None if both is None else StopEvent(sorted(one.n for one in both))

    result = await Workflow("w", [begin, one, two, end]).run(store=MemoryStore())
    assert result == [0, 3]


async def test_a_failure_handler_and_a_join_get_events_as_stored() -> None:
    @step
    async def begin(ev: StartEvent) -> list[Batch]:
        return [Batch([n]) for n in range(3)]

    @step(retry=AGAIN)
    async def join(evs: list[Batch], ctx: Context) -> StopEvent:
        for ev in evs:
            ev.items.clear()
        raise ConnectionError

    @step
    async def failed(ev: StepFailedEvent) -> StopEvent:
        return StopEvent([one.items for one in ev.event])

    result = await Workflow("w", [begin, join, failed]).run(store=MemoryStore())
    assert result == [[0], [1], [2]]


async def test_collected_events_are_returned_as_stored() -> None:
    seen = []

    @step
    async def begin(ev: StartEvent) -> tuple[Batch, ...]:
        return Batch([1]), Batch([2])

    @step(retry=AGAIN)
    async def both(ev: Batch, ctx: Context) -> StopEvent | None:
        found = ctx.collect(ev, [Batch, Batch])
        if found is None:
            return None
        seen.append([list(one.items) for one in found])
        for one in found:
            one.items.clear()
        if len(seen) == 1:
            raise ConnectionError
        return StopEvent()

    await Workflow("w", [begin, both]).run(store=MemoryStore())
    assert seen == [seen[0]] * 2


async def test_an_immutable_event_is_not_copied() -> None:
    event = Plain(1, ("a",), "x")
    got = []

    @step
    async def begin(ev: StartEvent) -> Plain:
        return event

    @step(retry=AGAIN)
    async def end(ev: Plain) -> StopEvent:
        got.append(ev)
        if len(got) == 1:
            raise ConnectionError
        return StopEvent()

    await Workflow("w", [begin, end]).run(store=MemoryStore())
    assert all(one is event for one in got)


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
async def test_a_subclass_does_not_take_the_place_of_its_base_in_a_collected_set(
    order: list[int],
) -> None:
    events = [Batch([1]), Special([2])]

    @step
    async def begin(ev: StartEvent) -> tuple[Batch, ...]:
        return tuple(events[n] for n in order)

    @step
    async def both(ev: Batch, ctx: Context) -> StopEvent | None:
        found = ctx.collect(ev, [Batch, Special])
        return None if found is None else StopEvent([one.items[0] for one in found])

    assert await Workflow("w", [begin, both]).run() == [1, 2]


@stores()
async def test_two_subclasses_complete_a_collected_set(stored: bool) -> None:
    @step
    async def begin(ev: StartEvent) -> tuple[Batch, ...]:
        return Special([1]), Special([2])

    @step
    async def both(ev: Batch, ctx: Context) -> StopEvent | None:
        await trio_pause()
        found = ctx.collect(ev, [Batch, Special])
        return None if found is None else StopEvent(sorted(one.items[0] for one in found))

    assert await Workflow("w", [begin, both]).run(store=store(stored)) == [1, 2]


@pytest.mark.parametrize("levels", range(190, 199))
async def test_a_failure_on_a_deep_event_is_handled_or_fails_the_run(levels: int) -> None:
    value: Any = 0
    for _ in range(levels):
        value = [value]

    @attrs.frozen
    class Work(Event):
        tree: Any

    @step(accepts=StartEvent, emits=Work)
    async def begin(ev: Any) -> Any:
        return Work(ev.data)

    @step(accepts=Work, emits=StopEvent)
    async def work(ev: Any) -> Any:
        raise ConnectionError("down")

    @step
    async def failed(ev: StepFailedEvent) -> StopEvent:
        return StopEvent("handled")

    flow = Workflow("w", [begin, work, failed])
    store = MemoryStore()
    told: Any = None
    try:
        told = await flow.run(value, store=store, run_id="r")
    except StepFailedError as error:
        told = f"{error} {error.__cause__}"
    # Where it is made, or by a failure that says why nothing handles it.
    assert told == "handled" or "too deeply" in told
    assert (await store.get_run("r")).status.ended
