"""Measure the memory of waiting runs and how fast they wake, each kind in its own process.

    python -m benchmarks.memory runtime 1000 URL

The limit is bare Trio: tasks that are parked on an event.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from benchmarks.databases import new_database
from benchmarks.harness import Aim, Measurement, in_turns
from benchmarks.idle import FLOW, Go, memory
from benchmarks.limits import expect
from blazen_trio import RunStatus, open_runtime, open_store

_WARM_UP = 50
_ONE_BY_ONE = 20  # this many are woken one by one, before all others together
_TASKS = "parked Trio tasks"


@attrs.frozen
class Idle:
    """The cost of a number of waiting runs or tasks.

    Attributes:
        mebibytes: The growth of the process, per 1,000 of them.
        woken: The number that ended per second when all were woken together.
        latency: Milliseconds from waking one of them to its end, while the others wait (the median
            of some).
    """

    mebibytes: float
    woken: float
    latency: float


Wake = Callable[[int], Any]
"""An async function that wakes the one with this number and waits for its end."""

Opener = Callable[[int, str], AbstractAsyncContextManager[Wake]]
"""A function that opens a block during which this many wait."""


@asynccontextmanager
async def tasks(count: int, _url: str) -> AsyncGenerator[Wake]:
    """Open bare tasks, each parked on an event."""
    events: dict[int, trio.Event] = {}
    ended: dict[int, trio.Event] = {}

    async def one(number: int) -> None:
        event = events[number] = trio.Event()
        await event.wait()
        ended[number].set()

    async def wake(number: int) -> None:
        ended[number] = trio.Event()
        events[number].set()
        await ended[number].wait()

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(one, number)
        while len(events) < count:  # noqa: ASYNC110  # until each has started
            await trio.lowlevel.checkpoint()
        yield wake


@asynccontextmanager
async def in_runtime(count: int, url: str) -> AsyncGenerator[Wake]:
    """Open stored runs that a runtime started and that rest, with no task holding a handle."""
    async with (
        open_store(url, migrate=True) as store,
        open_runtime(store, [FLOW], max_concurrent_runs=count + _WARM_UP) as runtime,
    ):
        prefix = f"{time.monotonic_ns()}"

        async def begin(number: int) -> None:
            await runtime.start(FLOW, run_id=f"{prefix} {number}")

        async def wake(number: int) -> None:
            await runtime.send(f"{prefix} {number}", Go())
            await runtime.result(f"{prefix} {number}")

        # Few at once, so that memory needed only while runs start is not counted as held.
        for done in range(0, count, _WARM_UP):
            await _each(min(_WARM_UP, count - done), begin, done)
        while runtime.statistics().resting < count:  # noqa: ASYNC110  # no event announces it
            await trio.sleep(0.01)
        yield wake


@asynccontextmanager
async def entered(count: int, _url: str) -> AsyncGenerator[Wake]:
    """Open runs in memory, each entered with `async with` by a task of its own."""
    runs: dict[int, Any] = {}
    ended: dict[int, trio.Event] = {}

    async def one(number: int) -> None:
        async with FLOW.run() as run:
            runs[number] = run
            await run.result()
        ended[number].set()

    async def wake(number: int) -> None:
        ended[number] = trio.Event()
        await runs[number].send(Go())
        await ended[number].wait()

    async with trio.open_nursery() as nursery:
        for first in range(0, count, _WARM_UP):  # few at once, as above
            for number in range(first, min(first + _WARM_UP, count)):
                nursery.start_soon(one, number)
            started = range(first, number + 1)
            while not all(  # noqa: ASYNC110
                one in runs and runs[one].status is RunStatus.WAITING for one in started
            ):
                await trio.sleep(0.001)
        yield wake


KINDS: dict[str, Opener] = {"tasks": tasks, "runtime": in_runtime, "entered": entered}


async def _each(count: int, function: Callable[[int], Any], first: int = 0) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(first, first + count):
            nursery.start_soon(function, number)


async def measure(kind: str, count: int, url: str) -> Idle:
    """Let this many of a kind wait, and wake them."""
    async with KINDS[kind](_WARM_UP, url) as wake:
        await _each(_WARM_UP, wake)
    gc.collect()
    before = memory()
    async with KINDS[kind](count, url) as wake:
        gc.collect()
        grown = memory() - before
        latencies = [await _timed(wake, number) for number in range(_ONE_BY_ONE)]
        others = count - _ONE_BY_ONE
        woken = others / await _timed(partial(_each, others, wake), _ONE_BY_ONE)
    return Idle(grown / 2**20 / count * 1000, woken, statistics.median(latencies) * 1000)


async def _timed(function: Callable[[Any], Any], argument: Any) -> float:
    start = time.perf_counter()
    await function(argument)
    return time.perf_counter() - start


def in_own_process(kind: str, count: int, folder: Path) -> Idle:
    """Run `measure` in a new process, where nothing else has used memory before."""
    with new_database("sqlite", folder) if kind == "runtime" else nullcontext("") as url:
        command = [sys.executable, "-m", "benchmarks.memory", kind, str(count), url]
        done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    return Idle(**json.loads(done.stdout))


def measure_all(
    repeat: int, folder: Path, few: int = 1_000, many: int = 10_000
) -> list[Measurement]:
    """Measure all kinds in turns, with few and with many that wait, and waking them."""
    sizes = (few, many)
    sides = {
        (kind, count): partial(in_own_process, kind, count, folder)
        for kind in KINDS
        for count in sizes
    }
    taken: dict[tuple[str, int], list[Idle]] = {side: [] for side in sides}

    def take(side: tuple[str, int]) -> float:
        taken[side].append(sides[side]())
        return taken[side][-1].mebibytes

    in_turns(
        {f"{kind} {count}": partial(take, (kind, count)) for kind, count in sides},
        repeat,
        warm_up=False,
    )
    aims = {"runtime": 3, "entered": 12}
    held = [
        Measurement(
            f"idle-{kind}-{count}",
            f"{count:,} {_TASKS}",
            [one.mebibytes for one in taken[kind, count]],
            [one.mebibytes for one in taken["tasks", count]],
            "MiB per 1,000 that wait",
            more_is_better=False,
            aim=Aim(aim, at_least=False, of_ratio=False) if count == few else None,
        )
        for kind, aim in aims.items()
        for count in sizes
    ]
    woken = [
        Measurement(
            f"wake-{kind}-{many}",
            f"{many:,} {_TASKS}",
            [one.woken for one in taken[kind, many]],
            [one.woken for one in taken["tasks", many]],
            "woken at once, per second",
        )
        for kind in aims
    ]
    latency = [
        Measurement(
            f"wake-one-{kind}-{many}",
            f"beside {few:,}",
            [one.latency for one in taken[kind, many]],
            [one.latency for one in taken[kind, few]],
            "milliseconds",
            more_is_better=False,
        )
        for kind in aims
    ]
    return held + woken + latency


def main() -> None:
    """Measure one kind and print the numbers as JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks.memory", description=__doc__)
    parser.add_argument("kind", choices=list(KINDS))
    parser.add_argument("count", type=int, help="the number that wait")
    parser.add_argument(
        "url", nargs="?", default="", help="an empty database, for the runs of a runtime"
    )
    options = parser.parse_args()
    if options.kind == "runtime":
        expect(bool(options.url), True)
    print(json.dumps(attrs.asdict(trio.run(measure, options.kind, options.count, options.url))))


if __name__ == "__main__":
    main()
