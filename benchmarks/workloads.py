"""The same work with the engine, as a user would write it, with default settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from benchmarks.harness import Stopwatch, Workload
from benchmarks.limits import expect, keep_busy
from blazen_trio import CheckpointStore, Event, StartEvent, StopEvent, Workflow, open_store, step


@attrs.frozen
class Tick(Event):
    """A step of a chain that is still to be done."""

    n: int
    last: int


@attrs.frozen
class Item(Event):
    """A member of a fan-out."""

    n: int


@attrs.frozen
class Done(Event):
    """What became of it."""

    n: int


def next_tick(n: int, last: int) -> Tick | StopEvent:
    """What follows the `n`-th step of a chain of `last`."""
    return StopEvent(n) if n == last else Tick(n + 1, last)


@step(name="begin")
async def begin(ev: StartEvent) -> Tick | StopEvent:
    """The first step of a chain."""
    return next_tick(1, ev.data)


@step(name="tick")
async def tick(ev: Tick) -> Tick | StopEvent:
    """Every other step."""
    return next_tick(ev.n, ev.last)


@step(name="tick")
async def tick_with_checkpoint(ev: Tick) -> Tick | StopEvent:
    """Every other step, with a turn of the event loop in it."""
    await trio.lowlevel.checkpoint()
    return next_tick(ev.n, ev.last)


@step(name="spread")
async def spread(ev: StartEvent) -> list[Item]:
    """Fan out."""
    return [Item(n) for n in range(ev.data)]


@step(name="work")
async def work(ev: Item) -> Done:
    """One member's work."""
    return Done(ev.n)


@step(name="work")
async def work_with_checkpoint(ev: Item) -> Done:
    """The same, with a turn of the event loop in it."""
    await trio.lowlevel.checkpoint()
    return Done(ev.n)


@step(name="gather")
async def gather(done: list[Done]) -> StopEvent:
    """Fan in."""
    return StopEvent([one.n for one in done])


CHAIN = {
    False: Workflow("chain", [begin, tick]),
    True: Workflow("chain", [begin, tick_with_checkpoint]),
}
FAN = {
    False: Workflow("fan", [spread, work, gather]),
    True: Workflow("fan", [spread, work_with_checkpoint, gather]),
}


async def run_chain(stopwatch: Stopwatch, *, steps: int, checkpoint: bool) -> None:
    """One long run in memory."""
    with stopwatch:
        found = await CHAIN[checkpoint].run(steps)
    expect(found, steps)


async def run_fan(stopwatch: Stopwatch, *, width: int, checkpoint: bool) -> None:
    """One wide run in memory."""
    with stopwatch:
        found = await FAN[checkpoint].run(width)
    expect(found, list(range(width)))


async def run_many(stopwatch: Stopwatch, *, runs: int, steps: int, checkpoint: bool) -> None:
    """Many runs at once in memory."""
    found: list[int] = []

    async def one() -> None:
        found.append(await CHAIN[checkpoint].run(steps))

    with stopwatch:
        async with trio.open_nursery() as nursery:
            for _ in range(runs):
                nursery.start_soon(one)
    expect(found, [steps] * runs)


@asynccontextmanager
async def warm_store(url: str) -> AsyncIterator[CheckpointStore]:
    """A store that has its connection and its lease already, as the limit has its connection: by one step of a run of its own."""
    async with open_store(url, migrate=True) as store:
        await CHAIN[False].run(1, store=store)
        yield store


async def durable_chain(stopwatch: Stopwatch, *, steps: int, durability: str = "sync") -> None:
    """One long run in a database."""
    async with warm_store(stopwatch.url) as store:
        with stopwatch:
            found = await CHAIN[False].run(steps, store=store, durability=durability)
    expect(found, steps)


async def durable_many(
    stopwatch: Stopwatch, *, runs: int, steps: int, durability: str = "sync"
) -> None:
    """Many runs at once in a database."""
    found: list[int] = []

    async with warm_store(stopwatch.url) as store:

        async def one() -> None:
            found.append(await CHAIN[False].run(steps, store=store, durability=durability))

        with stopwatch:
            async with trio.open_nursery() as nursery:
                for _ in range(runs):
                    nursery.start_soon(one)
    expect(found, [steps] * runs)


async def durable_beside_busy(stopwatch: Stopwatch, *, steps: int) -> None:
    """One long run in a database, beside a task that keeps the event loop busy for 1 ms at a time."""
    async with warm_store(stopwatch.url) as store, trio.open_nursery() as nursery:
        nursery.start_soon(keep_busy)
        with stopwatch:
            found = await CHAIN[False].run(steps, store=store)
        nursery.cancel_scope.cancel()
    expect(found, steps)


def chain(steps: int, *, checkpoint: bool = False) -> Workload:
    """`run_chain` of so many steps."""
    return partial(run_chain, steps=steps, checkpoint=checkpoint)


def fan(width: int, *, checkpoint: bool = False) -> Workload:
    """`run_fan` of that width."""
    return partial(run_fan, width=width, checkpoint=checkpoint)


def many(runs: int, steps: int, *, checkpoint: bool = False) -> Workload:
    """`run_many` of so many runs of so many steps."""
    return partial(run_many, runs=runs, steps=steps, checkpoint=checkpoint)
