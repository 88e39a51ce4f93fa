"""`runs watch` until the end of a run, and `runs resume` until its end or wait."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.cli.conftest import PATIENCE, until
from tests.cli.flows import noted
from tests.cli.orders import SECRET
from tests.cli.terminal import Terminal, start

FLOWS = "tests.cli.orders"


def lines_of(
    process: subprocess.Popen[str], until_status: str | None = None
) -> list[dict[str, Any]]:
    """Return the JSON lines of a process up to a status, or to its end."""
    assert process.stdout is not None
    found = []
    for line in process.stdout:
        found.append(json.loads(line))
        if until_status is not None and found[-1].get("status") == until_status:
            break
    return found


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return the exit code of a process and its output on stderr."""
    _, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, errors


# Watching


def test_watch_prints_each_change_and_the_end(sqlite_url, runs):
    runs("submit", "asking", '"sure?"', "--run-id", "a")
    watch = start(sqlite_url, "runs", "watch", "a", "--json", "--interval", "0.05")
    lines = lines_of(watch, "queued")
    runs("resume", "a", f"{FLOWS}:asking")
    lines += lines_of(watch, "waiting")
    assert [one["request_id"] for one in lines[-1]["questions"]] == ["ok"]
    runs("respond", "a", "true", "--event-type", "Approval")
    runs("resume", "a", f"{FLOWS}:asking")
    lines += lines_of(watch)
    assert finish(watch) == (0, "")
    statuses = [line for line in lines if line["type"] == "status"]
    assert statuses[-1]["status"] == "completed"
    assert all(one != other for one, other in itertools.pairwise(statuses))
    records = [{**line} for line in lines if line["type"] == "record"]
    assert all(record.pop("type") for record in records)
    assert records == json.loads(runs("history", "a", "--json").stdout)["history"]


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [("true", "completed", 0), ('"explode"', "failed", 1), (None, "cancelled", 4)],
)
def test_the_exit_code_of_watch_depends_on_the_runs_end(runs, answer, status, code):
    runs("submit", "asking", "--run-id", "a")
    runs("resume", "a", f"{FLOWS}:asking")
    if answer is None:
        runs("cancel", "a")
    else:
        runs("respond", "a", answer, "--event-type", "Approval")
        resumed = runs("resume", "a", f"{FLOWS}:asking", traceback=status == "failed")
        assert resumed.exit_code == code
    watched = runs("watch", "a")
    assert watched.exit_code == code
    assert f"  {status}  entry " in watched.stdout
    assert json.loads(runs("watch", "a", "--json").stdout.splitlines()[-1])["status"] == status


def test_a_signal_ends_watch(sqlite_url, runs):
    runs("submit", "asking", "--run-id", "a")
    watch = start(sqlite_url, "runs", "watch", "a", "--json")
    lines_of(watch, "queued")
    watch.send_signal(signal.SIGINT)
    assert finish(watch) == (130, "")


def test_watch_ends_if_its_run_is_deleted(sqlite_url, runs):
    runs("submit", "asking", "--run-id", "a")
    watch = start(sqlite_url, "runs", "watch", "a", "--json", "--interval", "0.05")
    lines_of(watch, "queued")
    runs("delete", "a", "-y")
    code, errors = finish(watch)
    assert (code, json.loads(errors)["exit_code"]) == (66, 66)


def test_a_closed_pipe_is_not_an_error(sqlite_url, runs):
    runs("submit", "asking", "--run-id", "a")
    watch = start(sqlite_url, "runs", "watch", "a", "--json", "--interval", "0.05")
    lines_of(watch, "queued")
    watch.stdout.close()
    runs("resume", "a", f"{FLOWS}:asking")
    assert watch.wait(PATIENCE) == 1
    assert watch.stderr.read() == ""
    watch.stderr.close()


def test_a_full_disk_is_not_reported_as_a_bug(sqlite_url, runs):
    runs("submit", "asking", "--run-id", "a")
    with Path("/dev/full").open("w") as full:
        show = start(sqlite_url, "runs", "show", "a", stdout=full)
        assert show.wait(PATIENCE) == 75
    assert (
        show.stderr.read() == "blazen-trio: the output can't be written: No space left on device\n"
    )
    show.stderr.close()


def test_watch_prints_lines_at_a_terminal(sqlite_url, runs):
    runs("submit", "asking", '"sure?"', "--run-id", "a")
    with Terminal(sqlite_url, "runs", "watch", "a", "--interval", "0.05") as terminal:
        terminal.shows("queued")
        runs("resume", "a", f"{FLOWS}:asking")
        terminal.shows("asks: sure?")
        runs("respond", "a", "[7]", "--event-type", "Approval")
        runs("resume", "a", f"{FLOWS}:asking")
        assert terminal.ends() == 0
        assert "completed" in terminal.screen
        assert terminal.screen.rstrip().endswith("[7]")


# Resuming


def test_resume_prints_the_outcome(runs):
    runs("submit", "asking", '"sure?"', "--run-id", "a")
    resting = runs("resume", "a", f"{FLOWS}:asking")
    assert resting.exit_code == 5
    for part in (
        "run a of asking: waiting",
        "sure?",
        "choices     true, false",
        "runs respond --request-id=ok -- a JSON",
    ):
        assert part in resting.stdout
    runs("respond", "a", '{"sold": [1]}', "--event-type", "Approval")
    done = runs("resume", "a", f"{FLOWS}:asking")
    assert (done.exit_code, done.stdout) == (
        0,
        'run a of asking: completed\n\nresult\n{"sold": [1]}\n',
    )
    # Recorded, and not done again.
    again = json.loads(runs("resume", "a", f"{FLOWS}:asking", "--json").stdout)
    assert (again["status"], again["result"]) == ("completed", {"sold": [1]})


def test_resume_prints_the_traceback_of_the_failed_step(runs):
    runs("submit", "asking", "--run-id", "a")
    runs("resume", "a", f"{FLOWS}:asking")
    runs("respond", "a", '"explode"', "--event-type", "Approval")
    failed = runs("resume", "a", f"{FLOWS}:asking", traceback=True)
    assert failed.exit_code == 1
    assert "Traceback" not in failed.stdout
    assert "RuntimeError: can't connect to postgresql://ann:***@h/d" in failed.stdout
    assert 'raise RuntimeError(f"can\'t connect to {SECRET}")' in failed.stderr
    assert "sesame" not in failed.output
    # Tried again, it fails again: its answer is undone still.
    again = runs("resume", "a", f"{FLOWS}:asking", "--json", traceback=True)
    assert (again.exit_code, json.loads(again.stdout)["failure"]["error_type"]) == (
        1,
        "RuntimeError",
    )


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["plain", "json"])
def test_the_log_has_no_passwords_and_no_control_sequences(sqlite_url, runs, as_json):
    runs("submit", "failing", json.dumps(f"\x1b[31mred {SECRET}"), "--run-id", "a")
    # A process: pytest has handlers of its own for what is logged in its.
    code, errors = finish(start(sqlite_url, "runs", "resume", "a", f"{FLOWS}:failing", *as_json))
    assert code == 1
    assert "run 'a': workflow failed: step 'fail' of run 'a' failed: RuntimeError: " in errors
    assert "postgresql://ann:***@h/d" in errors
    assert "sesame" not in errors
    assert "\x1b" not in errors
    if as_json:
        [line] = errors.splitlines()
        told = json.loads(line)
        assert (told["level"], told["logger"], told["run_id"]) == ("error", "blazen_trio", "a")
        assert told["exception"].startswith("Traceback")
    else:
        assert errors.startswith("blazen-trio: run 'a': workflow failed")
        assert r"RuntimeError: \x1b[31mred postgresql" in errors


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["plain", "json"])
def test_resume_prints_the_time_that_a_run_waits_for(sqlite_url, runs, as_json):
    runs("submit", "later", "--run-id", "a")
    for _ in range(2):  # it comes to wait; and it waits already
        resuming = start(sqlite_url, "runs", "resume", "a", f"{FLOWS}:later", *as_json)
        told = resuming.stderr.readline()
        resuming.send_signal(signal.SIGINT)
        assert finish(resuming) == (130, "")
        [delayed] = json.loads(runs("show", "a", "--json").stdout)["delayed"]
        if as_json:
            line = json.loads(told)
            assert (line["event"], line["run_id"], line["until"]) == (
                "waiting",
                "a",
                delayed["due"],
            )
        else:
            due = delayed["due"][:19].replace("T", " ")
            assert told.startswith(
                f"blazen-trio: run a waits until {due}Z; Ctrl-C leaves it to be resumed"
            )


def test_resume_refuses_a_run_whose_input_the_workflow_does_not_accept(runs):
    runs("submit", "paying", "--run-id", "a")
    assert runs("pause", "a").exit_code == 0
    wrong = runs("resume", "a", f"{FLOWS}:paying", traceback=True)
    assert wrong.exit_code == 1
    assert "workflow 'paying' can't start with StartEvent: it starts with Order" in wrong.stdout


def test_a_killed_run_resumes(tmp_path, sqlite_url, runs):
    runs("submit", "gated", json.dumps(str(tmp_path)), "--run-id", "g")
    resuming = ["runs", "resume", "g", "tests.cli.flows:gated", "--json"]
    first = start(sqlite_url, *resuming)
    trio.run(until, lambda: noted(tmp_path))
    first.kill()
    assert finish(first) == (-signal.SIGKILL, "")
    (tmp_path / "open").touch()
    second = start(sqlite_url, *resuming)
    [run] = lines_of(second)
    assert finish(second) == (0, "")
    # The step that was killed ran twice, and its effect on the run is there once.
    assert (run["status"], run["result"]) == ("completed", 1)
    assert [name for name, _ in noted(tmp_path)] == ["gate", "gate", "passed"]


def test_an_interrupted_run_keeps_its_status(tmp_path, sqlite_url, runs):
    runs("submit", "gated", json.dumps(str(tmp_path)), "--run-id", "g")
    resuming = start(sqlite_url, "runs", "resume", "g", "tests.cli.flows:gated")
    trio.run(until, lambda: noted(tmp_path))
    resuming.send_signal(signal.SIGINT)
    assert finish(resuming) == (130, "")
    assert json.loads(runs("show", "g", "--json").stdout)["status"] == "running"
    (tmp_path / "open").touch()
    assert json.loads(runs("resume", "g", "tests.cli.flows:gated", "--json").stdout)["result"] == 1


def test_questions_are_asked_at_a_terminal(sqlite_url, runs):
    runs("submit", "twice", "--run-id", "a")
    with Terminal(sqlite_url, "runs", "resume", "a", f"{FLOWS}:twice") as terminal:
        terminal.shows("? (JSON): ")  # the one or the other
        terminal.types("tea\n")
        terminal.shows("is not valid JSON")
        terminal.shows("? (JSON): ", times=2)
        terminal.types("[1]\n")
        terminal.shows("? (JSON): ", times=3)
        # Answers that reach the disk together may come to their step in either order.
        while len(json.loads(runs("show", "a", "--json").stdout)["questions"]) == 2:
            pass
        terminal.types('"tea"\n')
        assert terminal.ends() == 0
    assert json.loads(runs("show", "a", "--json").stdout)["result"] == [[1], "tea"]


def test_answers_at_a_terminal_may_be_plain_text_or_empty(sqlite_url, runs):
    runs("submit", "twice", "--run-id", "a")
    with Terminal(sqlite_url, "runs", "resume", "a", f"{FLOWS}:twice", "--text") as terminal:
        terminal.shows("?: ")
        terminal.types("[1]\n")
        terminal.shows("?: ", times=2)
        terminal.types("\x04")
        assert terminal.ends() == 5
    run = json.loads(runs("show", "a", "--json").stdout)
    assert run["state"] == {"answers": ["[1]"]}
    assert len(run["questions"]) == 1
    with Terminal(sqlite_url, "runs", "resume", "a", f"{FLOWS}:twice") as terminal:
        terminal.shows("? (JSON): ")
        terminal.types("\x03")
        assert terminal.ends() == 130
        assert "Traceback" not in terminal.screen
    runs("respond", "a", "2")
    assert runs("resume", "a", f"{FLOWS}:twice", "--json").exit_code == 0


def test_an_invalid_answer_is_asked_for_again(sqlite_url, runs):
    runs("submit", "choosy", "--run-id", "a")
    with Terminal(sqlite_url, "runs", "resume", "a", f"{FLOWS}:choosy") as terminal:
        terminal.shows("None (JSON)")
        terminal.types("true\n")
        # It can't be told which of the two types is meant; the run is not failed by that.
        terminal.shows("accepts answers of the types Approval, Refusal")
        assert terminal.ends() == 5
    runs("submit", "asking", "--run-id", "b")
    with Terminal(sqlite_url, "runs", "resume", "b", f"{FLOWS}:asking") as terminal:
        terminal.shows("None (JSON)")
        terminal.types('{"$date": "tea"}\n')
        terminal.shows("is not a stored date")
        terminal.types('{"$date": "2026-01-02"}\n')
        assert terminal.ends() == 0
    assert json.loads(runs("show", "b", "--json").stdout)["result"] == {"$date": "2026-01-02"}
