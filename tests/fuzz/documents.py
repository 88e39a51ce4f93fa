"""Real snapshots of runs, and random changes to them."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import attrs
import orjson
import trio
import trio.testing

from blazen_trio import (
    Context,
    Delayed,
    Event,
    InputRequestEvent,
    InputRequiredError,
    InputResponseEvent,
    MemoryStore,
    StartEvent,
    StepFailedError,
    StopEvent,
    Workflow,
    step,
)


@attrs.frozen
class Part(Event):
    n: int
    note: Any = None


@step
async def begin(ev: StartEvent, ctx: Context) -> list[Part | Delayed[Part]]:
    if ev.data == "fail":
        raise ValueError(ev.data)
    ctx.set("seen", {1, (2, "three")})
    ctx.set("by", {"name": "ann", "when": [1.5, None, True]})
    return [Part(1, b"x"), Delayed(Part(2), 1e6), Part(3, {"$set": [1]})]


@step
async def work(ev: Part, ctx: Context) -> InputRequestEvent | None:
    ctx.collect(ev, [Part, Part, Part, Part])
    return InputRequestEvent(f"part {ev.n}?", {}, f"q{ev.n}")


@step
async def join(parts: list[Part]) -> StopEvent:
    return StopEvent(len(parts))


@step
async def answered(ev: InputResponseEvent) -> StopEvent | None:
    return StopEvent(ev.response) if ev.response == "stop" else None


FLOW = Workflow("fuzzed", [begin, work, join, answered], history=True)


async def _seeds() -> list[dict[str, Any]]:
    found = []
    for given in ("go", "fail"):
        async with FLOW.run(given, store=MemoryStore(), metadata={"by": "ann"}) as run:
            await trio.testing.wait_all_tasks_blocked()
            found.append(orjson.loads((await run.snapshot()).to_json()))
            try:
                await run.result()
            except (InputRequiredError, StepFailedError):
                found.append(orjson.loads((await run.snapshot()).to_json()))
            run.cancel()
    return found


def seeds() -> list[dict[str, Any]]:
    """Return real documents, of runs in several states."""
    return trio.run(_seeds)


LEAVES: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    2**53,
    2**62,
    2**63 - 1,
    2**64 - 1,
    0.5,
    1e300,
    -1e18,
    "",
    "x",
    "Part",
    "work",
    "join",
    "q1",
    "\0",
    "é" * 300,
    [],
    {},
    [1],
    ["Part", {"n": 1, "note": None}],
    {"$int": "0x" + "f" * 40},
    {"$int": "zz"},
    {"$blob": "0" * 64},
    {"$set": [[1], [1]]},
    {"$dict": [[{"$set": []}, 1]]},
    {"$object": ["Gone", {"a": 1}]},
    {"$event": ["Part", {"n": 1}]},
    {"$datetime": ["2026-01-01", "../../etc/passwd", 0]},
    {"$datetime": ["2026-01-01T00:00:00", [1, 2, 3], 7, "N"]},
    {"$decimal": "1e999999999"},
    "running",
    "waiting",
    "completed",
    "failed",
    "queued",
]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Iterate over all pairs of a container and a key or index in a document."""
    todo = [value]
    while todo:
        one = todo.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one))
        for key in keys:
            yield one, key
            if isinstance(one[key], (dict, list)):
                todo.append(one[key])


def changed(document: dict[str, Any], dice: random.Random) -> Any:
    """Return the document with a few changes: leaves replaced, parts dropped, doubled, swapped."""
    made = copy.deepcopy(document)
    for _ in range(dice.choice([1, 1, 1, 2, 3, 6])):
        spots = list(places(made))
        if not spots:
            break
        holder, key = dice.choice(spots)
        kind = dice.randrange(7)
        if kind <= 2:
            holder[key] = copy.deepcopy(dice.choice(LEAVES))
        elif kind == 3:
            del holder[key]
        elif kind == 4:
            other, where = dice.choice(spots)
            holder[key] = copy.deepcopy(other[where])
        elif kind == 5 and isinstance(holder, list):
            holder.insert(dice.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
        elif kind == 6 and type(holder[key]) is int:
            holder[key] += dice.choice([-1, 1, 2**20])
        else:
            holder[key] = [holder[key]]
    return made


def spoilt(data: bytes, dice: random.Random) -> bytes:
    """Return bytes with a few of them changed, gone or repeated."""
    made = bytearray(data)
    for _ in range(dice.randrange(1, 5)):
        at = dice.randrange(len(made) + 1)
        kind = dice.randrange(3)
        if kind == 0:
            made[at : at + 1] = bytes([dice.randrange(256)])
        elif kind == 1:
            del made[at : at + dice.randrange(1, 20)]
        else:
            made[at:at] = made[at : at + dice.randrange(1, 20)]
    return bytes(made)
