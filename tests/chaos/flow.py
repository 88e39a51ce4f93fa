"""The workflow of the chaos tests, and its worker: `python -m tests.chaos.flow URL`."""

from __future__ import annotations

import signal
import sys
from typing import Any

import attrs
import trio

from blazen_trio import (
    Context,
    Event,
    StartEvent,
    StopEvent,
    Workflow,
    open_runtime,
    open_store,
    step,
)

STEPS = 5
WIDTH = 3
LEASE_TTL = 3.0


@attrs.frozen
class Tick(Event):
    left: int


@attrs.frozen
class Part(Event):
    number: int


@attrs.frozen
class Done(Event):
    parts: list[int]


@attrs.frozen
class Go(Event):
    by: str


@attrs.frozen
class Both(Event):
    by: str


def count(ctx: Context) -> None:
    """Record the effect of a step on its run."""
    ctx.update(
        "effects",
        lambda effects: {**effects, ctx.step_name: effects.get(ctx.step_name, 0) + 1},
        default={},
    )


async def work(ctx: Context) -> None:
    count(ctx)
    await trio.sleep(0.01)


@step
async def begin(_ev: StartEvent, ctx: Context) -> Tick:
    await work(ctx)
    return Tick(STEPS - 1)


@step
async def tick(ev: Tick, ctx: Context) -> Tick | list[Part]:
    await work(ctx)
    return Tick(ev.left - 1) if ev.left else [Part(number) for number in range(WIDTH)]


@step
async def part(ev: Part, ctx: Context) -> Part | None:
    await work(ctx)
    return None


@step
async def double(ev: Part, ctx: Context) -> Doubled:
    await work(ctx)
    return Doubled(2 * ev.number)


@attrs.frozen
class Doubled(Event):
    number: int


@step
async def join(parts: list[Doubled], ctx: Context) -> Done:
    await work(ctx)
    return Done([one.number for one in parts])


@step
async def meet(ev: Done | Go, ctx: Context) -> StopEvent | None:
    count(ctx)
    both = ctx.collect(ev, [Done, Go])
    if both is None:
        return None
    return StopEvent({"parts": both[0].parts, "by": both[1].by, "effects": ctx.get("effects")})


EXPECTED: dict[str, Any] = {
    "parts": [0, 2, 4],
    "effects": {"begin": 1, "tick": STEPS, "part": WIDTH, "double": WIDTH, "join": 1, "meet": 2},
}
flow = Workflow("chaos", [begin, tick, part, double, join, meet], external=[Go])


async def main(url: str) -> None:
    async with (
        open_store(url, lease_ttl=LEASE_TTL) as store,
        open_runtime(
            store,
            [flow],
            max_concurrent_runs=40,
            poll_interval=0.1,
            idle_after=0.3,
            max_crashes=1000,
        ) as runtime,
    ):
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(runtime.serve)
                async for _ in signals:
                    nursery.cancel_scope.cancel()
                    break


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
