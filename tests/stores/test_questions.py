"""A store's list of open questions, which follows the journal commit by commit."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from blazen_trio import (
    InputRequestEvent,
    InputRequiredError,
    InputResponseError,
    InputResponseEvent,
    MemoryStore,
    RunFinishedError,
    StartEvent,
    StopEvent,
    Workflow,
    open_runtime,
    open_store,
    step,
)
from blazen_trio._state.entry import Questions
from blazen_trio._stores.excerpts import asked_run
from blazen_trio.stores import Commit, NewRun
from tests.databases import KINDS, execute, fresh_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@attrs.frozen
class Enough(InputResponseEvent): ...


@step
async def ask(ev: StartEvent) -> list[InputRequestEvent]:
    return [InputRequestEvent("?", request_id=f"☕ {n}" + "x" * 300) for n in range(ev.data)]


@step
async def hear(_ev: InputResponseEvent) -> None: ...


@step
async def stop(_ev: Enough) -> StopEvent:
    return StopEvent("enough")


FLOW = Workflow("asks", [ask, hear, stop], timeout=None)


@asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncIterator[tuple[Any, str]]:
    if kind == "memory":
        yield MemoryStore(), ""
        return
    with fresh_database(kind, folder) as url:
        async with open_store(url, migrate=True) as store:
            yield store, url


async def asked(store: Any, run_id: str) -> list[str]:
    return [name.rstrip("x") for name in (await asked_run(store, run_id)).asked]


def answer(n: int, kind: type[InputResponseEvent] = InputResponseEvent) -> InputResponseEvent:
    return kind(f"☕ {n}" + "x" * 300, "yes")


@pytest.mark.parametrize("kind", ["memory", *KINDS])
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_the_list_of_open_questions_follows_the_run(
    kind: str, durability: Any, tmp_path: Path
) -> None:
    async with opened(kind, tmp_path) as (store, url), open_runtime(store) as front:
        with pytest.raises(InputRequiredError):
            await FLOW.run(4, store=store, run_id="run", durability=durability)
        assert await asked(store, "run") == [f"☕ {n}" for n in range(4)]
        await front.respond("run", answer(2))
        with pytest.raises(InputResponseError, match="already answered"):
            await front.respond("run", answer(2))
        with pytest.raises(InputResponseError, match="has 3 open questions"):
            await front.respond("run", "yes")
        with pytest.raises(InputRequiredError):
            await FLOW.resume_from("run", store=store, durability=durability)
        assert await asked(store, "run") == ["☕ 0", "☕ 1", "☕ 3"]
        snapshot = await store.load_snapshot("run")
        async with opened("memory", tmp_path) as (other, _):
            with pytest.raises(InputRequiredError):
                await FLOW.resume(snapshot, store=other)
            assert await asked(other, "run") == ["☕ 0", "☕ 1", "☕ 3"]
        await front.cancel("run")
        with pytest.raises(RunFinishedError):
            await front.respond("run", answer(0))
        async with FLOW.resume_from("run", store=store, durability=durability) as run:
            await run.respond(answer(0, Enough))
            assert await run.result() == "enough"
        assert await asked(store, "run") == []
        if url:
            assert execute(url, "SELECT count(*) FROM blazen_question")[0][0] == 0


@pytest.mark.parametrize("kind", ["memory", *KINDS])
async def test_changes_that_are_written_together_keep_their_order(
    kind: str, tmp_path: Path
) -> None:
    changes = {
        "a": [Questions({1: "one"}), Questions(closed={1: "one"})],
        "b": [Questions({1: "one", 2: "two"}), Questions({3: "one"}, {1: "one"})],
        "c": [Questions({1: "one"}), Questions({9: "nine"}, whole=True), Questions({10: "ten"})],
    }
    async with opened(kind, tmp_path) as (store, _):
        drivers = {
            run_id: await store.create(NewRun("w", "1", 1.0), Commit(run_id, [(1, b"x")]))
            for run_id in changes
        }

        async def write(run_id: str, seq: int, questions: Questions) -> None:
            await store.commit(drivers[run_id], Commit(run_id, [(seq, b"x")], questions=questions))

        async with trio.open_nursery() as nursery:
            for run_id, each in changes.items():
                for seq, questions in enumerate(each, 2):
                    nursery.start_soon(write, run_id, seq, questions)
                    await trio.lowlevel.checkpoint()
        left = {run_id: (await asked_run(store, run_id)).asked for run_id in changes}
        assert left == {"a": {}, "b": {"two": 2, "one": 3}, "c": {"nine": 9, "ten": 10}}
        assert (await asked_run(store, "b", "one")).asked == {"one": 3}
        assert (await asked_run(store, "b", "\ud800")).asked == {}
        for driver in drivers.values():
            await store.release(driver)
        await store.delete_run("b")
