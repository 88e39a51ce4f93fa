"""Claims of the docs beyond what their own programs assert."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import attrs
import pytest

from blazen_trio import (
    Context,
    Event,
    StartEvent,
    StopEvent,
    Workflow,
    open_runtime,
    open_store,
    step,
)
from tests.databases import KINDS, fresh_database
from tests.docs.test_snippets import find_snippets

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"


def snippets(page: str) -> dict[str, str]:
    return {one.name: one.code for one in find_snippets(HOW_TO / page)}


def load(program: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(program.stem, program)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@step
async def end(ev: StartEvent) -> StopEvent:
    return StopEvent()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_queries_for_operators_run_on_every_database(kind, tmp_path):
    program = tmp_path / "queries.py"
    program.write_text(snippets("operating.md")["queries.py"])
    queries = load(program)
    with fresh_database(kind, tmp_path) as url:
        async with open_store(url, migrate=True) as store, open_runtime(store) as runtime:
            await (await runtime.start(Workflow("ending", [end]))).result()
            await runtime.submit("another")
            found = {name: queries.ask(url, name) for name in queries.QUERIES}
    assert found["by status"] == [("another", 1, 1), ("ending", 5, 1)]
    assert [row[:2] for row in found["ready"]] == [("another", 1)]
    assert [row[3] for row in found["drivers"]] == [0]
    assert [found[name] for name in ("orphaned", "suspects", "held", "waiting", "inbox")] == [
        []
    ] * 5
    assert len(found["largest"]) == sum(number for _, _, number in found["by status"])
    assert all(size > 100 for _, size in found["largest"])


@attrs.frozen
class Line(Event):
    number: int


@step
async def begin(ev: StartEvent) -> None:
    pass


@step(max_concurrency=1)
async def write(ev: Line, ctx: Context) -> StopEvent | None:
    lines = [*ctx.get("lines", []), ev.number]
    ctx.set("lines", lines)
    return StopEvent(lines) if len(lines) == 20 else None


@pytest.mark.parametrize("kind", KINDS)
async def test_events_of_one_sender_are_taken_in_order(kind, tmp_path):
    writing = Workflow("writing", [begin, write], external=[Line])
    with fresh_database(kind, tmp_path) as url:
        async with (
            open_store(url, migrate=True) as store,
            open_store(url) as elsewhere,
            open_runtime(store, [writing]) as runtime,
            open_runtime(elsewhere) as front,
        ):
            await front.submit("writing", run_id="r-1")
            for number in range(10):  # no process drives the run yet
                await front.send("r-1", Line(number), key=f"{number}" if number % 2 else None)
            await runtime.recover()
            for number in range(10, 20):
                await front.send("r-1", Line(number), key=f"{number}" if number % 2 else None)
            assert await runtime.result("r-1") == list(range(20))


@pytest.mark.parametrize(
    ("key", "passes"), [("ctx.idempotency_key", True), ("str(id(ctx))", False)]
)
def test_the_crash_test_finds_a_missing_idempotency_key(key, passes, tmp_path):
    programs = snippets("testing.md")
    assert "ctx.idempotency_key" in programs["shop.py"]
    programs["shop.py"] = programs["shop.py"].replace("ctx.idempotency_key", key)
    for name in ("shop.py", "test_crashes.py"):
        (tmp_path / name).write_text(programs[name])
    done = subprocess.run(
        [sys.executable, "test_crashes.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == (0 if passes else 1), done.stdout
    assert passes or "assert [50, 50] == [50]" in done.stdout
