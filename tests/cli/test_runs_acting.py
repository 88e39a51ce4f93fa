"""Commands that act on runs: submit, send, respond, pause, cancel, delete and purge."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import trio

from blazen_trio import RunStatus, open_store
from blazen_trio._cli.exits import CONFIG, DATAERR, REFUSED, USAGE
from tests.cli.conftest import until
from tests.cli.flows import gated, noted
from tests.cli.terminal import Terminal
from tests.databases import KINDS, execute, fresh_database

FLOWS = "tests.cli.orders"


def shown(runs: Any, run_id: str) -> dict[str, Any]:
    return json.loads(runs("show", run_id, "--json").stdout)


def resumed(runs: Any, run_id: str, flow: str) -> dict[str, Any]:
    return json.loads(runs("resume", run_id, f"{FLOWS}:{flow}", "--json").stdout)


# Queueing


def test_submit_queues_a_run(runs):
    done = runs(
        "submit",
        "asking",
        '{"at": {"$date": "2026-01-02"}}',
        "--run-id",
        "a",
        "--metadata",
        '{"who": "ann"}',
    )
    assert (done.exit_code, done.output) == (0, "a\n")
    run = shown(runs, "a")
    assert (run["workflow"], run["status"], run["metadata"]) == ("asking", "queued", {"who": "ann"})
    # The input is the value that its notation stands for.
    assert (
        resumed(runs, "a", "asking")["questions"][0]["prompt"]
        == "{'at': datetime.date(2026, 1, 2)}"
    )
    new = json.loads(runs("submit", "asking", "--json").stdout)["run_id"]
    assert shown(runs, new)["status"] == "queued"
    again = runs("submit", "asking", "--run-id", "a")
    assert (again.exit_code, again.stdout) == (REFUSED, "")
    assert "run 'a' already exists" in again.stderr


def test_submit_takes_a_typed_start_event(runs):
    runs(
        "submit",
        "paying",
        '{"data": null, "what": "tea"}',
        "--event-type",
        "Order",
        "--run-id",
        "a",
    )
    assert resumed(runs, "a", "paying")["status"] == "waiting"
    assert shown(runs, "a")["state"] == {
        "order": "tea",
        "at": {"$datetime": "2026-01-02T03:04:05+00:00"},
    }


def test_submit_checks_the_input_against_the_workflow(runs):
    check = ["--workflow", f"{FLOWS}:paying"]
    runs("submit", "paying", '{"what": "tea"}', "--event-type", "Order", "--run-id", "a", *check)
    assert shown(runs, "a")["version"] == "1"  # known from the start
    assert resumed(runs, "a", "paying")["status"] == "waiting"
    for arguments, code in ((["paying", "1"], REFUSED), (["other", "1"], USAGE)):
        assert runs("submit", *arguments, *check).exit_code == code


# Events


@pytest.fixture
def paying(runs: Any) -> str:
    """Return a run that waits for its payment."""
    runs(
        "submit",
        "paying",
        '{"data": null, "what": "tea"}',
        "--event-type",
        "Order",
        "--run-id",
        "p",
    )
    assert resumed(runs, "p", "paying")["status"] == "waiting"
    return "p"


@pytest.mark.parametrize(
    ("fields", "check"),
    [
        ('{"amount": 3, "currency": "EUR", "tags": []}', []),
        ('{"amount": 3}', ["--workflow", f"{FLOWS}:paying"]),
    ],
    ids=["unchecked", "checked"],
)
def test_send_delivers_an_event(runs, paying, fields, check):
    sent = runs("send", paying, "Paid", fields, "--key", "k", *check)
    assert (sent.exit_code, sent.output) == (0, "sent Paid to run p\n")
    again = runs("send", paying, "Paid", fields, "--key", "k", "--json", *check)
    assert json.loads(again.stdout) == {
        "run_id": "p",
        "event_type": "Paid",
        "key": "k",
        "sent": False,
    }
    assert again.exit_code == 0
    assert "1 not taken yet" in runs("show", paying).stdout
    run = resumed(runs, paying, "paying")
    assert run["result"] == {
        "event_type": "Sold",
        "data": {"result": None, "what": "tea for 3 EUR"},
    }
    late = runs("send", paying, "Paid", fields, *check)
    assert late.exit_code == REFUSED
    assert "has ended (completed)" in late.stderr


def test_send_delivers_an_event_later(runs, paying):
    runs("send", paying, "Paid", '{"amount": 3}', "--delay", "0.2", "--workflow", f"{FLOWS}:paying")
    assert resumed(runs, paying, "paying")["status"] == "completed"


@pytest.mark.parametrize(
    ("event", "code", "message"),
    [
        (["Payed", '{"amount": 3}'], CONFIG, "no event of type 'Payed'; it has .*Paid"),
        (["Paid", '{"amount": "three"}'], DATAERR, "amount"),
        (["Paid", '{"sum": 3}'], DATAERR, "missing: amount; unknown: 'sum'"),
        (["Sold", '{"what": "tea"}'], REFUSED, "no step of workflow 'paying' accepts Sold"),
    ],
)
def test_an_event_is_checked_against_its_workflow(runs, paying, event, code, message):
    done = runs("send", paying, *event, "--workflow", f"{FLOWS}:paying")
    assert (done.exit_code, done.stdout) == (code, "")
    assert re.search(message, done.stderr)
    assert shown(runs, paying)["inbox"] == 0


# Answers


def ask(runs: Any, workflow: str, value: str = '"sure?"') -> None:
    runs("submit", workflow, value, "--run-id", "a")
    assert resumed(runs, "a", workflow)["status"] == "waiting"


@pytest.mark.parametrize("typed", [["--workflow", f"{FLOWS}:asking"], ["--event-type", "Approval"]])
def test_respond_answers_a_question(runs, typed):
    ask(runs, "asking")
    done = runs("respond", "a", '[true, {"$date": "2026-01-02"}]', *typed, "--json")
    assert json.loads(done.stdout) == {"run_id": "a", "request_id": "ok"}
    # It is on its way: nobody is to answer it again.
    assert shown(runs, "a")["questions"] == []
    again = runs("respond", "a", "true", *typed)
    assert (again.exit_code, again.stdout) == (REFUSED, "")
    assert "run 'a' (waiting) has no open question" in again.stderr
    assert resumed(runs, "a", "asking")["result"] == [True, {"$date": "2026-01-02"}]
    late = runs("respond", "a", "true", "--request-id", "ok", *typed)
    assert late.exit_code == REFUSED
    assert "has ended (completed)" in late.stderr


def test_respond_answers_one_of_two_questions(runs):
    ask(runs, "twice")
    unclear = runs("respond", "a", "1")
    assert unclear.exit_code == REFUSED
    assert "has the open questions one, two: choose one with --request-id" in unclear.stderr
    unknown = runs("respond", "a", "1", "--request-id", "three")
    assert unknown.exit_code == REFUSED
    assert "'three' is open" in unknown.stderr
    runs("respond", "a", "[1]", "--request-id", "two", "--text")
    runs("respond", "a", "[1]")  # the one that is left
    assert sorted(resumed(runs, "a", "twice")["result"], key=str) == ["[1]", [1]]


def test_respond_needs_the_type_if_answers_have_several(runs):
    ask(runs, "choosy")
    check = ["--workflow", f"{FLOWS}:choosy"]
    unclear = runs("respond", "a", "true", *check)
    assert unclear.exit_code == CONFIG
    assert (
        "accepts answers of the types Approval, Refusal: choose one with --event-type"
        in unclear.stderr
    )
    wrong = runs("respond", "a", "true", *check, "--event-type", "Paid")
    assert wrong.exit_code == CONFIG
    assert "not 'Paid'" in wrong.stderr
    lacking = runs("respond", "a", "true", *check, "--event-type", "Refusal")
    assert lacking.exit_code == DATAERR
    assert "missing: why" in lacking.stderr
    # What has more fields than an answer is an event like others.
    runs(
        "send", "a", "Refusal", '{"request_id": "ok", "response": null, "why": "too dear"}', *check
    )
    assert resumed(runs, "a", "choosy")["result"] == "too dear"


# Pausing and cancelling


def test_an_undriven_run_can_be_paused_and_cancelled(runs):
    ask(runs, "asking")
    assert runs("pause", "a").output == "run a is paused\n"
    assert json.loads(runs("pause", "a", "--json").stdout) == {"run_id": "a", "status": "paused"}
    assert shown(runs, "a")["status"] == "paused"
    assert runs("cancel", "a", "--reason", "no tea").output == "run a is cancelled\n"
    run = shown(runs, "a")
    assert (run["status"], run["failure"]["details"]) == ("cancelled", ["no tea"])
    assert (
        "runs respond" not in runs("show", "a").stdout
    )  # what it asked can be answered once it is resumed
    assert json.loads(runs("cancel", "a", "--json").stdout) == {
        "run_id": "a",
        "status": "cancelled",
        "asked": False,
    }
    paused = runs("pause", "a")
    assert paused.exit_code == REFUSED
    assert "has ended (cancelled)" in paused.stderr


def test_an_ended_run_is_not_cancelled(runs):
    ask(runs, "asking")
    runs("respond", "a", "true", "--event-type", "Approval")
    resumed(runs, "a", "asking")
    assert runs("cancel", "a").output == "run a has ended already (completed)\n"


@pytest.mark.parametrize("command", ["pause", "cancel"])
async def test_a_run_driven_by_a_worker_can_be_paused_and_cancelled(
    tmp_path, sqlite_url, start_worker, runs, command
):
    async with open_store(sqlite_url):
        pass
    invoke = lambda *arguments: trio.to_thread.run_sync(lambda: runs(*arguments))  # noqa: E731
    await invoke("submit", "gated", json.dumps(str(tmp_path)), "--run-id", "g")
    start_worker(sqlite_url, "tests.cli.flows:gated")
    await until(lambda: noted(tmp_path))
    for arguments in (["delete", "g", "-y"], ["resume", "g", "tests.cli.flows:gated"]):
        locked = await invoke(*arguments)
        assert locked.exit_code == REFUSED
        assert "is already driven by" in locked.stderr
    if command == "cancel":
        done = await invoke("cancel", "g", "--json")
        assert json.loads(done.stdout)["asked"]
    else:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_once_asked, sqlite_url, tmp_path / "open")
            done = await invoke("pause", "g")  # it waits for the step in flight
        assert done.output == "run g is paused\n"
    wanted = RunStatus.PAUSED if command == "pause" else RunStatus.CANCELLED
    async with open_store(sqlite_url) as store:
        with trio.fail_after(120):
            while (await store.get_run("g")).status is not wanted:  # noqa: ASYNC110
                await trio.sleep(0.02)
        (tmp_path / "open").touch()
        assert await gated.resume_from("g", store=store) == 1


async def open_once_asked(url, gate):
    """Let a step end, once the request to pause its run has been stored."""
    await until(lambda: execute(url, "SELECT mail_id FROM blazen_inbox"))
    await trio.sleep(1)  # the worker looks 20 times a second, and nothing shows that it has seen it
    gate.touch()


# Deleting


def test_delete_and_purge_remove_runs(runs):
    for number in range(3):
        runs("submit", "asking", str(number), "--run-id", f"r{number}")
    runs("cancel", "r1")
    assert runs("delete", "r0", "--yes").output == "deleted run r0\n"
    assert json.loads(runs("purge", "--older-than", "1h", "--yes", "--json").stdout) == {
        "deleted": 0
    }
    assert (
        runs("purge", "--older-than", "0s", "--yes", "--status", "failed").output
        == "deleted 0 runs\n"
    )
    assert json.loads(runs("purge", "--older-than", "0s", "--yes", "--json").stdout) == {
        "deleted": 1
    }
    assert [run["run_id"] for run in json.loads(runs("list", "--json").stdout)["runs"]] == ["r2"]
    assert (
        runs("purge", "--older-than", "0s", "-y", "--status", "queued").output == "deleted 1 runs\n"
    )


@pytest.mark.parametrize(
    "command", [["delete", "a"], ["purge", "--older-than", "0s", "--status", "queued"]]
)
def test_nothing_is_deleted_without_confirmation(sqlite_url, runs, command):
    runs("submit", "asking", "--run-id", "a")
    alone = runs(*command, input="y\n")
    assert alone.exit_code == USAGE
    assert "pass --yes" in alone.stderr
    with Terminal(sqlite_url, "runs", *command) as terminal:
        terminal.shows("[y/N]")
        terminal.types("n\n")
        assert terminal.ends() == 1
    assert shown(runs, "a")["status"] == "queued"
    with Terminal(sqlite_url, "runs", *command) as terminal:
        terminal.shows("[y/N]")
        terminal.types("y\n")
        assert terminal.ends() == 0
    assert json.loads(runs("list", "--json").stdout)["runs"] == []


# Invalid input


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["submit", "asking", "{tea}"], USAGE, "is not valid JSON"),
        (["submit", "asking", "tea"], USAGE, "needs double quotes"),
        (["submit", "asking", "NaN"], USAGE, "JSON has no NaN"),
        (["submit", "asking", "1e999"], USAGE, "too large for a number"),
        (["submit", "asking", str(2**64)], USAGE, '"$int": "0x10000000000000000"'),
        (["submit", "asking", "[" * 100_000], USAGE, "is not valid JSON"),
        (["submit", "asking", '"\\ud800"'], DATAERR, "surrogate"),
        (["submit", "asking", '{"$nothing": 1}'], DATAERR, "unknown kind of value"),
        (["submit", "asking", '{"$date": "tea"}'], DATAERR, "is not a stored date"),
        (["submit", "asking", "--metadata", "[1]"], USAGE, "is not a JSON object"),
        (["submit", "asking", "1", "--event-type", "Order"], USAGE, "a JSON object"),
        (["submit", "asking", "--run-id", ""], USAGE, "1 to 200 characters"),
        (["submit", "x" * 201], USAGE, "1 to 200 characters"),
        (["send", "a", "Paid", "[1]"], USAGE, "is not a JSON object"),
        (["send", "a", "Paid", '{"amount": NaN}'], USAGE, "JSON has no NaN"),
        (["send", "a", "Paid", "--delay", "-1"], USAGE, "not in the range"),
        (["send", "a", "Paid", "--delay", "2e11"], USAGE, "not a number of seconds up to 1e11"),
        (["send", "a", "Paid", "--workflow", "orders"], USAGE, "package.module:workflow"),
        (
            ["send", "a", "Paid", "--workflow", f"{FLOWS}:MANY"],
            CONFIG,
            "has several workflows ('asking', 'twice')",
        ),
        (["send", "a", "Paid", "--workflow", "nowhere:x"], CONFIG, "no module 'nowhere'"),
        (["respond", "a", "tea"], USAGE, "is not valid JSON"),
        (["respond", "a\udcff", "1"], USAGE, "without NUL or lone surrogates"),
        (["respond", "a ", "1"], USAGE, "it ends with a space"),
        (["respond", "a", "caf\udcff", "--text", "--request-id", "ok"], DATAERR, "surrogate"),
        (["cancel", "a", "--reason"], USAGE, "requires an argument"),
        (["purge", "-y"], USAGE, "--older-than"),
        (["purge", "-y", "--older-than", "30"], USAGE, "is not an age"),
        (["purge", "-y", "--older-than", "-1d"], USAGE, "is not an age"),
        (["purge", "-y", "--older-than", "٣d"], USAGE, "is not an age"),
        (["purge", "-y", "--older-than", "9" * 400 + "w"], USAGE, "more than a hundred years"),
        (["purge", "-y", "--older-than", "1d", "--status", "done"], USAGE, "'done' is not one of"),
        (["list", "--limit", "0"], USAGE, "not in the range"),
        (["list", "--workflow", "caf\udcff"], USAGE, "lone surrogates"),
        (["list", "--status", "done"], USAGE, "'done' is not one of"),
        (["list", "--db", "postgresql://ann:sesame@127.0.0.1:9/d"], 75, "no server answers there"),
        (["list", "--db", "oracle://ann:sesame@h/d"], CONFIG, "oracle is not supported"),
        (["watch", "a", "--interval", "0"], USAGE, "not in the range"),
        (["resume", "a", f"{FLOWS}:MANY"], CONFIG, "has several workflows"),
        (["resume", "a", f"{FLOWS}:twice"], REFUSED, "it is a run of workflow 'asking'"),
        (["show", "a", "postgresql://ann:sesame@h/d"], USAGE, r"ann:***@h/d"),
    ],
)
def test_invalid_commands_are_refused(runs, arguments, code, message):
    runs("submit", "asking", '"sure?"', "--run-id", "a")
    done = runs(*arguments)
    assert (done.exit_code, done.stdout) == (code, ""), done.output
    assert message in " ".join(done.stderr.split()), done.stderr
    assert "sesame" not in done.stderr


# On every database


@pytest.mark.parametrize("kind", KINDS)
def test_commands_work_on_every_database(kind, tmp_path, invoke):
    with fresh_database(kind, tmp_path) as url:

        def runs(*arguments: str) -> Any:
            return invoke("runs", *arguments, env={"BLAZEN_TRIO_DB": url})

        if kind != "sqlite":
            missing = runs("submit", "asking")
            assert missing.exit_code == CONFIG
            assert "blazen-trio db upgrade" in missing.stderr
        invoke("db", "upgrade", "--db", url)
        ids = [f"r{number}" for number in range(7)]
        for run_id in ids:
            assert runs("submit", "asking", '"☕"', "--run-id", run_id).exit_code == 0
        page = json.loads(runs("list", "--limit", "4", "--json").stdout)
        rest = json.loads(runs("list", "--after", page["next"], "--json").stdout)
        assert [run["run_id"] for run in page["runs"] + rest["runs"]] == ids
        assert runs("resume", "r0", f"{FLOWS}:asking", "--json").exit_code == 5
        assert shown(runs, "r0")["questions"][0]["prompt"] == "☕"
        assert runs("respond", "r0", "7", "--event-type", "Approval").exit_code == 0
        assert runs("resume", "r0", f"{FLOWS}:asking").stdout.endswith("result\n7\n")
        runs("export", "r1", "-o", str(tmp_path / "r1.json"))
        assert runs("import", str(tmp_path / "r1.json")).exit_code == REFUSED
        assert runs("import", str(tmp_path / "r1.json"), "--run-id", "r8").exit_code == 0
        assert runs("cancel", "r8").exit_code == runs("pause", "r2").exit_code == 0
        statuses = {
            run["run_id"]: run["status"]
            for run in json.loads(runs("list", "--json").stdout)["runs"]
        }
        assert (statuses["r0"], statuses["r2"], statuses["r8"]) == (
            "completed",
            "paused",
            "cancelled",
        )
        assert runs("delete", "r3", "-y").exit_code == 0
        assert json.loads(runs("purge", "--older-than", "0s", "-y", "--json").stdout) == {
            "deleted": 2
        }
