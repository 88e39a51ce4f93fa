"""Runs in every status, as an earlier version stored them.

`old_runs.json` has the rows of revision 0002. Each table is a list of rows; bytes are UTF-8 text.
`python -m tests.stores.old_runs FILE` writes such a file with the version that is checked out.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import attrs
import trio

from blazen_trio import (
    Context,
    Event,
    InputRequestEvent,
    InputRequiredError,
    InputResponseEvent,
    RunTimeoutError,
    StartEvent,
    StepFailedError,
    StopEvent,
    Workflow,
    open_runtime,
    open_store,
    step,
)

OLD = Path(__file__).with_name("old_runs.json")
LARGE = "x" * 33_000
"""A value that is large enough to be stored separately, by its digest."""


@attrs.frozen
class Part(Event):
    """One of three parts."""

    number: int


@attrs.frozen
class Word(Event):
    """An event that is sent from outside."""

    text: str


@step
async def split(event: StartEvent, context: Context) -> list[Part]:
    """Open a fan-out, and write a large value."""
    context.set("large", LARGE if context.metadata["kind"] == "waiting" else "small")
    return [Part(number) for number in range(3)]


@step
async def double(event: Part, context: Context) -> Word | None:
    """Fail once if the run is to fail. Wait forever if it is to be found running."""
    kind = context.metadata.get("kind")
    if kind == "failed" and event.number == 1 and not context.metadata.get("again"):
        raise OSError("the first time")
    if kind in {"running", "timed_out"} and event.number == 2:
        await trio.sleep_forever()
    context.set(f"part {event.number}", 2 * event.number)
    return None


@step
async def listen(event: Word) -> InputRequestEvent:
    """Ask a question."""
    return InputRequestEvent(f"sure of {event.text}?", request_id="sure")


@step
async def end(event: InputResponseEvent, context: Context) -> StopEvent:
    """End with the answer."""
    return StopEvent([event.response, len(context.get("large"))])


old_runs = Workflow("old runs", [split, double, listen, end], external=[Word], history=True)


async def _make(url: str) -> None:
    async with open_store(url) as store:
        options: dict[str, Any] = {"store": store}
        for kind in ("completed", "waiting", "paused", "cancelled", "failed", "timed_out"):
            start = old_runs.run(
                run_id=kind,
                metadata={"kind": kind},
                timeout=0.3 if kind == "timed_out" else None,
                **options,
            )
            with suppress(StepFailedError, RunTimeoutError, InputRequiredError):
                async with start as run:
                    if kind in {"failed", "timed_out"}:
                        await run.result()
                    await run.send(Word("it"))
                    await trio.sleep(0.2)
                    if kind == "completed":
                        await run.respond("yes")
                        await run.result()
                    elif kind == "paused":
                        await run.pause()
                    elif kind == "cancelled":
                        run.cancel("no more")
        with trio.move_on_after(0.5):
            await old_runs.run(run_id="running", metadata={"kind": "running"}, **options)
        async with open_runtime(store) as runtime:
            await runtime.submit(old_runs, run_id="queued", metadata={"kind": "queued"})
            for run_id in ("queued", "running"):
                await runtime.send(run_id, Word("sent"), key=f"key of {run_id}")


def main() -> None:
    """Write the rows of all tables to a file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "runs.db"
        trio.run(_make, f"sqlite:///{file}")
        tables: dict[str, list[dict[str, Any]]] = {}
        with closing(sqlite3.connect(file)) as database:
            database.row_factory = sqlite3.Row
            names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            for (name,) in names.fetchall():
                if name.startswith("blazen_") and not name.endswith("version"):
                    rows = database.execute(f"SELECT * FROM {name}")
                    tables[name] = [dict(row) for row in rows]
    text = json.dumps(tables, indent=1, default=lambda data: {"bytes": data.decode()})
    Path(sys.argv[1]).write_text(text + "\n")


if __name__ == "__main__":
    main()
