"""Workflows whose runs the command line reads and acts on."""

from __future__ import annotations

import datetime as dt
from typing import Any

import attrs

from blazen_trio import (
    Context,
    Delayed,
    Event,
    InputRequestEvent,
    InputResponseEvent,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)

MOMENT = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
SECRET = "postgresql://ann:sesame@h/d"


@attrs.frozen
class Approval(InputResponseEvent):
    pass


@attrs.frozen
class Refusal(InputResponseEvent):
    why: str = attrs.field(kw_only=True)


@attrs.frozen
class Paid(Event):
    amount: int
    currency: str = "EUR"
    tags: list[str] = attrs.field(factory=list)


@attrs.frozen
class Order(StartEvent):
    what: str = attrs.field(kw_only=True)


@attrs.frozen
class Sold(StopEvent):
    what: str = attrs.field(kw_only=True)


@attrs.frozen
class Number(Event):
    n: int


@attrs.frozen
class Square(Event):
    n: int


# Asks, and takes an answer of its own type


@step
async def ask(ev: StartEvent) -> InputRequestEvent:
    return InputRequestEvent(
        str(ev.data), {"choices": [True, False], "of": ev.data}, request_id="ok"
    )


@step
async def decide(ev: Approval) -> StopEvent:
    if ev.response == "explode":
        raise RuntimeError(f"can't connect to {SECRET}")
    return StopEvent(ev.response)


asking = Workflow("asking", [ask, decide], version="7", history=True)


# Asks twice, and takes plain answers


@step
async def ask_twice(ev: StartEvent) -> tuple[InputRequestEvent, InputRequestEvent]:
    return InputRequestEvent("first?", request_id="one"), InputRequestEvent(
        "second?", request_id="two"
    )


@step
async def both(ev: InputResponseEvent, ctx: Context) -> StopEvent | None:
    ctx.update("answers", lambda answers: [*answers, ev.response], default=[])
    return StopEvent(ctx.get("answers")) if len(ctx.get("answers")) == 2 else None


twice = Workflow("twice", [ask_twice, both])


# Takes answers of two types


@step
async def refuse(ev: Refusal) -> StopEvent:
    return StopEvent(ev.why)


choosy = Workflow("choosy", [ask, decide, refuse])


# Waits for an event


@step
async def receive(ev: Order, ctx: Context) -> None:
    ctx.set("order", ev.what)
    ctx.set("at", MOMENT)


@step
async def pay(ev: Paid, ctx: Context) -> Sold:
    return Sold(what=f"{ctx.get('order')} for {ev.amount} {ev.currency}")


paying = Workflow("paying", [receive, pay], external=[Paid], timeout=60)


# Is half-way: some members are collected, one asks, one is delayed, and there is a large value


@step
async def spread(ev: StartEvent, ctx: Context) -> list[Number]:
    ctx.set("large", "x" * 40_000)
    ctx.set("set", {1, 2})
    return [Number(n) for n in range(4)]


@step
async def square(ev: Number) -> Square | InputRequestEvent | Delayed[Square]:
    if ev.n == 2:
        return InputRequestEvent("what is two squared?", request_id="two")
    return Delayed(Square(9), 0.5) if ev.n == 3 else Square(ev.n**2)


@step
async def answered(ev: InputResponseEvent) -> Square:
    return Square(ev.response)


@step
async def total(squares: list[Square], ctx: Context) -> StopEvent:
    return StopEvent([[one.n for one in squares], len(ctx.get("large")), ctx.metadata["who"]])


half = Workflow("half", [spread, square, answered, total])


# Fails in the way that its input selects


@step
async def fail(ev: StartEvent) -> StopEvent:
    raise RuntimeError(str(ev.data))


failing = Workflow("failing", [fail])


# Waits for a time


@step
async def order_later(ev: StartEvent) -> Delayed[Paid]:
    return Delayed(Paid(1), 3600)


@step
async def paid_later(ev: Paid) -> StopEvent:
    return StopEvent(ev.amount)


later = Workflow("later", [order_later, paid_later], timeout=None)
MANY: Any = [asking, twice]
