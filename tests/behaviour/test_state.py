"""The key-value state of a run, over which a step is a transaction."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from blazen_trio import (
    Context,
    MemoryStore,
    RetryPolicy,
    SerializationError,
    StartEvent,
    StateConflictError,
    StepFailedError,
    StopEvent,
    Workflow,
    step,
)
from tests.behaviour.events import A, B

if TYPE_CHECKING:
    from collections.abc import Callable


class Colour(enum.Enum):
    RED = "red"


@attrs.frozen
class Point:
    x: int
    y: int


@step
async def spread(ev: StartEvent) -> list[A]:
    return [A(n) for n in range(ev.data)]


async def test_state_is_shared_by_steps_and_survives() -> None:

    @step
    async def begin(ev: StartEvent, ctx: Context) -> A:
        assert ctx.get("missing") is None
        assert ctx.get("missing", 7) == 7
        ctx.set("kept", [1])
        ctx.set("dropped", 1)
        ctx.delete("dropped")
        assert ctx.get("dropped", "gone") == "gone"
        return A()

    @step
    async def end(ev: A, ctx: Context) -> StopEvent:
        return StopEvent((ctx.get("kept"), ctx.get("dropped")))

    store = MemoryStore()
    assert await Workflow("state", [begin, end]).run(store=store, run_id="run") == ([1], None)
    assert (await store.load_snapshot("run")).state == {"kept": [1]}


VALUES = [
    None,
    True,
    2**70,
    float("inf"),
    "text",
    b"bytes",
    dt.datetime(2026, 1, 2, 3, 4, 5, 6, dt.UTC),
    dt.date(2026, 1, 2),
    dt.timedelta(days=1, microseconds=2),
    uuid.UUID(int=5),
    decimal.Decimal("1.10"),
    (1, (2,)),
    {1, 2},
    frozenset({"a"}),
    {"a": [1, {"b": None}]},
    {1: "one", (2,): "two"},
    Colour.RED,
    Point(1, 2),
    [Point(1, 2), {"p": Point(3, 4)}],
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
async def test_every_kind_of_value_round_trips_in_the_state(value: Any) -> None:
    """Both from memory and from the store."""

    @step
    async def begin(ev: StartEvent, ctx: Context) -> A:
        ctx.set("value", value)
        assert ctx.get("value") == value
        assert type(ctx.get("value")) is type(value)
        return A()

    @step
    async def end(ev: A, ctx: Context) -> StopEvent:
        return StopEvent(ctx.get("value"))

    workflow = Workflow("values", [begin, end], types=[Point, Colour])
    store = MemoryStore()
    assert await workflow.run(store=store, run_id="run") == value
    again = await workflow.resume_from("run", store=store)
    assert again == value
    assert type(again) is type(value)


async def test_a_class_that_the_workflow_does_not_know_needs_its_type() -> None:
    @step
    async def begin(ev: StartEvent, ctx: Context) -> StopEvent:
        ctx.set("point", Point(1, 2))
        assert ctx.get("point", type=Point) == Point(1, 2)
        with pytest.raises(SerializationError, match="Point"):
            ctx.get("point")
        return StopEvent()

    await Workflow("types", [begin]).run()


@pytest.mark.parametrize("value", [object(), {"deep": [print]}, type("Sub", (str,), {})("x")])
async def test_setting_a_value_that_can_not_be_stored_raises(value: Any) -> None:
    """A run without a store raises, too."""

    @step
    async def begin(ev: StartEvent, ctx: Context) -> StopEvent:
        with pytest.raises(SerializationError, match="state key 'bad'") as caught:
            ctx.set("bad", value)
        assert (
            caught.value.path == (".deep[0]" if isinstance(value, dict) else "")
            or "deep" in caught.value.path
        )
        return StopEvent(ctx.get("bad", "nothing was set"))

    assert await Workflow("bad", [begin]).run() == "nothing was set"


async def test_writes_are_visible_to_other_steps_only_after_the_commit(autojump_clock: Any) -> None:
    seen = []

    @step
    async def begin(ev: StartEvent) -> tuple[A, B]:
        return A(), B()

    @step
    async def write(ev: A, ctx: Context) -> None:
        ctx.set("key", 1)
        await trio.sleep(2)

    @step
    async def look(ev: B, ctx: Context) -> StopEvent:
        await trio.sleep(1)
        seen.append(ctx.get("key"))
        await trio.sleep(2)
        seen.append(ctx.get("key"))  # read committed, not repeatable
        return StopEvent()

    await Workflow("isolation", [begin, write, look]).run()
    assert seen == [None, 1]


async def test_a_failed_attempt_changes_nothing(autojump_clock: Any) -> None:

    @step(retry=RetryPolicy(max_attempts=2, jitter=0))
    async def begin(ev: StartEvent, ctx: Context) -> A:
        assert ctx.get("half") is None
        ctx.set("half", ctx.attempt)
        ctx.update("count", lambda n: n + 1, 0)
        if ctx.attempt == 1:
            raise OSError("once")
        return A()

    @step
    async def end(ev: A, ctx: Context) -> StopEvent:
        return StopEvent((ctx.get("half"), ctx.get("count")))

    assert await Workflow("rollback", [begin, end]).run() == (2, 1)


async def test_concurrent_read_and_set_loses_no_update(autojump_clock: Any) -> None:
    """Each of twenty steps that read, wait and set runs at most twice."""
    attempts: list[tuple[int, str]] = []

    @step
    async def add(ev: A, ctx: Context) -> B:
        attempts.append((ctx.attempt, ctx.idempotency_key))
        before = ctx.get("sum", 0)
        await trio.sleep(1)
        ctx.set("sum", before + 1)
        return B()

    @step
    async def end(done: list[B], ctx: Context) -> StopEvent:
        return StopEvent(ctx.get("sum"))

    assert await Workflow("adds", [spread, add, end]).run(20, store=MemoryStore()) == 20
    assert len(attempts) == 39
    assert max(attempt for attempt, _ in attempts) == 2
    assert len({key for _, key in attempts}) == 20


async def test_update_never_conflicts(autojump_clock: Any) -> None:
    attempts = []

    @step
    async def add(ev: A, ctx: Context) -> B:
        attempts.append(ctx.attempt)
        ctx.update("sum", lambda n: n + ev.n, 0)
        await trio.sleep(1)
        return B()

    @step
    async def end(done: list[B], ctx: Context) -> StopEvent:
        return StopEvent(ctx.get("sum"))

    assert await Workflow("updates", [spread, add, end]).run(10) == 45
    assert attempts == [1] * 10


async def test_a_get_after_an_update_counts_as_a_read(autojump_clock: Any) -> None:
    @step
    async def ticket(ev: A, ctx: Context) -> B:
        ctx.update("next", lambda n: n + 1, 0)
        number = ctx.get("next")
        await trio.sleep(1)
        return B(number)

    @step
    async def end(done: list[B]) -> StopEvent:
        return StopEvent(sorted(one.n for one in done))

    assert await Workflow("tickets", [spread, ticket, end]).run(5) == [1, 2, 3, 4, 5]


async def test_a_step_that_reads_one_key_and_writes_another_can_see_write_skew(
    autojump_clock: Any,
) -> None:
    """Only lost updates of a key are detected, as documented."""

    @step
    async def begin(ev: StartEvent) -> tuple[A, B]:
        return A(), B()

    @step
    async def left(ev: A, ctx: Context) -> A | None:
        if ctx.get("right") is None:
            await trio.sleep(1)
            ctx.set("left", 1)

    @step
    async def right(ev: B, ctx: Context) -> StopEvent:
        if ctx.get("left") is None:
            await trio.sleep(1)
            ctx.set("right", 1)
        await trio.sleep(1)
        return StopEvent((ctx.get("left"), ctx.get("right")))

    assert await Workflow("skew", [begin, left, right]).run() == (1, 1)


def change_in_place(ctx: Context) -> None:
    ctx.get("list").append(2)


def set_and_change_in_place(ctx: Context) -> None:
    ctx.set("list", [1, 2])
    change_in_place(ctx)


def change_in_place_and_update(ctx: Context) -> None:
    change_in_place(ctx)
    ctx.update("list", lambda value: [*value, 3])


@pytest.mark.parametrize(
    "change", [change_in_place, set_and_change_in_place, change_in_place_and_update]
)
async def test_a_value_mutated_without_set_raises(
    change: Callable[[Context], None],
) -> None:
    @step
    async def begin(ev: StartEvent, ctx: Context) -> A:
        ctx.set("list", [1])
        return A()

    @step
    async def end(ev: A, ctx: Context) -> StopEvent:
        change(ctx)
        return StopEvent()

    with pytest.raises(StateConflictError, match=r"'list' in place"):
        await Workflow("mutates", [begin, end]).run()


@pytest.mark.parametrize("empty", [list, dict, set])
async def test_a_default_mutated_without_set_raises(empty: Callable[[], Any]) -> None:
    @step
    async def begin(ev: StartEvent, ctx: Context) -> StopEvent:
        found = ctx.get("seen", empty())
        if ev.data and isinstance(found, dict):
            found["a"] = 1
        elif ev.data:
            (found.append if isinstance(found, list) else found.add)("a")
        return StopEvent()

    workflow = Workflow("default", [begin])
    await workflow.run(False)
    with pytest.raises(StateConflictError, match=r"'seen' in place.*ctx.set"):
        await workflow.run(True)


async def test_a_mutated_value_may_be_set() -> None:
    @step
    async def begin(ev: StartEvent, ctx: Context) -> StopEvent:
        for number in range(3):
            numbers = ctx.get("list", [])
            numbers.append(number)
            ctx.set("list", numbers)
        return StopEvent(ctx.get("list"))

    assert await Workflow("list", [begin]).run() == [0, 1, 2]


async def test_a_mutated_and_set_value_is_a_write() -> None:
    @step
    async def begin(ev: StartEvent, ctx: Context) -> A:
        ctx.set("list", [1])
        return A()

    @step
    async def change(ev: A, ctx: Context) -> B:
        found = ctx.get("list")
        found.append(2)
        ctx.set("list", found)
        found.append(3)  # after set: not part of it
        return B()

    @step
    async def end(ev: B, ctx: Context) -> StopEvent:
        return StopEvent(ctx.get("list"))

    assert await Workflow("sets", [begin, change, end]).run() == [1, 2]


async def test_update_applies_to_the_value_that_the_step_has_set() -> None:
    @step
    async def begin(ev: StartEvent, ctx: Context) -> StopEvent:
        ctx.set("n", 10)
        ctx.update("n", lambda n: n + 1)
        ctx.update("m", lambda m: m * 2, 4)
        ctx.set("m", 1)
        return StopEvent((ctx.get("n"), ctx.get("m")))

    assert await Workflow("own", [begin]).run() == (11, 1)


async def test_an_update_that_fails_fails_the_step() -> None:
    @step
    async def begin(ev: StartEvent, ctx: Context) -> StopEvent:
        ctx.update("n", lambda n: n / 0, 1)
        return StopEvent()

    with pytest.raises(StepFailedError) as caught:
        await Workflow("divides", [begin]).run()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_metadata_is_read_only_and_stored() -> None:
    @step
    async def begin(ev: StartEvent, ctx: Context) -> StopEvent:
        with pytest.raises(TypeError):
            ctx.metadata["user"] = "eve"  # type: ignore[index]
        return StopEvent((ctx.metadata["user"], ctx.workflow_name, ctx.step_name, ctx.attempt))

    workflow = Workflow("meta", [begin])
    store = MemoryStore()
    assert await workflow.run(store=store, run_id="run", metadata={"user": "ann"}) == (
        "ann",
        "meta",
        "begin",
        1,
    )
    assert (await store.load_snapshot("run")).metadata == {"user": "ann"}
    with pytest.raises(SerializationError, match="metadata"):
        await workflow.run(metadata={"bad": object()})


async def test_a_context_can_not_be_used_after_its_step() -> None:
    kept: list[Context] = []

    @step
    async def begin(ev: StartEvent, ctx: Context) -> StopEvent:
        kept.append(ctx)
        return StopEvent()

    await Workflow("late", [begin]).run()
    with pytest.raises(RuntimeError, match="after the step had ended"):
        kept[0].set("late", 1)
    with pytest.raises(RuntimeError, match="after the step had ended"):
        kept[0].send(A())
