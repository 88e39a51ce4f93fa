# mypy: ignore-errors
# ruff: noqa: D103  # a program for another environment
"""The workloads on Blazen, the engine in Rust, through its Python binding."""

import asyncio

import blazen

from benchmarks.peers.program import Size, Timer, UnsupportedError, expect, main


class Tick(blazen.Event):
    """A pending step."""

    n: int
    last: int


@blazen.step
async def begin(ctx: blazen.Context, ev: blazen.StartEvent) -> Tick:
    return Tick(n=1, last=ev.last)


@blazen.step
async def tick(ctx: blazen.Context, ev: Tick) -> blazen.Event:
    return (
        blazen.StopEvent(result={"n": ev.n + 1})
        if ev.n + 1 == ev.last
        else Tick(n=ev.n + 1, last=ev.last)
    )


async def one(last: int) -> int:
    workflow = blazen.Workflow("chain", [begin, tick])
    return (await workflow.run(last=last)).result["n"]


async def chain(size: Size) -> float:
    with Timer() as timer:
        found = await asyncio.gather(*(one(size.steps) for _ in range(size.runs)))
    expect(found, [size.steps] * size.runs)
    return timer.seconds


class Item(blazen.Event):
    """A member of a fan-out."""

    n: int


class Done(blazen.Event):
    """The result of a member."""

    n: int


@blazen.step
async def spread(ctx: blazen.Context, ev: blazen.StartEvent) -> list[Item]:
    return [Item(n=n) for n in range(ev.width)]


@blazen.step
async def work(ctx: blazen.Context, ev: Item) -> Done:
    return Done(n=ev.n)


async def fan(size: Size) -> float:
    found = []  # the binding has no step that collects events, so this one does it by hand

    @blazen.step
    async def gather(ctx: blazen.Context, ev: Done) -> blazen.StopEvent | None:
        found.append(ev.n)
        return blazen.StopEvent(result={}) if len(found) == size.steps else None

    workflow = blazen.Workflow("fan", [spread, work, gather])
    with Timer() as timer:
        await workflow.run(width=size.steps)
    expect(sorted(found), list(range(size.steps)))
    return timer.seconds


def durable(_size: Size) -> float:
    raise UnsupportedError("its Python binding accepts a checkpoint store and ignores it")


if __name__ == "__main__":
    in_memory = {"chain": chain, "many": chain, "fan": fan}
    main(
        {
            **{name: lambda size, do=do: asyncio.run(do(size)) for name, do in in_memory.items()},
            "durable-chain": durable,
            "durable-many": durable,
        }
    )
