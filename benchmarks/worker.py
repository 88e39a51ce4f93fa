"""A process that serves runs of two workflows: `python -m benchmarks.worker URL`, until it is killed, or drained by SIGTERM.

It prints a line `ready PID` when it serves, and `began PID RUN SECONDS` for each step of the workflow `held`, by the clock that
all processes of a machine share.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from contextlib import nullcontext
from unittest import mock

import attrs
import trio

from blazen_trio import (
    Context,
    Event,
    StartEvent,
    StopEvent,
    Workflow,
    open_runtime,
    open_store,
    step,
)
from blazen_trio._stores.sql import leases

NAP_SECONDS = 0.01


@attrs.frozen
class Nap(Event):
    """A step that is still to be done."""

    n: int
    last: int


async def nap(n: int, last: int) -> Nap | StopEvent:
    """Wait, as for an answer from somewhere; what follows the `n`-th step of `last`."""
    await trio.sleep(NAP_SECONDS)
    return StopEvent({"steps": n, "by": os.getpid()}) if n == last else Nap(n + 1, last)


@step
async def first(ev: StartEvent) -> Nap | StopEvent:
    """The first step."""
    return await nap(1, ev.data)


@step
async def another(ev: Nap) -> Nap | StopEvent:
    """Every other one."""
    return await nap(ev.n, ev.last)


NAPS = Workflow("naps", [first, another])
"""So many steps as its input says, each of which waits 10 ms. Results in their number, and the process that did the last."""


def held(*, for_ever: bool) -> Workflow:
    """One step, which tells when it began; here it ends, or never does. Results in the process that did it."""

    @step
    async def hold(_ev: StartEvent, ctx: Context) -> StopEvent:
        print("began", os.getpid(), ctx.run_id, time.monotonic(), flush=True)
        if for_ever:
            await trio.sleep_forever()
        return StopEvent({"by": os.getpid()})

    return Workflow("held", [hold], timeout=None)


async def serve(url: str, *, slots: int, lease_ttl: float, hold: bool) -> None:
    """Serve until SIGTERM."""
    async with (
        open_store(url, lease_ttl=lease_ttl) as store,
        open_runtime(store, [NAPS, held(for_ever=hold)], max_concurrent_runs=slots) as runtime,
        trio.open_nursery() as nursery,
    ):
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            nursery.start_soon(runtime.serve)
            print("ready", os.getpid(), flush=True)
            async for _ in signals:
                nursery.cancel_scope.cancel()
                break


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="benchmarks.worker", description=__doc__)
    parser.add_argument("url", help="a database that has the tables")
    parser.add_argument("--slots", type=int, default=1000, help="runs at once (default: 1000)")
    parser.add_argument("--lease-ttl", type=float, default=15.0, help="seconds (default: 15)")
    parser.add_argument("--hold", action="store_true", help="steps of 'held' never end")
    parser.add_argument("--boot", help="claim to be on a machine with this boot id")
    options = parser.parse_args()
    # A machine is told by the id of its boot: a process that claims another can't be looked for from here.
    elsewhere = (
        mock.patch.object(leases, "_boot", return_value=options.boot)
        if options.boot
        else nullcontext()
    )
    with elsewhere:
        trio.run(
            lambda: serve(
                options.url, slots=options.slots, lease_ttl=options.lease_ttl, hold=options.hold
            )
        )


if __name__ == "__main__":
    main()
