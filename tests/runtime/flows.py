"""Workflows for the tests in this folder, and runtimes that serve in the background."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import trio

from blazen_trio import (
    Context,
    Delayed,
    Event,
    InputRequestEvent,
    InputResponseEvent,
    RetryPolicy,
    StartEvent,
    StopEvent,
    Workflow,
    open_runtime,
    step,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from blazen_trio import CheckpointStore, Runtime


@attrs.frozen
class Tick(Event):
    left: int


@attrs.frozen
class Approved(Event):
    by: str


@attrs.frozen
class Later(Event):
    pass


@step
async def begin(ev: StartEvent) -> Tick:
    return Tick(ev.data)


@step
async def tick(ev: Tick, ctx: Context) -> Tick | StopEvent:
    ctx.update("ticks", lambda count: count + 1, default=0)
    await trio.sleep(0.01)
    return Tick(ev.left - 1) if ev.left else StopEvent(ctx.get("ticks"))


@step
async def ask(ev: StartEvent) -> InputRequestEvent:
    return InputRequestEvent(f"{ev.data}?")


@step
async def answered(ev: InputResponseEvent) -> StopEvent:
    return StopEvent(ev.response)


@step
async def keep_waiting(ev: StartEvent, ctx: Context) -> None:
    ctx.set("wanted", ev.data)


@step
async def approve(ev: Approved, ctx: Context) -> StopEvent | None:
    names = [*ctx.get("approvals", []), ev.by]
    ctx.set("approvals", names)
    return StopEvent(names) if len(names) >= ctx.get("wanted", 99) else None


@step
async def delay(ev: StartEvent) -> Delayed[Later]:
    return Delayed(Later(), ev.data)


@step
async def late(_ev: Later) -> StopEvent:
    return StopEvent("late")


@step(retry=RetryPolicy(max_attempts=3, initial_delay=5, jitter=0))
async def fail_at_first(ev: StartEvent, ctx: Context) -> StopEvent:
    if ctx.attempt <= ev.data:
        msg = "not yet"
        raise RuntimeError(msg)
    return StopEvent(ctx.attempt)


ticks = Workflow("ticks", [begin, tick])
asks = Workflow("asks", [ask, answered])
approvals = Workflow("approvals", [keep_waiting, approve], external=[Approved])
delays = Workflow("delays", [delay, late])
fails = Workflow("fails", [fail_at_first])
ALL = [ticks, asks, approvals, delays, fails]


@asynccontextmanager
async def serving(
    store: CheckpointStore, workflows: Any = ALL, **options: Any
) -> AsyncIterator[Runtime]:
    """Run a worker that stops serving when the block ends."""
    async with open_runtime(store, workflows, **options) as runtime, trio.open_nursery() as nursery:
        nursery.start_soon(runtime.serve)  # noqa: ASYNC113  # it may start a moment later
        yield runtime
        nursery.cancel_scope.cancel()


async def until(condition: Any, seconds: float = 120.0) -> None:
    """Poll until a condition holds."""
    with trio.fail_after(seconds):
        while not await condition():  # noqa: ASYNC110  # the condition is in a database
            await trio.sleep(0.05)


def status_is(store: Any, run_id: str, *statuses: str) -> Any:
    async def look() -> bool:
        return (await store.get_run(run_id)).status.value in statuses

    return look
