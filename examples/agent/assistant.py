"""A durable travel agent in the terminal: kill it at any time, and start it again.

Start or resume the run:

    python examples/agent/assistant.py --db agent.db --run trip

In another terminal, or later:

    python examples/agent/assistant.py --db agent.db --run trip --approve flight --refuse hotel
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import trio
from agent import Acting, Agent, Approval, Decision, Said
from model import ScriptedModel
from travel import SCRIPT, TravelDesk

from blazen_trio import (
    InputRequestEvent,
    Run,
    RunNotFoundError,
    Runtime,
    WorkflowError,
    open_runtime,
    open_store,
)

QUESTION = "Find me three sunny days in Lisbon or Porto, and book them."


async def converse(runtime: Runtime, agent: Agent, run_id: str) -> None:
    """Start or resume the run, and print what happens until it ends.

    The run waits until its questions are answered. Another process does so, through the database.
    """
    try:
        run = await runtime.resume_from(run_id)
    except RunNotFoundError:
        run = await runtime.start(agent.workflow, QUESTION, run_id=run_id)
    await show(run)
    print(f"result: {await run.result()}")


async def show(run: Run) -> None:
    """Print a run's published events.

    Questions that were open before are not in the stream, so they are printed first.
    """
    events = run.stream()
    for question in run.input_requests:
        print_question(question)
    async for event in events:
        match event:
            case Said(message):
                print(f"{message.role}: {message.text}", flush=True)
            case Acting(call):
                print(f"  using {call.tool} {call.arguments}", flush=True)
            case Approval():
                print_question(event)


def print_question(question: InputRequestEvent) -> None:
    """Print a question, and the options that answer it."""
    name = question.request_id
    print(
        f"  {question.prompt} {question.metadata}  (--approve {name} or --refuse {name})",
        flush=True,
    )


async def main(options: argparse.Namespace) -> None:
    """Answer questions if the options say so, else run the conversation."""
    desk = TravelDesk(Path(options.db).with_suffix(".bookings"), options.pace)
    agent = Agent(ScriptedModel(SCRIPT, options.pace, options.outages), desk.tools)
    async with (
        open_store(f"sqlite:///{options.db}") as store,
        open_runtime(store, [agent.workflow]) as runtime,
    ):
        answers = [Decision(name, True) for name in options.approve] + [
            Decision(name, False) for name in options.refuse
        ]
        for answer in answers:
            # The answer is durable once this returns. If no process drives the run now, the next
            # driver finds it.
            await runtime.respond(options.run, answer)
            print(f"{answer.request_id}: {'approved' if answer.response else 'refused'}")
        if not answers:
            await converse(runtime, agent, options.run)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--db", default="agent.db", help="the SQLite file to keep runs in (default: agent.db)"
    )
    parser.add_argument(
        "--run", default="trip", metavar="RUN_ID", help="the run to start or resume"
    )
    parser.add_argument(
        "--approve",
        action="append",
        default=[],
        metavar="CALL",
        help="approve a call; may be repeated",
    )
    parser.add_argument(
        "--refuse",
        action="append",
        default=[],
        metavar="CALL",
        help="refuse a call; may be repeated",
    )
    parser.add_argument(
        "--pace", type=float, default=1.0, help="seconds per reply and per tool (default: 1)"
    )
    parser.add_argument(
        "--outages", type=int, default=0, help="number of requests to the model that fail first"
    )
    try:
        trio.run(main, parser.parse_args())
    except WorkflowError as error:
        sys.exit(str(error))
