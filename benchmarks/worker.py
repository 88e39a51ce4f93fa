"""Serve runs of two workflows until killed or drained: `python -m benchmarks.worker URL`.

SIGTERM drains it. It prints `ready PID` when it serves, and `started PID RUN SECONDS` for each step
of the workflow `held`. The seconds are those of the clock that all processes of a machine share.
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
    """A step that is pending."""

    n: int
    last: int


async def nap(n: int, last: int) -> Nap | StopEvent:
    """Wait, as if for a remote answer. Return the event after the `n`-th step of `last`."""
    await trio.sleep(NAP_SECONDS)
    return StopEvent({"steps": n, "by": os.getpid()}) if n == last else Nap(n + 1, last)


@step
async def first(ev: StartEvent) -> Nap | StopEvent:
    """Do the first step."""
    return await nap(1, ev.data)


@step
async def another(ev: Nap) -> Nap | StopEvent:
    """Do one of the other steps."""
    return await nap(ev.n, ev.last)


NAPS = Workflow("naps", [first, another])
"""A chain of steps that wait 10 ms each. Its input is their number.

The result is their number and the process that did the last one.
"""


def held(*, for_ever: bool) -> Workflow:
    """Return a workflow of one step, which reports its start and, with `for_ever`, never ends.

    The result is the process that did the step.
    """

    @step
    async def hold(_ev: StartEvent, ctx: Context) -> StopEvent:
        print("started", os.getpid(), ctx.run_id, time.monotonic(), flush=True)
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
    """Serve with the options on the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.worker", description=__doc__)
    parser.add_argument("url", help="the URL of a database that has the tables")
    parser.add_argument("--slots", type=int, default=1000, help="concurrent runs (default: 1000)")
    parser.add_argument("--lease-ttl", type=float, default=15.0, help="seconds (default: 15)")
    parser.add_argument("--hold", action="store_true", help="steps of 'held' never end")
    parser.add_argument("--boot", help="claim to be on a machine with this boot id")
    options = parser.parse_args()
    # The boot id identifies a machine. If a process claims another one, it can't be looked up here.
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
