"""The workloads on the engine, written as a user would, with default settings."""

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
    """A pending step of a chain."""

    n: int
    last: int


@attrs.frozen
class Item(Event):
    """A member of a fan-out."""

    n: int


@attrs.frozen
class Done(Event):
    """The result of a member."""

    n: int


def next_tick(n: int, last: int) -> Tick | StopEvent:
    """Return the event after the `n`-th step of a chain of `last` steps."""
    return StopEvent(n) if n == last else Tick(n + 1, last)


@step(name="begin")
async def begin(ev: StartEvent) -> Tick | StopEvent:
    """Do the first step of a chain."""
    return next_tick(1, ev.data)


@step(name="tick")
async def tick(ev: Tick) -> Tick | StopEvent:
    """Do one of the other steps."""
    return next_tick(ev.n, ev.last)


@step(name="tick")
async def tick_with_checkpoint(ev: Tick) -> Tick | StopEvent:
    """Do one of the other steps, with a checkpoint."""
    await trio.lowlevel.checkpoint()
    return next_tick(ev.n, ev.last)


@step(name="spread")
async def spread(ev: StartEvent) -> list[Item]:
    """Fan out."""
    return [Item(n) for n in range(ev.data)]


@step(name="work")
async def work(ev: Item) -> Done:
    """Process one member."""
    return Done(ev.n)


@step(name="work")
async def work_with_checkpoint(ev: Item) -> Done:
    """Process one member, with a checkpoint."""
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
    """Time one long run in memory."""
    with stopwatch:
        found = await CHAIN[checkpoint].run(steps)
    expect(found, steps)


async def run_fan(stopwatch: Stopwatch, *, width: int, checkpoint: bool) -> None:
    """Time one wide run in memory."""
    with stopwatch:
        found = await FAN[checkpoint].run(width)
    expect(found, list(range(width)))


async def run_many(stopwatch: Stopwatch, *, runs: int, steps: int, checkpoint: bool) -> None:
    """Time many concurrent runs in memory."""
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
    """Yield a store that has its connection and its lease, as the limit has its connection.

    A run of one step makes it take both.
    """
    async with open_store(url, migrate=True) as store:
        await CHAIN[False].run(1, store=store)
        yield store


async def durable_chain(stopwatch: Stopwatch, *, steps: int, durability: str = "sync") -> None:
    """Time one long run in a database."""
    async with warm_store(stopwatch.url) as store:
        with stopwatch:
            found = await CHAIN[False].run(steps, store=store, durability=durability)
    expect(found, steps)


async def durable_many(
    stopwatch: Stopwatch, *, runs: int, steps: int, durability: str = "sync"
) -> None:
    """Time many concurrent runs in a database."""
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
    """Time one long run in a database beside a task that keeps the loop busy for 1 ms at a time."""
    async with warm_store(stopwatch.url) as store, trio.open_nursery() as nursery:
        nursery.start_soon(keep_busy)
        with stopwatch:
            found = await CHAIN[False].run(steps, store=store)
        nursery.cancel_scope.cancel()
    expect(found, steps)


def chain(steps: int, *, checkpoint: bool = False) -> Workload:
    """Return `run_chain` with this many steps."""
    return partial(run_chain, steps=steps, checkpoint=checkpoint)


def fan(width: int, *, checkpoint: bool = False) -> Workload:
    """Return `run_fan` with this width."""
    return partial(run_fan, width=width, checkpoint=checkpoint)


def many(runs: int, steps: int, *, checkpoint: bool = False) -> Workload:
    """Return `run_many` with this many runs of this many steps each."""
    return partial(run_many, runs=runs, steps=steps, checkpoint=checkpoint)
