"""The agent: concurrent tools, approval, retries, and a process that is killed at bad moments."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from blazen_trio import InputRequiredError, MemoryStore

PROGRAM = Path(__file__).parents[2] / "examples" / "agent" / "assistant.py"


@pytest.fixture
def agent(example):
    return example("agent", "agent")


@pytest.fixture
def model(example):
    return example("agent", "model")


@pytest.fixture
def make(agent, model):
    """Return a function that makes an agent whose model calls tools, then repeats their results."""

    def make_agent(tools, *calls, outages=0):
        wanted = [model.ToolCall(f"call-{n}", tool, {}) for n, tool in enumerate(calls)]
        script = [model.Message("assistant", "", wanted), repeat_results(model)]
        return agent.Agent(model.ScriptedModel(script, outages=outages), tools).workflow

    return make_agent


def repeat_results(model):
    return lambda messages: model.Message(
        "assistant", " ".join(one.text for one in messages if one.role == "tool")
    )


async def test_tools_run_concurrently_and_answer_in_the_order_of_the_calls(
    agent, make, autojump_clock
):
    in_use = []
    all_in = trio.Event()

    async def slow(arguments, key):
        in_use.append(key)
        place = len(in_use)
        if place == 3:
            all_in.set()
        await all_in.wait()  # would wait for ever if the tools ran one after the other
        await trio.sleep(30 - place)  # the last one finishes first
        return f"<{place}>"

    tools = [agent.Tool("slow", slow)]

    assert await make(tools, "slow", "slow", "slow").run("go") == "<1> <2> <3>"
    assert len(set(in_use)) == 3


@pytest.mark.parametrize(
    ("response", "used", "text"),
    [
        (True, 1, "boom"),
        (False, 0, "The user did not allow this."),
        ("no", 0, "The user did not allow this."),
    ],
)
async def test_a_dangerous_tool_waits_for_approval(agent, make, response, used, text):
    uses = []

    async def explode(arguments, key):
        uses.append(key)
        return "boom"

    async def check(arguments, key):
        return "fine"

    tools = [agent.Tool("explode", explode, dangerous=True), agent.Tool("check", check)]
    async with make(tools, "explode", "check").run("go", store=MemoryStore()) as run:
        with pytest.raises(InputRequiredError) as parked:
            await run.result()
        assert not uses
        assert isinstance(parked.value.request, agent.Approval)
        await run.respond(agent.Decision(parked.value.request.request_id, response))
        assert await run.result() == f"{text} fine"
    assert len(uses) == used


async def test_a_failed_request_is_retried_and_the_reply_is_added_once(
    agent, model, autojump_clock
):
    roles = []

    def reply(messages):
        roles.extend(message.role for message in messages)
        return model.Message("assistant", "done")

    script = [model.Message("assistant", "wait", [model.ToolCall("1", "none", {})]), reply]
    flaky = agent.Agent(model.ScriptedModel(script, outages=5), []).workflow

    assert await flaky.run("go", store=MemoryStore()) == "done"
    assert roles == ["user", "assistant", "tool"]


async def test_failures_of_tools_are_reported_to_the_model(agent, make, autojump_clock):
    attempts = []

    async def broken(arguments, key):
        msg = "no such city"
        raise ValueError(msg)

    async def away(arguments, key):
        attempts.append(key)
        msg = "closed"
        raise agent.ToolUnavailableError(msg)

    tools = [agent.Tool("broken", broken), agent.Tool("away", away)]
    text = await make(tools, "broken", "unknown", "away").run("go")

    assert "no such city" in text
    assert "There is no tool 'unknown'. The tools are away, broken." in text
    assert "closed" in text
    assert len(attempts) == 4  # all with the same key
    assert len(set(attempts)) == 1


async def test_a_model_that_never_stops_is_stopped(agent, model):
    again = model.Message("assistant", "hm", [model.ToolCall("1", "none", {})])
    endless = agent.Agent(model.ScriptedModel([again] * 100), []).workflow

    assert await endless.run("go") == "I did not finish in 20 turns."


class Terminal:
    """The program, run as in a terminal."""

    def __init__(self, folder, *options):
        command = [
            sys.executable,
            "-W",
            "error",
            PROGRAM,
            "--db",
            "agent.db",
            "--run",
            "trip",
            *options,
        ]
        self._process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        self.lines = []

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self._process.kill()
        self._process.communicate()

    def read_until(self, *parts):
        """Read lines until each of these parts was in one."""
        missing = set(parts)
        for line in self._process.stdout:
            self.lines.append(line)
            missing -= {part for part in missing if part in line}
            if not missing:
                return
        pytest.fail(f"the program ended without {missing}: {self.lines}")

    def wait(self):
        self.lines += self._process.stdout.readlines()
        return self._process.wait()


def bookings(folder):
    with contextlib.closing(sqlite3.connect(folder / "agent.bookings")) as service:
        try:
            return [what for (what,) in service.execute("SELECT what FROM booking ORDER BY rowid")]
        except sqlite3.OperationalError:  # no such table: there are no bookings yet
            return []


def test_an_agent_killed_while_it_waits_and_while_it_books_books_once(tmp_path):
    with Terminal(tmp_path, "--pace", "0", "--outages", "1") as waiting:
        waiting.read_until("--approve flight", "--approve hotel")
    assert bookings(tmp_path) == []

    with Terminal(tmp_path, "--approve", "flight") as person:  # while no process drives the run
        assert person.wait() == 0

    with Terminal(tmp_path, "--pace", "1000") as booking:
        booking.read_until("using book_flight", "--approve hotel")
        while not bookings(tmp_path):
            time.sleep(0.01)

    with Terminal(tmp_path, "--approve", "hotel") as person:
        assert person.wait() == 0

    with Terminal(tmp_path, "--pace", "0") as last:
        assert last.wait() == 0
    assert any("using book_flight" in line for line in last.lines)  # again, with the same key
    assert not any("using weather" in line for line in last.lines)
    assert last.lines[-1].startswith(
        "result: Flight: Booked TP 571 to Lisbon, number 1. Hotel: Booked three nights"
    )
    assert bookings(tmp_path) == ["TP 571 to Lisbon", "three nights in Alfama"]


def test_a_second_process_answers_for_one_that_waits(tmp_path):
    with Terminal(tmp_path, "--pace", "0") as waiting:
        waiting.read_until("--approve flight", "--approve hotel")
        with Terminal(tmp_path, "--refuse", "flight", "--refuse", "hotel") as person:
            assert person.wait() == 0
        assert waiting.wait() == 0
    assert "did not allow" in waiting.lines[-1]
    assert bookings(tmp_path) == []

    with Terminal(tmp_path, "--approve", "flight") as late:
        assert late.wait() == 1
