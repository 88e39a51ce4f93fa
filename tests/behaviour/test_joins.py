"""Fan-out, fan-in and `ctx.collect`."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
import trio.testing

from blazen_trio import (
    Context,
    Delayed,
    Event,
    InputRequestEvent,
    InputResponseEvent,
    MemoryStore,
    RetryPolicy,
    RunStalledError,
    StartEvent,
    StepFailedEvent,
    StopEvent,
    Workflow,
    step,
)
from tests.behaviour.events import A, B, C, Sum


@step
async def spread(ev: StartEvent) -> list[A]:
    return [A(n) for n in ev.data]


@step
async def total(members: list[B]) -> StopEvent:
    return StopEvent([one.n for one in members])


async def test_a_join_gets_its_members_in_order_of_the_fan_out(autojump_clock: Any) -> None:

    @step
    async def work(ev: A) -> B:
        await trio.sleep(10 - ev.n)
        return B(ev.n)

    assert await Workflow("order", [spread, work, total]).run(list(range(10))) == list(range(10))


async def test_an_empty_fan_out_fires_its_join_with_an_empty_list() -> None:
    @step
    async def work(ev: A) -> B:
        return B(ev.n)

    assert await Workflow("empty", [spread, work, total]).run([]) == []


@pytest.mark.parametrize(
    ("fails", "collected"),
    [(None, [[0, 1, 2], [0, 1, 2]]), ("work", [[0, 2], [0, 2]]), ("split", [[0, 1, 2], [9]])],
)
async def test_a_failure_handler_at_two_levels_fires_each_join_once(
    fails: str | None, collected: list[list[int]], autojump_clock: Any
) -> None:
    """If nothing failed, the inner join does not fire in the outer fan-out."""

    @step
    async def split(ev: A) -> list[B]:
        if fails == "split" and ev.n == 1:
            raise OSError
        return [B(n) for n in range(3)]

    @step
    async def work(ev: B) -> C | None:
        if fails == "work" and ev.n == 1:
            raise OSError
        return C(ev.n)

    @step(handles=[split, work])
    async def care(ev: StepFailedEvent) -> C | None:
        return C(9) if ev.step_name == "split" else None

    seen: list[list[int]] = []

    @step
    async def inner(members: list[C]) -> Sum:
        seen.append([one.n for one in members])
        return Sum(seen[-1])

    @step
    async def outer(sums: list[Sum]) -> StopEvent:
        await trio.sleep(len(sums))  # what came out of too few would overtake
        return StopEvent([one.numbers for one in sums])

    result = await Workflow("levels", [spread, split, work, care, inner, outer]).run([0, 1])
    assert sorted(seen) == collected
    if fails != "split":
        assert result == collected


async def test_members_without_an_outcome_are_dropped() -> None:
    @step
    async def work(ev: A) -> B | None:
        return B(ev.n) if ev.n % 2 else None

    assert await Workflow("dropped", [spread, work, total]).run([1, 2, 3, 4]) == [1, 3]
    assert await Workflow("dropped", [spread, work, total]).run([2, 4]) == []


async def test_a_member_may_have_several_outcomes(autojump_clock: Any) -> None:
    @step
    async def work(ev: A) -> tuple[B, B]:
        return B(ev.n), B(ev.n + 1)

    assert await Workflow("several", [spread, work, total]).run([10, 20]) == [10, 11, 20, 21]


@attrs.frozen
class Asked(InputRequestEvent):
    n: int = 0


@attrs.frozen
class Answered(InputResponseEvent):
    n: int = 0


async def test_delays_retries_questions_and_handled_failures_stay_in_their_fan_out(
    autojump_clock: Any,
) -> None:
    @step(retry=RetryPolicy(max_attempts=2, initial_delay=50, jitter=0))
    async def work(ev: A, ctx: Context) -> B | Delayed[B] | Asked:
        if ev.n == 1:
            return Delayed(B(1), 100)
        if ev.n == 2 and ctx.attempt == 1:
            raise OSError("once")
        if ev.n == 3:
            return Asked("?", n=3)
        if ev.n == 4:
            raise ValueError("for good")
        return B(ev.n)

    @step
    async def answer(ev: Answered) -> B:
        return B(ev.n)

    @step
    async def mend(ev: StepFailedEvent) -> B:
        return B(ev.event.n)

    async def handler(request: Asked) -> Answered:
        await trio.sleep(200)
        return Answered(request.request_id, n=request.n)

    workflow = Workflow("stays", [spread, work, answer, mend, total], input_handler=handler)
    assert await workflow.run([0, 1, 2, 3, 4, 5], store=MemoryStore()) == [0, 1, 2, 3, 4, 5]


async def test_nested_fan_outs_have_separate_joins(autojump_clock: Any) -> None:
    @step
    async def outer(ev: StartEvent) -> list[A]:
        return [A(3), A(0), A(2)]

    @step
    async def inner(ev: A) -> list[B]:
        await trio.sleep(ev.n)
        return [B(ev.n * 10 + n) for n in range(ev.n)]

    @step
    async def work(ev: B) -> C:
        await trio.sleep(100 - ev.n)
        return C(ev.n)

    @step
    async def inner_join(found: list[C]) -> Sum:
        return Sum([one.n for one in found])

    @step
    async def outer_join(sums: list[Sum]) -> StopEvent:
        return StopEvent([one.numbers for one in sums])

    workflow = Workflow("nested", [outer, inner, work, inner_join, outer_join])
    assert await workflow.run(store=MemoryStore()) == [[30, 31, 32], [], [20, 21]]


async def test_a_recursive_fan_out_is_summed_from_the_leaves() -> None:
    @attrs.frozen
    class Tree(Event):
        branches: list[Any]

    @attrs.frozen
    class Weight(Event):
        n: int

    @step
    async def plant(ev: StartEvent) -> list[Tree]:
        return [Tree(ev.data)]

    @step
    async def grow(ev: Tree) -> list[Tree] | Weight:
        if not ev.branches:
            return Weight(1)
        return [Tree(branch) for branch in ev.branches]

    @step
    async def weigh(weights: list[Weight]) -> Weight | StopEvent:
        return Weight(sum(one.n for one in weights))

    @step
    async def final(ev: Weight, ctx: Context) -> StopEvent | None:
        return StopEvent(ev.n) if ev.n == 5 else None

    assert await Workflow("tree", [plant, grow, weigh, final]).run([[[], []], [], [[], []]]) == 5


async def test_a_join_may_fan_out_again() -> None:
    @step
    async def work(ev: A) -> B:
        return B(ev.n)

    @step
    async def again(found: list[B]) -> list[C]:
        return [C(one.n * 2) for one in found]

    @step
    async def end(found: list[C]) -> StopEvent:
        return StopEvent([one.n for one in found])

    # C is an element itself, so it is collected as it is.
    assert await Workflow("again", [spread, work, again, end]).run([1, 2]) == [2, 4]


async def test_two_joins_of_one_fan_out_fire_once_each() -> None:
    @step
    async def work(ev: A) -> tuple[B, C]:
        return B(ev.n), C(-ev.n)

    @step
    async def of_b(found: list[B]) -> Sum:
        return Sum([one.n for one in found])

    @step
    async def of_c(found: list[C]) -> Sum:
        return Sum([one.n for one in found])

    @step
    async def end(sums: list[Sum]) -> StopEvent:
        return StopEvent([one.numbers for one in sums])

    assert await Workflow("two", [spread, work, of_b, of_c, end]).run([1, 2]) == [[1, 2], [-1, -2]]


async def test_a_root_join_waits_for_every_event_that_can_still_arrive(autojump_clock: Any) -> None:
    @step
    async def begin(ev: StartEvent) -> tuple[A, A, A]:
        return A(3), A(1), A(2)

    @step
    async def work(ev: A) -> B:
        await trio.sleep(ev.n)
        return B(ev.n)

    assert await Workflow("root", [begin, work, total]).run() == [3, 1, 2]


async def test_external_events_do_not_delay_a_root_join_and_may_fire_it_again() -> None:
    @step
    async def begin(ev: StartEvent) -> B:
        return B(1)

    @step
    async def join(found: list[B], ctx: Context) -> StopEvent | None:
        ctx.update("seen", lambda seen: [*seen, [one.n for one in found]], [])
        return StopEvent(ctx.get("seen")) if len(found) > 0 and found[-1].n == 9 else None

    async with Workflow("external", [begin, join], external=[B]).run() as run:
        await trio.testing.wait_all_tasks_blocked()
        await run.send(B(9))
        assert await run.result() == [[1], [9]]


@pytest.mark.parametrize("width", [1000, 20_000])
async def test_a_wide_fan_out_and_its_join(width: int) -> None:
    """The cost is counted in tests/durability."""

    @step
    async def work(ev: A) -> B:
        return B(ev.n)

    assert await Workflow("wide", [spread, work, total]).run(list(range(width))) == list(
        range(width)
    )


# ctx.collect


async def test_collect_completes_once_in_the_declared_order(autojump_clock: Any) -> None:
    completed = []

    @step
    async def begin(ev: StartEvent) -> tuple[B, A, B]:
        return B(1), A(2), B(3)

    @step
    async def gather(ev: A | B, ctx: Context) -> StopEvent | None:
        found = ctx.collect(ev, [A, B, B])
        await trio.sleep(1)
        if found is None:
            return None
        completed.append(found)
        return StopEvent([type(one).__name__ for one in found])

    assert await Workflow("collect", [begin, gather]).run(store=MemoryStore()) == ["A", "B", "B"]
    # Those that all saw too few look again when they commit: the completing one is run again, once.
    assert len(completed) == 1


async def test_other_events_do_not_affect_a_collected_set() -> None:

    @step
    async def begin(ev: StartEvent) -> tuple[A, C, B]:
        return A(1), C(2), B(3)

    @step(max_concurrency=1)
    async def gather(ev: A | B | C, ctx: Context) -> StopEvent | None:
        assert ctx.collect(ev, []) == []
        found = ctx.collect(ev, [A, B])
        assert found is None or not isinstance(ev, C)
        return StopEvent([one.n for one in found]) if found else None

    assert await Workflow("others", [begin, gather]).run() == [1, 3]


async def test_surplus_events_are_collected_first_in_first_out() -> None:
    sets = []

    @step
    async def begin(ev: StartEvent) -> tuple[B, B, B, A, A]:
        return B(1), B(2), B(3), A(4), A(5)

    @step(max_concurrency=1)
    async def gather(ev: A | B, ctx: Context) -> StopEvent | None:
        found = ctx.collect(ev, [A, B])
        if found:
            sets.append([one.n for one in found])
        return StopEvent() if len(sets) == 2 else None

    await Workflow("surplus", [begin, gather]).run()
    assert sets == [[4, 1], [5, 2]]


async def test_a_retry_after_collecting_does_not_collect_twice(autojump_clock: Any) -> None:

    @step
    async def begin(ev: StartEvent) -> A:
        return A(1)

    @step(retry=RetryPolicy(max_attempts=3, jitter=0))
    async def gather(ev: A, ctx: Context) -> StopEvent | None:
        found = ctx.collect(ev, [A, A])
        if ctx.attempt < 3:
            raise OSError("after collecting")
        return StopEvent(found) if found else None

    with pytest.raises(RunStalledError, match=r"collects \[A, A\] and has 1 A") as caught:
        await Workflow("again", [begin, gather]).run()
    assert len(caught.value.half_collected) == 1


async def test_two_steps_can_not_complete_a_set_with_the_same_event(
    autojump_clock: Any,
) -> None:
    attempts = []

    @step
    async def begin(ev: StartEvent) -> tuple[A, Delayed[B], Delayed[B]]:
        return A(0), Delayed(B(1), 5), Delayed(B(2), 5)

    @step
    async def gather(ev: A | B, ctx: Context) -> C | None:
        found = ctx.collect(ev, [A, B])
        attempts.append((ev.n, found is not None))
        await trio.sleep(1)
        return C() if found else None

    @step
    async def count(ev: C, ctx: Context) -> None:
        ctx.update("sets", lambda sets: sets + 1, 0)

    async with Workflow("shared", [begin, gather, count]).run(store=MemoryStore()) as run:
        with pytest.raises(RunStalledError, match="1 B"):
            await run.result()
        # Both saw the A; the one that committed first has it, the other was run again and saw none.
        assert (await run.snapshot()).state == {"sets": 1}
    assert len(attempts) == 4
    assert [complete for n, complete in attempts if n].count(True) == 2
