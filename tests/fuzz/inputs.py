"""Input to a run and its database: inbox messages, rows, and arguments of commands."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
import tempfile
import warnings
from functools import cache, partial
from pathlib import Path
from typing import Any

import attrs
import orjson
import trio
import trio.testing

from blazen_trio import (
    Event,
    InputRequestEvent,
    InputResponseEvent,
    MemoryStore,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowError,
    open_store,
    step,
)
from blazen_trio._codec.codec import PLAIN
from blazen_trio._codec.messages import CANCEL, EVENT, PAUSE, RECALL, pack_event, pack_reason
from tests.fuzz.documents import LEAVES, changed, spoilt

__all__ = ["read_inbox", "read_rows", "run_commands"]


@attrs.frozen
class Go(Event):
    by: Any = None


@step
async def begin(_ev: StartEvent) -> InputRequestEvent:
    return InputRequestEvent("ok?", request_id="q")


@step
async def go(_ev: Go) -> None: ...


@step
async def answered(ev: InputResponseEvent) -> StopEvent:
    return StopEvent(ev.response)


FLOW = Workflow("fed", [begin, go, answered], external=[Go], timeout=None, history=True)

_MESSAGES: list[tuple[str, Any]] = [
    (EVENT, orjson.loads(pack_event(FLOW.codec, Go({"a": [1, b"x"]})))),
    (EVENT, orjson.loads(pack_event(PLAIN, InputResponseEvent("q", [1])))),
    (CANCEL, orjson.loads(pack_reason("why"))),
    (PAUSE, orjson.loads(pack_reason(None))),
    (RECALL, {"f": 1, "mail": 1}),
    ("later", {"f": 9}),
]


def _message(dice: random.Random) -> tuple[str, bytes]:
    kind, document = dice.choice(_MESSAGES)
    if dice.random() < 0.1:
        kind = dice.choice([EVENT, CANCEL, PAUSE, RECALL, "later"])
    data = json.dumps(changed(document, dice)).encode()
    return kind, spoilt(data, dice) if dice.random() < 0.2 else data


async def _wait_until_parked(store: MemoryStore) -> None:
    with contextlib.suppress(WorkflowError):
        await FLOW.run(store=store, run_id="run")


def read_inbox(dice: random.Random) -> None:
    """Change messages in an inbox. The run takes them and its right answer, or has ended."""
    messages = [_message(dice) for _ in range(dice.randrange(1, 4))]

    async def feed() -> None:
        store = MemoryStore()
        await _wait_until_parked(store)
        for kind, data in messages:
            await store.post("run", kind, data)
        with trio.fail_after(60):
            async with FLOW.resume_from("run", store=store) as run:
                with contextlib.suppress(WorkflowError):
                    await run.unpause()
                    await run.respond("right")
                with contextlib.suppress(WorkflowError):
                    await run.result()
                assert run.status.ended

    with contextlib.suppress(WorkflowError):
        trio.run(feed, clock=trio.testing.MockClock(autojump_threshold=0))


@cache
def _filled() -> Path:
    """Return a folder with a database of two waiting runs, one of which has an inbox message."""
    folder = Path(tempfile.mkdtemp(prefix="fuzzed-rows-"))

    async def fill() -> None:
        async with open_store(f"sqlite:///{folder}/runs.db") as store:
            for run_id in ("bad", "good"):
                with contextlib.suppress(WorkflowError):
                    await FLOW.run(store=store, run_id=run_id, metadata={"a": 1})
            await store.post("bad", EVENT, pack_event(FLOW.codec, Go(1)), key="k")

    trio.run(fill)
    return folder


def _tamper(path: str, dice: random.Random) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        names = [
            (table, column[1])
            for (table,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'blazen%'"
                " AND name NOT LIKE '%version%'"
            ).fetchall()
            for column in connection.execute(f"PRAGMA table_info({table})")
        ]
        for _ in range(dice.choice([1, 1, 2, 4])):
            table, column = dice.choice(names)
            where = "" if table == "blazen_lease" else _OF_BAD
            old = connection.execute(f"SELECT {column} FROM {table} {where} LIMIT 1").fetchone()
            if old is None:
                continue
            value = dice.choice([None, "x", "", b"\x00\xff", -1, 0, 77, 2**62, 1.5, -1e300])
            if isinstance(old[0], bytes) and dice.random() < 0.6:
                value = spoilt(old[0], dice)
            with contextlib.suppress(sqlite3.Error), connection:
                connection.execute(f"UPDATE {table} SET {column} = ? {where}", (value,))


_OF_BAD = "WHERE run_no = (SELECT run_no FROM blazen_run WHERE run_id = 'bad')"


def read_rows(dice: random.Random) -> None:
    """Change rows of one run. Whatever is called on it, the other run is unaffected."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        path = shutil.copy(_filled() / "runs.db", folder)
        _tamper(path, dice)

        async def ask() -> None:
            async with open_store(f"sqlite:///{path}") as store:
                for act in (
                    partial(store.list_runs),
                    partial(store.get_run, "bad"),
                    partial(store.load_snapshot, "bad"),
                    partial(store.history, "bad"),
                    partial(FLOW.resume_from, "bad", store=store),
                ):
                    with contextlib.suppress(WorkflowError), trio.move_on_after(0.5):
                        await act()
                async with FLOW.resume_from("good", store=store) as run:
                    await run.respond("right")
                    assert await run.result() == "right"

        trio.run(ask)


# All but `watch` and `resume`, which wait for what a run waits for.
_WORDS = [
    *("list", "show", "history", "send", "respond", "pause", "cancel", "delete", "purge"),
    *("submit", "export", "import"),
]
_OPTIONS = [
    *("--json", "--full", "--limit", "--status", "--workflow", "--after", "--older-than", "--key"),
    *("--yes", "--output", "--reason", "--to", "--", "-", "-h"),
]


def run_commands(dice: random.Random) -> None:
    """Run commands with random arguments and input: an exit code, never a traceback."""
    from click.testing import CliRunner

    from blazen_trio._cli.app import app

    texts = [
        *LEAVES,
        "bad",
        "good",
        "\udcff",
        "-1",
        "1e400",
        "Go",
        '{"by": 1}',
        "a\nb",
        "..",
        "fed",
    ]
    arguments = [str(dice.choice(texts)) for _ in range(dice.randrange(4))]
    arguments += dice.sample(_OPTIONS, dice.randrange(3))
    dice.shuffle(arguments)
    if "--output" in arguments or "export" in arguments:
        arguments = ["good"]
    fed = spoilt(b'{"by": [1, "x"]}\n', dice)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        path = shutil.copy(_filled() / "runs.db", folder)
        here = Path.cwd()
        os.chdir(folder)
        try:
            command = ["runs", dice.choice(_WORDS), "--db", f"sqlite:///{path}", *arguments]
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                done = CliRunner().invoke(
                    app, [one.replace("\0", "") for one in command], input=fed
                )
        finally:
            os.chdir(here)
    assert done.exception is None or isinstance(done.exception, SystemExit), (
        command,
        done.exception,
    )
    assert "Traceback" not in done.output, (command, done.output)
