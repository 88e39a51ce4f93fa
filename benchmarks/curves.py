"""The scaling curves: step throughput and resume time at several sizes.

A step's speed should not depend on the size of the state, the age of the run or the number of
stored runs. The limit of each point is the first point of its curve, measured in the same turn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import attrs
import sqlalchemy as sa
import trio

from benchmarks.databases import new_database
from benchmarks.harness import STEPS, Aim, Measurement, Stopwatch, in_turns
from benchmarks.limits import expect
from benchmarks.workloads import FAN, Done, Item, Tick, gather, spread
from blazen_trio import Context, StartEvent, StopEvent, Workflow, open_store, step
from blazen_trio._state.status import RunStatus
from blazen_trio._stores.sql import schema

STEPS_TIMED = 300
_KEY_SIZE = 1000  # bytes of each untouched key
_BATCH = 5_000
_ENTRY_SIZES = (250, *[120] * 10)  # bytes of the journal entries that a run of ten steps leaves


@attrs.frozen
class Curve:
    """A workload in several sizes.

    Attributes:
        name: The name for `--only`, with the kind of database.
        axis: The quantity that grows.
        points: The sizes.
        workload: Does the work at a given size and times it. It may get the same database again.
        prepare: Brings the new database of a point to its size, or `None`.
        steps: The number of timed steps. `None`: the time itself is reported, in milliseconds.
        aim: The aim for the ratio of each point to the first.
        database: The kind of database.
    """

    name: str
    axis: str
    points: Sequence[int]
    workload: Callable[[Stopwatch, int], Awaitable[None]]
    prepare: Callable[[str, int], None] | None
    steps: int | None
    aim: Aim | None
    database: str

    @property
    def unit(self) -> str:
        """The unit of the numbers at its points."""
        return "milliseconds" if self.steps is None else STEPS


class _Counted:
    """Steps that count up from 0, and start the stopwatch at one of the numbers.

    Args:
        stopwatch: Started when the timed steps start.
        timed_from: The number of the first timed step.
        last: The last number.
        size: Total bytes of state that the first step sets and no other step touches.
    """

    def __init__(self, stopwatch: Stopwatch, timed_from: int, last: int, size: int = 0) -> None:
        self._stopwatch = stopwatch
        self._timed_from = timed_from
        self._last = last
        self._size = size
        self.reached: trio.Event | None = trio.Event()
        self.workflow = Workflow("counted", [self.begin, self.count], timeout=None)

    @step
    async def begin(self, _ev: StartEvent, ctx: Context) -> Tick:
        """Set the state."""
        for number in range(self._size // _KEY_SIZE):
            ctx.set(f"untouched {number}", "x" * _KEY_SIZE)
        return Tick(0, self._last)

    @step
    async def count(self, ev: Tick, ctx: Context) -> Tick | StopEvent:
        """Count one up, and store the number."""
        if ev.n == self._timed_from:
            if self.reached is not None:  # the first of two parts ends here
                self.reached.set()
                await trio.sleep_forever()
            self._stopwatch.start()
        ctx.set("n", ev.n)
        return StopEvent(ctx.get("n")) if ev.n == ev.last else Tick(ev.n + 1, ev.last)


async def beside_state(stopwatch: Stopwatch, size: int, *, steps: int) -> None:
    """Time `sync` steps of a run that has this many bytes of state."""
    counted = _Counted(stopwatch, 0, steps - 1, size)
    counted.reached = None
    async with open_store(stopwatch.url, migrate=True) as store:
        found = await counted.workflow.run(store=store)
        stopwatch.stop()
    expect(found, steps - 1)


async def at_age(stopwatch: Stopwatch, age: int, *, steps: int) -> None:
    """Time `sync` steps of a run that has done `age` steps with `exit`."""
    counted = _Counted(stopwatch, age, age + steps - 1)
    async with open_store(stopwatch.url, migrate=True) as store:
        run_id = await _leave_at(counted, "exit", stopwatch.url)
        found = await counted.workflow.resume_from(run_id, store=store)
        stopwatch.stop()
    expect(found, age + steps - 1)


async def _leave_at(counted: _Counted, durability: str, url: str) -> str:
    """Run until the timed steps would start, and leave the run. Return its id."""
    reached = counted.reached
    assert reached is not None
    async with (
        open_store(url, migrate=True) as store,
        counted.workflow.run(store=store, durability=durability) as run,
    ):
        await reached.wait()
        await run.pause(grace=0)
    counted.reached = None
    return run.run_id


async def beside_stored(stopwatch: Stopwatch, _count: int, *, steps: int) -> None:
    """Time `sync` steps of a run in a database that holds other runs."""
    await beside_state(stopwatch, 0, steps=steps)


def add_ended_runs(url: str, count: int) -> None:
    """Insert this many ended runs of ten steps into the database, in bulk."""
    trio.run(_create_tables, url)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for start in range(0, count, _BATCH):
            rows = [
                {
                    "run_id": f"ended {number}",
                    "workflow": "counted",
                    "version": "1",
                    "status": schema.STATUS_CODES[RunStatus.COMPLETED],
                    "created": number,
                    "updated": number,
                }
                for number in range(start, min(count, start + _BATCH))
            ]
            connection.execute(sa.insert(schema.runs), rows)
        for table, sizes in ((schema.journal, _ENTRY_SIZES), (schema.history, (90, 90))):
            for seq, size in enumerate(sizes, 1):
                entry = sa.select(
                    schema.runs.c.run_no,
                    sa.literal(seq),
                    sa.literal(0),
                    sa.literal(schema.PLAIN),
                    sa.literal(b"x" * size),
                )
                connection.execute(
                    sa.insert(table).from_select(["run_no", "seq", "part", "format", "data"], entry)
                )
    engine.dispose()


async def _create_tables(url: str) -> None:
    async with open_store(url, migrate=True):
        pass


class _FirstOfMany:
    """A fan-out whose first member to run after `resuming` was set stops the stopwatch."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        self.resuming = False
        self.spread_out = trio.Event()
        self.workflow = Workflow(FAN[False].name, [spread, self.work, gather], timeout=None)

    @step
    async def work(self, ev: Item) -> Done:
        """Process one member."""
        if not self.resuming:
            self.spread_out.set()
            await trio.sleep_forever()
        if self._stopwatch.seconds == 0:
            self._stopwatch.stop()
        return Done(ev.n)


async def with_deliveries(stopwatch: Stopwatch, width: int) -> None:
    """Time the resume of a run with `width` pending deliveries, until the first of them runs."""
    members = _FirstOfMany(stopwatch)
    async with open_store(stopwatch.url, migrate=True) as store:
        async with members.workflow.run(width, store=store) as run:
            await members.spread_out.wait()
            await run.pause(grace=0)
        members.resuming = True
        stopwatch.start()
        # The rest is not timed. It only has to be quick and give a result to check.
        found = await members.workflow.resume_from(run.run_id, store=store, durability="exit")
    expect(found, list(range(width)))


async def with_journal(stopwatch: Stopwatch, entries: int, *, size: int) -> None:
    """Time the resume of a run with this many journal entries, until its next step runs.

    The journal of a run with little state stays short, because it is folded into a snapshot. So
    this run has `size` bytes of state.
    """
    counted = _Counted(stopwatch, entries, entries, size)
    async with open_store(stopwatch.url, migrate=True) as store:
        run_id = await _leave_at(counted, "async", stopwatch.url)
        expect(len((await store.load(run_id)).entries) >= entries, True)
        timed = Stopwatch()
        resumed = _Counted(timed, entries, entries)
        resumed.reached = trio.Event()
        timed.start()
        async with resumed.workflow.resume_from(run_id, store=store) as run:
            await resumed.reached.wait()
            timed.stop()
            await run.pause(grace=0)
    stopwatch.seconds = timed.seconds


def all_curves(kinds: Sequence[str], steps: int = STEPS_TIMED) -> list[Curve]:
    """Return every curve, once for each of these kinds of databases."""
    flat = Aim(0.9)
    found = []
    for kind in kinds:
        found += [
            Curve(
                f"state-{kind}",
                "bytes of untouched state",
                (1_000, 100_000, 1_000_000),
                partial(beside_state, steps=steps),
                None,
                steps,
                flat,
                kind,
            ),
            Curve(
                f"age-{kind}",
                "steps done before",
                (100, 10_000, 100_000),
                partial(at_age, steps=steps),
                None,
                steps,
                flat,
                kind,
            ),
            Curve(
                f"stored-{kind}",
                "runs stored",
                (100, 100_000),
                partial(beside_stored, steps=steps),
                add_ended_runs,
                steps,
                flat,
                kind,
            ),
            Curve(
                f"resume-deliveries-{kind}",
                "pending deliveries",
                (100, 10_000, 100_000),
                with_deliveries,
                None,
                None,
                None,
                kind,
            ),
            Curve(
                f"resume-journal-{kind}",
                "entries in the journal",
                (10, 1_000, 4_000),
                partial(with_journal, size=1_000_000),
                None,
                None,
                None,
                kind,
            ),
        ]
    return found


def measure_curve(curve: Curve, repeat: int, folder: Path) -> list[Measurement]:
    """Measure all points in turns. Each has one database, which it keeps for all turns."""
    with ExitStack() as stack:
        sides = {}
        for point in curve.points:
            url = stack.enter_context(new_database(curve.database, folder))
            if curve.prepare is not None:
                curve.prepare(url, point)
            sides[f"{point:,}"] = partial(_measure_point, curve, url, point)
        found = in_turns(sides, repeat)
    first, *_ = found
    return [
        Measurement(
            f"{curve.name} at {label}",
            f"at {first} {curve.axis}",
            found[label],
            found[first],
            curve.unit,
            more_is_better=curve.steps is not None,
            aim=None if label == first else curve.aim,
            curve=(curve.name, point),
        )
        for label, point in zip(found, curve.points, strict=True)
    ]


def _measure_point(curve: Curve, url: str, point: int) -> float:
    stopwatch = Stopwatch(url)
    trio.run(curve.workload, stopwatch, point)
    return 1000 * stopwatch.seconds if curve.steps is None else curve.steps / stopwatch.seconds
