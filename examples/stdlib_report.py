"""Read the source files of Python's own standard library and report on them, durably.

    python examples/stdlib_report.py                                # show that kill -9 is harmless
    python examples/stdlib_report.py --db runs.db --run my-run      # start one run, and kill it
    python examples/stdlib_report.py --db runs.db --resume my-run   # resume it

Progress is kept in a SQLite file, with one commit per step. `stdlib_workflow.py` has the workflow
and `crash_demo.py` has the demonstration.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import trio
from crash_demo import Demo
from screen import follow, print_report
from stdlib_workflow import stdlib_report, survey

from blazen_trio import WorkflowError, open_store


async def run_once(options: argparse.Namespace) -> None:
    """Start or resume one run, by hand or as the child process of the demonstration."""
    async with open_store(f"sqlite:///{options.db}") as store:
        if options.resume:
            handle = stdlib_report.resume_from(options.resume, store=store)
        else:
            metadata = {"log": options.log} if options.log else {}
            handle = stdlib_report.run(
                survey(options.files), store=store, run_id=options.run, metadata=metadata
            )
        if options.quiet:
            await handle
        else:
            async with handle as run:
                found = await follow(run, f"run {run.run_id}")
            print_report(found)


def main() -> int:
    """Do what the command line asks for. Return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--db", help="the SQLite file to keep progress in (default: a temporary one)"
    )
    parser.add_argument(
        "--files", type=int, default=600, help="read at most this many files (default: 600)"
    )
    parser.add_argument(
        "--kills", type=int, default=5, help="how often to kill the run (default: 5)"
    )
    parser.add_argument("--seed", type=int, help="repeat the kills of the run with this seed")
    by_hand = parser.add_mutually_exclusive_group()
    by_hand.add_argument(
        "--run", metavar="RUN_ID", help="start a run with this id, without killing it"
    )
    by_hand.add_argument("--resume", metavar="RUN_ID", help="resume the run with this id")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    parser.add_argument("--log", help="append a line to this file for every step that starts")
    options = parser.parse_args()
    if options.files < 1 or options.kills < 1:
        parser.error("--files and --kills must be at least 1")
    if options.run or options.resume:
        if not options.db:
            parser.error("--run and --resume need --db FILE")
        try:
            trio.run(run_once, options)
        except WorkflowError as error:
            parser.exit(1, f"{error}\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="stdlib-report-") as folder:
        database = Path(options.db or Path(folder, "runs.db")).absolute()
        demo = Demo(database, Path(folder, "steps.log"), options.files, options.kills, options.seed)
        return 0 if trio.run(demo.show) else 1


if __name__ == "__main__":
    sys.exit(main())
