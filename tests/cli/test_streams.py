"""Standard streams that are closed, lack characters, or are not terminals."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

from blazen_trio import Context, StartEvent, StepFailedError, StopEvent, Workflow, open_store, step
from blazen_trio._cli.output import make_handler, say
from tests.cli.conftest import ROOT, SCRIPT
from tests.cli.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ACTING = "\x9b31m \u202e \x7f \u2028 \x1b[2J \r \U000e0001"


def run(url: str, *arguments: str, closed: tuple[int, ...] = (), **environment: str) -> Any:
    """Run a command as a process, with some of its streams closed."""

    def close() -> None:
        for number in closed:
            os.close(number)

    return subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, *arguments],
        env={**os.environ, "BLAZEN_TRIO_DB": url, **environment},
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        preexec_fn=close,
    )


# Each command is run by a fork of one process, whose streams Python has created normally.
EACH = """
import json, os, sys
import blazen_trio._cli.app, blazen_trio._stores.sql.store
commands, folder = json.loads(sys.argv[1]), sys.argv[2]
for number, arguments in enumerate(commands):
    if os.fork() == 0:
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{folder}/{number}.{name}", os.O_CREAT | os.O_WRONLY), stream)
        sys.argv[1:] = arguments
        from blazen_trio._cli import main
        main()
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


def run_each(
    url: str, commands: list[list[str]], folder: Path, **environment: str
) -> list[tuple[int, bytes, bytes]]:
    """Run commands one after another. Return their exit codes, outputs and messages."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EACH, json.dumps(commands), str(folder)],
        env={**os.environ, "BLAZEN_TRIO_DB": url, **environment},
        cwd=ROOT,
        capture_output=True,
        timeout=300,
        check=True,
    )
    return [
        (int(code), *((folder / f"{number}.{name}").read_bytes() for name in ("out", "err")))
        for number, code in enumerate(done.stdout.split())
    ]


# Closed streams


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["delete", "r"], 2, b"pass --yes"),
        (["purge", "--older-than", "1d"], 2, b"pass --yes"),
        (["import", "-"], 66, b"can't be read"),
        (["list"], 0, b""),
    ],
)
def test_a_closed_stdin_is_not_prompted(arguments, code, told, sqlite_url, runs):
    runs("submit", "orders", "--run-id", "r")
    done = run(sqlite_url, "runs", *arguments, closed=(0,))
    assert done.returncode == code, done.stderr
    assert told in done.stderr


def test_output_to_closed_streams_is_dropped_and_never_written_to_the_database(
    sqlite_url,
):
    for index, arguments in enumerate((["submit", "orders"], ["list"], ["show", "nowhere"])):
        done = run(sqlite_url, "runs", *arguments, closed=(0, 1, 2))
        assert (done.returncode, done.stdout, done.stderr) == (66 if index == 2 else 0, b"", b"")
    assert len(json.loads(run(sqlite_url, "runs", "list", "--json").stdout)["runs"]) == 1


# Encodings that lack characters


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_characters_that_an_encoding_lacks_are_escaped(encoding, sqlite_url, runs, tmp_path):
    run_id = "bestellung-\u6f22-\U0001f642"
    runs("submit", "orders", json.dumps("f\xfcnf \u20ac"), "--run-id", run_id)
    narrow = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    right = [["list"], ["show", run_id], ["history", run_id]]
    wrong = [["show", "nowhere-\u6f22"], ["send", "nowhere-\u6f22", "Paid"]]
    as_json = [[*arguments, "--json"] for arguments in right + wrong]
    commands = [["runs", *arguments] for arguments in right + as_json]
    done = run_each(sqlite_url, commands, tmp_path, **narrow)
    assert [code for code, _, _ in done] == [0, 0, 0, 0, 0, 0, 66, 66], done
    for _, out, _ in done[3:6]:
        assert run_id in json.dumps(json.loads(out.decode(encoding)), ensure_ascii=False)
    for _, _, err in done[6:]:
        assert "nowhere-\u6f22" in json.loads(err.decode(encoding))["message"]


# Colours, pipes and terminals


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"])
def test_output_to_a_pipe_is_never_cut(variable, sqlite_url, runs):
    run_id = "an-order-of-the-shop-" + "1" * 100
    runs("submit", "a-workflow-with-a-name", "--run-id", run_id)
    plain = run(sqlite_url, "runs", "list").stdout.decode()
    forced = run(sqlite_url, "runs", "list", **{variable: "1"}).stdout.decode()
    headings = re.sub(r"\x1b\[[0-9;]*m", "", forced).splitlines()[0]
    assert headings.split() == plain.splitlines()[0].split()
    assert run_id in forced
    assert "a-workflow-with-a-name" in forced


async def test_forced_colours_do_not_move_the_cursor(sqlite_url, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)  # to rich 13, an empty one turns them off, too

    @step
    async def only(ev: StartEvent) -> StopEvent:
        return StopEvent()

    async with open_store(sqlite_url) as store:
        await Workflow("flow", [only]).run(store=store, run_id="r")
    listed = run(sqlite_url, "runs", "list", FORCE_COLOR="1").stdout  # noqa: ASYNC221
    assert b"\x1b[32mcompleted" in listed
    done = run(sqlite_url, "runs", "watch", "r", FORCE_COLOR="1")  # noqa: ASYNC221
    watched = done.stdout.decode()
    assert re.findall(r"\x1b\[[0-9;?]*[A-Za-ln-z]", watched) == []
    assert "completed" in watched


def test_a_dumb_terminal_gets_plain_lines(sqlite_url, runs):
    runs("submit", "orders", "--run-id", "r")
    runs("cancel", "r")
    environment = {"TERM": "dumb"}
    for arguments in (["watch", "r"], ["list"], ["show", "r"]):
        with Terminal(sqlite_url, "runs", *arguments, environment=environment) as terminal:
            assert terminal.ends() in (0, 4)
            assert "cancelled" in terminal.screen
            assert "\x1b" not in terminal.screen


# Text from other programs


def test_text_from_other_programs_is_printed_without_control_sequences(
    sqlite_url, invoke: Callable[..., Any]
):
    @step
    async def only(ev: StartEvent, ctx: Context) -> StopEvent:
        ctx.set("text", ACTING)
        if ev.data:
            raise ValueError(ACTING)
        return StopEvent(ACTING)

    async def fill() -> None:
        flow = Workflow("flow", [only])
        async with open_store(sqlite_url) as store:
            await flow.run(store=store, run_id="good", metadata={"text": ACTING})
            with pytest.raises(StepFailedError):
                await flow.run("bad", store=store, run_id="bad" + ACTING)

    trio.run(fill)
    commands = [["list"], ["list", "--workflow", ACTING]]
    for name in ("good", "bad" + ACTING, "none" + ACTING):
        commands += [
            ["show", name],
            ["history", name],
            ["watch", name],
            ["export", name, "--no" + ACTING],
        ]
    for arguments in commands:
        for more in ([], ["--json"]):
            done = invoke("runs", *arguments, *more, env={"BLAZEN_TRIO_DB": sqlite_url})
            assert done.exit_code in (0, 1, 2, 66), done.output
            acting = {one for one in done.output if not one.isprintable()} - {"\n"}
            assert acting == set(), (arguments, acting)
    done = invoke("runs", "list", "--json", env={"BLAZEN_TRIO_DB": sqlite_url})
    [_, bad] = json.loads(done.stdout)["runs"]
    assert bad["run_id"] == "bad" + ACTING


def test_only_the_first_line_of_a_record_starts_at_the_margin(sqlite_url):
    forged = "2026-01-01T00:00:00.000Z info     blazen_trio.cli: all is well"
    for as_json in (False, True):
        found = io.StringIO()
        handler = make_handler(
            as_json=as_json, url=None, stream=found, plain="{time} {level} {name}: "
        )
        try:
            raise ValueError(f"no\n{forged}")
        except ValueError:
            record = logging.LogRecord(
                "shop", logging.ERROR, "", 0, "no\n%s", (forged,), sys.exc_info()
            )
        handler.handle(record)
        say(handler, "event", f"no\n{forged}", fields={"text": forged + "\n" + forged})
        assert [
            line for line in found.getvalue().splitlines() if line.startswith("2026-01-01")
        ] == []
