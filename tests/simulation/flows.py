"""The workflows of the simulated runs, and the result of each, which no fault may change."""

from __future__ import annotations

from typing import Any

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
    step,
)
from tests.mixed import Log, mixed_workflow

QUESTION = "shall we?"


@attrs.frozen
class Later(Event):
    pass


@attrs.frozen
class Go(Event):
    by: str


@attrs.frozen
class Answer(InputResponseEvent):
    pass


def count(ctx: Context) -> None:
    """Count this step's effect on its run, which must be there exactly once."""
    ctx.update(
        "effects",
        lambda effects: {**effects, ctx.step_name: effects.get(ctx.step_name, 0) + 1},
        default={},
    )


@step(retry=RetryPolicy(max_attempts=3, initial_delay=4.0))
async def ask(_ev: StartEvent, ctx: Context) -> tuple[InputRequestEvent, Delayed[Later]]:
    count(ctx)
    await trio.sleep(0.1)
    if ctx.attempt == 1:
        msg = "not at once"
        raise OSError(msg)
    return InputRequestEvent(QUESTION, request_id="question"), Delayed(Later(), 20.0)


@step
async def meet(ev: Answer | Later | Go, ctx: Context) -> StopEvent | None:
    count(ctx)
    await trio.sleep(0.1)
    seen = ctx.get("seen", [])
    ctx.set("seen", [*seen, ev.event_type])
    all_of_them = ctx.collect(ev, [Answer, Later, Go])
    if all_of_them is None:
        return None
    answer, _, go = all_of_them
    return StopEvent([answer.response, go.by, ctx.get("effects"), sorted(ctx.get("seen"))])


meeting = Workflow("meeting", [ask, meet], external=[Go])
mixed = mixed_workflow(Log(), slowness=0.2)


@attrs.frozen
class Tick(Event):
    left: int


@step
async def begin(ev: StartEvent, ctx: Context) -> list[Tick]:
    count(ctx)
    return [Tick(2) for _ in range(ev.data)]


@step
async def tick(ev: Tick, ctx: Context) -> Tick | Done:
    count(ctx)
    return Tick(ev.left - 1) if ev.left else Done()


@attrs.frozen
class Done(Event):
    pass


@step
async def end(done: list[Done], ctx: Context) -> StopEvent:
    count(ctx)
    return StopEvent([len(done), ctx.get("effects")])


short = Workflow("short", [begin, tick, end])

ALL = [meeting, mixed, short]


def meeting_result(go: str) -> Any:
    """Return the result of a run of `meeting`."""
    return ["yes", go, {"ask": 1, "meet": 3}, ["Answer", "Go", "Later"]]


SHORT_INPUT = 3
SHORT_RESULT = [SHORT_INPUT, {"begin": 1, "tick": 3 * SHORT_INPUT, "end": 1}]
