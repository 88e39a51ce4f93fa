# mypy: ignore-errors
# ruff: noqa: D103  # a program for another environment
"""The workloads on DBOS. By default, it records each step's result in its system database."""

import asyncio
import logging

from dbos import DBOS

from benchmarks.peers.program import Size, Timer, UnsupportedError, expect, main


@DBOS.step()
async def tick(n: int) -> int:
    return n + 1


@DBOS.workflow()
async def chain(last: int) -> int:
    n = 0
    while n < last:
        n = await tick(n)
    return n


async def durable(size: Size) -> float:
    with Timer() as timer:
        handles = [await DBOS.start_workflow_async(chain, size.steps) for _ in range(size.runs)]
        found = await asyncio.gather(*(handle.get_result() for handle in handles))
    expect(found, [size.steps] * size.runs)
    return timer.seconds


def launched(size: Size) -> float:
    DBOS(
        config={
            "name": "benchmark",
            "system_database_url": size.plain_url,
            "run_admin_server": False,
            "log_level": "ERROR",
        }
    )
    logging.disable(logging.CRITICAL)
    DBOS.launch()
    try:
        return asyncio.run(durable(size))
    finally:
        DBOS.destroy()


def in_memory(_size: Size) -> float:
    raise UnsupportedError("it always records workflows in a database")


if __name__ == "__main__":
    main(
        {
            "chain": in_memory,
            "many": in_memory,
            "fan": in_memory,
            "durable-chain": launched,
            "durable-many": launched,
        }
    )
