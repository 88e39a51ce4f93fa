"""The program of this engine, as one of the peers."""

from __future__ import annotations

import trio

from benchmarks import workloads
from benchmarks.harness import Stopwatch, Workload
from benchmarks.peers.program import Size, main


def timed(workload: Workload, url: str = "") -> float:
    """Return the seconds that a workload takes."""
    stopwatch = Stopwatch(url)
    trio.run(workload, stopwatch)
    return stopwatch.seconds


def durable_chain(size: Size) -> float:
    """Time one run in which each step is durable before the next one starts."""

    async def work(stopwatch: Stopwatch) -> None:
        await workloads.durable_chain(stopwatch, steps=size.steps)

    return timed(work, size.url)


def durable_many(size: Size) -> float:
    """Time many concurrent runs in which each step is durable before the next one of its run."""

    async def work(stopwatch: Stopwatch) -> None:
        await workloads.durable_many(stopwatch, runs=size.runs, steps=size.steps)

    return timed(work, size.url)


if __name__ == "__main__":
    main(
        {
            "chain": lambda size: timed(workloads.chain(size.steps)),
            "fan": lambda size: timed(workloads.fan(size.steps)),
            "many": lambda size: timed(workloads.many(size.runs, size.steps)),
            "durable-chain": durable_chain,
            "durable-many": durable_many,
        }
    )
