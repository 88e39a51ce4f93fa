# mypy: ignore-errors
# ruff: noqa: D101, D102, D103
# It runs in another environment, whose libraries read its annotations at run time.
"""The workloads on LlamaIndex Workflows, with its default settings (four workers per step)."""

import asyncio

from workflows import Workflow, step
from workflows.events import Event, StartEvent, StopEvent

from benchmarks.peers.program import Size, Timer, UnsupportedError, expect, main


class Tick(Event):
    n: int
    last: int


class Item(Event):
    n: int


class Done(Event):
    n: int


class Chain(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> Tick | StopEvent:
        return StopEvent(result=1) if ev.last == 1 else Tick(n=2, last=ev.last)

    @step
    async def tick(self, ev: Tick) -> Tick | StopEvent:
        return StopEvent(result=ev.n) if ev.n == ev.last else Tick(n=ev.n + 1, last=ev.last)


class Fan(Workflow):
    @step
    async def spread(self, ev: StartEvent) -> list[Item]:
        return [Item(n=n) for n in range(ev.width)]

    @step
    async def work(self, ev: Item) -> Done:
        return Done(n=ev.n)

    @step
    async def gather(self, done: list[Done]) -> StopEvent:
        return StopEvent(result=sorted(one.n for one in done))


async def chain(size: Size) -> float:
    workflow = Chain(timeout=None)
    with Timer() as timer:
        found = await asyncio.gather(*(one(workflow, size.steps) for _ in range(size.runs)))
    expect(found, [size.steps] * size.runs)
    return timer.seconds


async def one(workflow: Workflow, last: int) -> int:
    return await workflow.run(last=last)


async def fan(size: Size) -> float:
    workflow = Fan(timeout=None)
    with Timer() as timer:
        found = await workflow.run(width=size.steps)
    expect(found, list(range(size.steps)))
    return timer.seconds


def durable(_size: Size) -> float:
    raise UnsupportedError("it has no durable store of its own")


if __name__ == "__main__":
    in_memory = {"chain": chain, "many": chain, "fan": fan}
    main(
        {
            **{name: lambda size, do=do: asyncio.run(do(size)) for name, do in in_memory.items()},
            "durable-chain": durable,
            "durable-many": durable,
        }
    )
