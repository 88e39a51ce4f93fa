"""`runs list`, `runs show` and `runs history`."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import json
from typing import Any

import pytest
import trio

from blazen_trio import InputRequiredError, StepFailedError, open_runtime, open_store
from blazen_trio._cli.exits import CONFIG, NOINPUT
from tests.cli.orders import SECRET, asking, failing, half
from tests.cli.terminal import Terminal


def submit(url: str, workflow: str, count: int) -> list[str]:
    """Queue runs, many of them with the same time."""

    async def main() -> list[str]:
        async with (
            open_store(url) as store,
            open_runtime(store) as runtime,
            trio.open_nursery() as nursery,
        ):
            for number in range(count):
                nursery.start_soon(
                    lambda n: runtime.submit(workflow, n, run_id=f"{workflow}-{n}"), number
                )
        async with open_store(url) as store:
            return [info.run_id for info in await store.list_runs(workflow=workflow, limit=1000)]

    return trio.run(main)


def drive(url: str, workflow: Any, value: Any, run_id: str, **more: Any) -> None:
    """Run a workflow until it ends or waits."""

    async def main() -> None:
        async with open_store(url) as store:
            with contextlib.suppress(InputRequiredError, StepFailedError):
                await workflow.run(value, run_id=run_id, store=store, **more)

    trio.run(main)


def pages(runs: Any, *arguments: str) -> list[list[str]]:
    """Return the ids on all pages."""
    found, after = [], []
    while True:
        page = json.loads(runs("list", "--json", *arguments, *after).stdout)
        found.append([run["run_id"] for run in page["runs"]])
        if page["next"] is None:
            return found
        assert page["next"] == found[-1][-1]
        after = ["--after", page["next"]]


def test_the_pages_of_a_list_contain_every_run_once(sqlite_url, runs):
    ids = submit(sqlite_url, "short", 25)
    found = pages(runs, "--limit", "10")
    assert [len(page) for page in found] == [10, 10, 5]
    assert [*itertools.chain(*found)] == ids
    assert pages(runs, "--limit", "25") == [ids]
    told = runs("list", "--limit", "10")
    assert told.stderr == f"there are more: --after={ids[9]}\n"
    assert [line.split()[0] for line in told.stdout.splitlines()] == ["ID", *ids[:10]]
    assert runs("list").stderr == ""


def test_a_list_can_be_filtered(sqlite_url, runs):
    queued = submit(sqlite_url, "short", 5)
    drive(sqlite_url, asking, "really?", "waits")
    drive(sqlite_url, failing, "no", "fails")
    assert pages(runs, "--status", "waiting") == [["waits"]]
    assert pages(runs, "--workflow", "failing", "--status", "failed") == [["fails"]]
    assert pages(runs, "--workflow", "failing", "--status", "waiting") == [[]]
    two = pages(runs, "--status", "queued", "--status", "failed", "--limit", "4")
    assert two == [queued[:4], [queued[4], "fails"]]
    assert pages(runs, "--status", "waiting", "--status", "failed", "--workflow", "asking") == [
        ["waits"]
    ]


def test_a_list_of_several_statuses_has_pages(sqlite_url, runs):
    queued = submit(sqlite_url, "short", 6)
    drive(sqlite_url, failing, "no", "fails")
    assert pages(runs, "--status", "failed", "--status", "completed") == [["fails"]]
    assert pages(runs, "--status", "failed", "--status", "queued", "--limit", "3") == [
        queued[:3],
        queued[3:],
        ["fails"],
    ]


def test_a_list_has_a_line_for_each_run(sqlite_url, runs):
    drive(sqlite_url, failing, "out of\ntea", "fails")
    [run] = json.loads(runs("list", "--json").stdout)["runs"]
    created, updated = (dt.datetime.fromisoformat(run.pop(name)) for name in ("created", "updated"))
    assert (
        dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)
        < created
        <= updated
        < dt.datetime.now(dt.UTC)
    )
    error = "step 'fail' of run 'fails' failed: RuntimeError: out of\ntea"
    assert run == {
        "run_id": "fails",
        "workflow": "failing",
        "version": "1",
        "status": "failed",
        "error": error,
    }
    heading, line = runs("list").stdout.splitlines()
    assert heading.split() == ["ID", "WORKFLOW", "VERSION", "STATUS", "CREATED", "UPDATED", "ERROR"]
    assert line.startswith(f"fails  failing   1        failed  {created:%Y-%m-%d %H:%M:%S}Z (")
    assert line.endswith(error.replace("\n", " "))


def test_show_prints_all_that_is_stored(sqlite_url, runs):
    drive(sqlite_url, half, None, "half-1", metadata={"who": "ann"})
    told = json.loads(runs("show", "half-1", "--json").stdout)
    assert (told["status"], told["result"], told["failure"], told["error"]) == (
        "waiting",
        None,
        None,
        None,
    )
    assert told["metadata"] == {"who": "ann"}
    assert told["state"] == {"large": "x" * 40_000, "set": {"$set": [1, 2]}}
    question = {
        "request_id": "two",
        "event_type": "InputRequestEvent",
        "prompt": "what is two squared?",
        "metadata": {},
    }
    assert told["questions"] == [question]
    squares = [one for one in told["collected"] if one["step"] == "total"]
    assert [one["event"] for one in squares][:2] == [
        {"event_type": "Square", "data": {"n": n}} for n in (0, 1)
    ]
    [fan_out] = told["fan_outs"]
    assert fan_out["joins"] == ["total"]
    assert {one["fan_out"] for one in squares} == {fan_out["id"]}
    text = runs("show", "half-1").stdout
    for part in (
        "half-1",
        "half (version 1)",
        "waiting",
        'who  "ann"',
        '{"$set": [1, 2]}',
        "what is two squared?",
    ):
        assert part in text
    assert "half collected" in text
    assert "blazen-trio runs respond --request-id=two -- half-1 JSON" in text
    assert "x" * 200 not in text
    assert "x" * 40_000 in runs("show", "half-1", "--full").stdout


def test_show_prints_pending_work(sqlite_url, runs):
    submit(sqlite_url, "asking", 1)
    told = json.loads(runs("show", "asking-0", "--json").stdout)
    assert [one["event"] for one in told["delayed"]] == [
        {"event_type": "StartEvent", "data": {"data": 0}}
    ]
    drive(sqlite_url, failing, "no", "fails")
    told = json.loads(runs("show", "fails", "--json").stdout)
    [delivery] = told["deliveries"]
    assert delivery["events"] == [{"event_type": "StartEvent", "data": {"data": "no"}}]
    assert (delivery["step"], delivery["attempt"], delivery["due"]) == ("fail", 1, None)
    told_in = told["failure"].pop("traceback")
    assert told_in.startswith("Traceback (most recent call last):")
    assert told_in.endswith("RuntimeError: no\n")
    assert told["failure"] == {
        "kind": "StepFailedError",
        "message": "step 'fail' of run 'fails' failed: RuntimeError: no",
        "step": "fail",
        "attempts": 1,
        "error_type": "RuntimeError",
        "details": [],
    }
    text = runs("show", "fails").stdout
    assert 'StartEvent {"data": "no"}' in text
    assert "\ntraceback\nTraceback (most recent call last):" in text
    assert "raise RuntimeError(str(ev.data))\n" in text


def test_show_prints_why_a_run_is_left_to_other_workers(sqlite_url, runs):
    async def leave() -> None:
        async with open_store(sqlite_url) as store, open_runtime(store) as runtime:
            await runtime.submit("asking", 1, run_id="r")
            stored = await store.claim("r")
            await store.release(stored.driver, reason="left to other workers: no class 'Fax'")

    trio.run(leave)
    for command in (["list"], ["show", "r"]):
        done = runs(*command)
        assert "left to other workers: no class 'Fax'" in " ".join(done.stdout.split())
        assert json.loads(runs(*command, "--json").stdout)


def test_a_traceback_is_shown_without_control_sequences_and_passwords(sqlite_url, runs):
    drive(sqlite_url, failing, "\x1b[2J postgresql://ann:secret@host/db", "fails")
    [_, told] = runs("show", "fails").stdout.split("\ntraceback\n")
    assert "RuntimeError: \\x1b[2J postgresql://ann:***@host/db\n" in told
    told = json.loads(runs("show", "fails", "--json").stdout)["failure"]["traceback"]
    assert told.endswith("RuntimeError: \x1b[2J postgresql://ann:***@host/db\n")


def test_long_lists_are_cut_but_not_in_json(sqlite_url, runs, monkeypatch):
    monkeypatch.setattr("blazen_trio._cli.runs.reading._ROWS", 1)
    drive(sqlite_url, half, None, "half-1", metadata={"who": "ann"})
    count = len(json.loads(runs("show", "half-1", "--json").stdout)["collected"])
    assert count >= 2
    assert f"and {count - 1} more: --full shows them" in runs("show", "half-1").stdout
    assert "more" not in runs("show", "half-1", "--full").stdout


def test_history_is_printed(sqlite_url, runs):
    drive(sqlite_url, asking, "really?", "waits")
    told = json.loads(runs("history", "waits", "--json").stdout)
    kinds = [record["kind"] for record in told["history"]]
    assert told["run_id"] == "waits"
    assert (kinds[0], kinds[-1]) == ("workflow_started", "workflow_paused")
    assert {"step_dispatched", "step_completed", "input_requested"} <= set(kinds)
    assert [record["sequence"] for record in told["history"]] == list(range(1, len(kinds) + 1))
    assert set(told["history"][0]) == {
        "sequence",
        "timestamp",
        "kind",
        "step",
        "event_type",
        "duration",
        "error",
    }
    lines = runs("history", "waits").stdout.splitlines()[1:]
    assert [line.split()[3] for line in lines] == kinds
    assert (
        json.loads(runs("history", "waits", "--json", "--last", "2").stdout)["history"]
        == told["history"][-2:]
    )


# Passwords and control sequences


@pytest.mark.parametrize(
    "command", [["list"], ["show", "fails"], ["history", "fails"], ["watch", "fails"]]
)
@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_passwords_in_stored_errors_are_hidden(sqlite_url, runs, command, as_json):
    drive(sqlite_url, failing, SECRET, "fails")
    done = runs(*command, *as_json)
    assert "postgresql://ann:***@h/d" in done.output
    assert "sesame" not in done.output.replace(json.dumps({"data": SECRET}), "")


def test_stored_text_is_printed_without_control_sequences(sqlite_url, runs):
    evil = "\x1b[2J[red]tea\x07\u202e\x9b1m:tea:"
    drive(sqlite_url, asking, evil, "waits")
    drive(sqlite_url, failing, evil, "fails")
    for command in (
        ["list"],
        ["show", "waits"],
        ["show", "fails"],
        ["history", "fails"],
        ["watch", "fails"],
    ):
        output = runs(*command).output
        assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(output)
        assert command == ["list"] or r"\x1b[2J[red]tea\x07\u202e\x9b1m:tea:" in output
    assert json.loads(runs("show", "waits", "--json").stdout)["questions"][0]["prompt"] == evil


# Missing runs and databases


@pytest.mark.parametrize(
    "command",
    [
        ["show"],
        ["history"],
        ["watch"],
        ["pause"],
        ["cancel"],
        ["delete", "-y"],
        ["export"],
        ["send", "-"],
    ],
)
def test_a_missing_run_is_reported(sqlite_url, runs, command):
    submit(sqlite_url, "short", 1)
    arguments = [command[0], "nobody", *(["Paid"] if command[0] == "send" else command[1:])]
    done = runs(*arguments)
    assert (done.exit_code, done.stdout) == (NOINPUT, "")
    assert done.stderr == (
        "blazen-trio: run 'nobody' not found; `blazen-trio runs list` shows the stored runs\n"
    )


def test_an_unknown_cursor_is_refused(sqlite_url, runs):
    submit(sqlite_url, "short", 1)
    done = runs("list", "--after", "nobody", "--json")
    assert done.exit_code == NOINPUT
    assert json.loads(done.stderr)["exit_code"] == NOINPUT


@pytest.mark.parametrize(
    "command", [["list"], ["show", "x"], ["cancel", "x"], ["purge", "--older-than", "1d", "-y"]]
)
def test_a_missing_database_is_not_created(tmp_path, sqlite_url, runs, command):
    done = runs(*command)
    assert (done.exit_code, done.stdout) == (CONFIG, "")
    assert "the schema is missing" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_output_at_a_terminal_has_colours(sqlite_url):
    submit(sqlite_url, "short", 1)
    with Terminal(sqlite_url, "runs", "list") as terminal:
        assert terminal.ends() == 0
        assert "\x1b[36mqueued\x1b[0m" in terminal.screen
    with Terminal(sqlite_url, "runs", "list", environment={"NO_COLOR": "1"}) as terminal:
        assert terminal.ends() == 0
        assert "\x1b[36m" not in terminal.screen
        assert "queued" in terminal.screen
