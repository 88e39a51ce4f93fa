"""Count slowly, durably: kill it whenever you like, and start it again.

python examples/store/count.py --folder runs --run count-1
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import attrs
import trio
from folder_store import open_folder

from blazen_trio import (
    Event,
    RunNotFoundError,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowError,
    step,
)


@attrs.frozen
class Number(Event):
    """A number to print."""

    n: int
    last: int
    pace: float


@step
async def begin(ev: StartEvent) -> Number:
    """Start with 1."""
    return Number(1, **ev.data)


@step
async def count(ev: Number) -> Number | StopEvent:
    """Print the number, and go to the next."""
    print(ev.n, flush=True)
    await trio.sleep(ev.pace)
    return attrs.evolve(ev, n=ev.n + 1) if ev.n < ev.last else StopEvent(f"counted to {ev.n}")


counting = Workflow("counting", [begin, count], history=True)


async def main(options: argparse.Namespace) -> None:
    """Start the run, or resume it, and print its result."""
    async with open_folder(Path(options.folder)) as store:
        try:
            result = await counting.resume_from(options.run, store=store)
        except RunNotFoundError:
            form = {"last": options.last, "pace": options.pace}
            result = await counting.run(form, store=store, run_id=options.run)
    print(result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", default="runs", help="the store (default: runs)")
    parser.add_argument(
        "--run", default="count-1", metavar="RUN_ID", help="the run to start or to resume"
    )
    parser.add_argument("--last", type=int, default=10, help="where to stop (default: 10)")
    parser.add_argument("--pace", type=float, default=0.5, help="seconds per number (default: 0.5)")
    try:
        trio.run(main, parser.parse_args())
    except WorkflowError as error:
        sys.exit(str(error))
