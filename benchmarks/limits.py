"""The limits: the same work on bare Trio, and on SQLAlchemy Core with one connection."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import sqlalchemy as sa
import trio

from benchmarks.harness import Stopwatch, Workload

PAYLOAD = b"x" * 200
"""The data that one step writes."""

metadata = sa.MetaData()
journal = sa.Table(
    "journal",
    metadata,
    sa.Column("run_id", sa.String(36), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("data", sa.LargeBinary, nullable=False),
)


def expect(found: object, expected: object) -> None:
    """Fail if a workload did not do its work."""
    if found != expected:
        raise AssertionError(f"the workload returned {found!r}, expected {expected!r}")


async def run_chain(steps: int, *, checkpoint: bool) -> int:
    """Do one run: receive events from a channel, and spawn a task for each that sends the next."""
    send, receive = trio.open_memory_channel[int](math.inf)

    async def step(n: int) -> None:
        if checkpoint:
            await trio.lowlevel.checkpoint()
        send.send_nowait(n + 1)

    async with trio.open_nursery() as nursery:
        send.send_nowait(0)
        async for n in receive:
            if n == steps:
                break
            nursery.start_soon(step, n)
    return n


async def trio_chain(stopwatch: Stopwatch, *, steps: int, checkpoint: bool) -> None:
    """Time one long run."""
    with stopwatch:
        found = await run_chain(steps, checkpoint=checkpoint)
    expect(found, steps)


async def trio_fan(stopwatch: Stopwatch, *, width: int, checkpoint: bool) -> None:
    """Time one run that spawns a task per event and collects the results from a channel."""
    send, receive = trio.open_memory_channel[int](math.inf)

    async def step(n: int) -> None:
        if checkpoint:
            await trio.lowlevel.checkpoint()
        send.send_nowait(n)

    with stopwatch:
        async with trio.open_nursery() as nursery:
            for n in range(width):
                nursery.start_soon(step, n)
            found = [await receive.receive() for _ in range(width)]
    expect(sorted(found), list(range(width)))


async def trio_many(stopwatch: Stopwatch, *, runs: int, steps: int, checkpoint: bool) -> None:
    """Time many concurrent runs."""
    found: list[int] = []

    async def one() -> None:
        found.append(await run_chain(steps, checkpoint=checkpoint))

    with stopwatch:
        async with trio.open_nursery() as nursery:
            for _ in range(runs):
                nursery.start_soon(one)
    expect(found, [steps] * runs)


@contextmanager
def database(url: str) -> Iterator[sa.Connection]:
    """Yield a connection to this database, and create the table.

    SQLite uses WAL and synchronous=FULL, as the engine does. A server keeps its settings.
    """
    engine = sa.create_engine(url)

    @sa.event.listens_for(engine, "connect")
    def set_pragmas(connection: Any, _record: Any) -> None:
        if engine.dialect.name == "sqlite":
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")

    metadata.create_all(engine)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def count_rows(connection: sa.Connection) -> int:
    """Return the number of stored steps."""
    with connection.begin():
        return int(connection.scalar(sa.select(sa.func.count()).select_from(journal)) or 0)


async def sql_one_by_one(stopwatch: Stopwatch, *, steps: int) -> None:
    """Time one INSERT and one COMMIT per step, with no thread and no event loop in between."""
    insert = sa.insert(journal)
    with database(stopwatch.url) as connection:
        with stopwatch:
            for seq in range(steps):
                row = {"run_id": "run", "seq": seq, "data": PAYLOAD}
                with connection.begin():
                    connection.execute(insert, row)  # noqa: ASYNC200
        expect(count_rows(connection), steps)


async def sql_by_hundreds(stopwatch: Stopwatch, *, steps: int) -> None:
    """Time one COMMIT per 100 rows. One `execute` gets them all and sends them the fastest way."""
    insert = sa.insert(journal)
    with database(stopwatch.url) as connection:
        with stopwatch:
            for start in range(0, steps, 100):
                rows = [
                    {"run_id": "run", "seq": start + i, "data": PAYLOAD}
                    for i in range(min(100, steps - start))
                ]
                with connection.begin():
                    connection.execute(insert, rows)  # noqa: ASYNC200
        expect(count_rows(connection), steps)


async def keep_busy() -> None:
    """Keep the event loop busy for 1 ms at a time, until cancelled."""
    while True:
        end = time.perf_counter() + 0.001
        while time.perf_counter() < end:
            sum(range(50))
        await trio.lowlevel.checkpoint()


def chain(steps: int, *, checkpoint: bool = False) -> Workload:
    """Return `trio_chain` with this many steps."""
    return partial(trio_chain, steps=steps, checkpoint=checkpoint)


def fan(width: int, *, checkpoint: bool = False) -> Workload:
    """Return `trio_fan` with this width."""
    return partial(trio_fan, width=width, checkpoint=checkpoint)


def many(runs: int, steps: int, *, checkpoint: bool = False) -> Workload:
    """Return `trio_many` with this many runs of this many steps each."""
    return partial(trio_many, runs=runs, steps=steps, checkpoint=checkpoint)
