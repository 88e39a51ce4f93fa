"""Events, and a slow workflow, that the behaviour tests share."""

from __future__ import annotations

import attrs
import trio

from blazen_trio import Event, StartEvent, StopEvent, Workflow, step


@attrs.frozen
class A(Event):
    n: int = 0


@attrs.frozen
class B(Event):
    n: int = 0


@attrs.frozen
class C(Event):
    n: int = 0


@attrs.frozen
class SubA(A):
    extra: str = ""


@attrs.frozen
class Sum(Event):
    numbers: list[int]


@step
async def begin(ev: StartEvent) -> A:
    await trio.sleep(5)
    return A(1)


@step
async def end(ev: A) -> StopEvent:
    await trio.sleep(5)
    return StopEvent("end")


SLOW = Workflow("slow", [begin, end], timeout=20)
