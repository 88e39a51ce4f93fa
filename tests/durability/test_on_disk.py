"""The stored run when a call returns, for each durability, read through a second opening."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing

from blazen_trio import (
    Context,
    Event,
    InputRequestEvent,
    InputRequiredError,
    InputResponseEvent,
    MemoryStore,
    RunNotFoundError,
    RunStatus,
    StartEvent,
    StopEvent,
    StoreError,
    Workflow,
    open_store,
    step,
)
from blazen_trio.testing import FaultyStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MODES = ["sync", "async", "exit"]
in_each_mode = pytest.mark.parametrize("durability", MODES)
on_each_store = pytest.mark.parametrize("kind", ["memory", "sqlite"])


@attrs.frozen
class Tick(Event):
    n: int


@attrs.frozen
class Nudge(Event):
    n: int


class Stage:
    """Two openings of one storage: one drives, the other reads."""

    def __init__(self, store: Any, looker: Any) -> None:
        self.store, self.looker = store, looker

    async def on_disk(self) -> Any:
        return await self.looker.load_snapshot("run")


@asynccontextmanager
async def staged(kind: str, folder: Path) -> AsyncIterator[Stage]:
    if kind == "memory":
        store = MemoryStore()
        yield Stage(store, store)
    else:
        url = f"sqlite:///{folder / 'runs.db'}"
        async with open_store(url) as store, open_store(url) as looker:
            yield Stage(store, looker)


@on_each_store
@in_each_mode
async def test_the_run_its_input_and_its_lease_are_stored_before_the_first_step(
    kind: str, durability: str, tmp_path: Path
) -> None:
    async with staged(kind, tmp_path) as stage:
        seen: list[Any] = []

        @step
        async def look(ev: StartEvent) -> StopEvent:
            seen.append(await stage.on_disk())
            return StopEvent()

        workflow = Workflow("look", [look], durability=durability)
        await workflow.run({"input": 1}, store=stage.store, run_id="run")
        assert seen[0].status is RunStatus.RUNNING
        assert seen[0].deliveries[0].event.data == {"data": {"input": 1}}


@on_each_store
@in_each_mode
async def test_a_commit_is_as_durable_as_promised_before_the_next_step_starts(
    kind: str, durability: str, tmp_path: Path
) -> None:
    async with staged(kind, tmp_path) as stage:
        behind: list[int] = []

        @step
        async def begin(ev: StartEvent) -> Tick:
            return Tick(20)

        @step
        async def tick(ev: Tick, ctx: Context) -> Tick | StopEvent:
            stored = await stage.on_disk()
            behind.append(int(not ctx.idempotency_key.endswith(f":{stored.deliveries[0].id}:tick")))
            return Tick(ev.n - 1) if ev.n else StopEvent("end")

        workflow = Workflow("ticks", [begin, tick], durability=durability)
        await workflow.run(store=stage.store, run_id="run")
        if durability == "sync":
            assert not any(behind), "an output ran before its commit was on disk"
        if durability == "exit":
            assert all(behind), "something was written without a request"
        assert (await stage.on_disk()).result == "end"


@on_each_store
@in_each_mode
async def test_send_and_respond_are_stored_when_they_return(
    kind: str, durability: str, tmp_path: Path
) -> None:
    @step
    async def begin(ev: StartEvent) -> InputRequestEvent:
        return InputRequestEvent("?", request_id="q")

    @step
    async def slow(ev: Nudge | InputResponseEvent) -> StopEvent:
        await trio.sleep_forever()
        return StopEvent()

    workflow = Workflow("asks", [begin, slow], external=[Nudge], durability=durability)
    async with (
        staged(kind, tmp_path) as stage,
        workflow.run(store=stage.store, run_id="run") as run,
    ):
        await run.send(Nudge(1))
        assert [one.event.event_type for one in (await stage.on_disk()).deliveries][-1] == "Nudge"
        while not run.input_requests:  # noqa: ASYNC110  # no event reports it
            await trio.lowlevel.checkpoint()
        await run.respond(InputResponseEvent("q", "yes"))
        stored = await stage.on_disk()
        assert [one.event.event_type for one in stored.deliveries] == [
            "Nudge",
            "InputResponseEvent",
        ]
        assert not stored.input_requests
        run.cancel()


@on_each_store
@in_each_mode
async def test_every_call_that_waits_for_the_run_returns_after_its_commit(
    kind: str, durability: str, tmp_path: Path
) -> None:
    @step
    async def begin(ev: StartEvent, ctx: Context) -> InputRequestEvent:
        ctx.set("asked", ev.data)
        return InputRequestEvent("?", request_id="q")

    @step
    async def answered(ev: InputResponseEvent, ctx: Context) -> Tick:
        ctx.set("answered", ev.response)
        return Tick(0)

    @step
    async def last(ev: Tick) -> StopEvent:
        return StopEvent("end")

    workflow = Workflow("asks", [begin, answered, last], durability=durability)
    async with staged(kind, tmp_path) as stage:
        async with workflow.run(1, store=stage.store, run_id="run") as run:
            with pytest.raises(InputRequiredError) as caught:
                await run.result()
            stored = await stage.on_disk()
            assert stored.state == {"asked": 1}
            assert stored == caught.value.snapshot
            paused = await run.pause()
            assert (await stage.on_disk()) == paused
            await run.respond("yes")
            assert (await stage.on_disk()) == await run.snapshot()
            await run.unpause()
            assert await run.result() == "end"
            assert (await stage.on_disk()).result == "end"
        async with workflow.run(2, store=stage.store, run_id="other") as run:
            with pytest.raises(InputRequiredError):
                await run.result()
            await run.respond("yes")
        assert (await stage.looker.load_snapshot("other")).status is RunStatus.COMPLETED


async def test_async_is_never_more_than_256_commits_behind(autojump_clock: Any) -> None:
    store = MemoryStore()
    done = 0

    class Stuck(FaultyStore):
        """A store that accepts the run, and no commit."""

        async def commit(self, driver: Any, commit: Any) -> None:
            await trio.sleep_forever()

    @step
    async def begin(ev: StartEvent) -> Tick:
        return Tick(1000)

    @step
    async def tick(ev: Tick) -> Tick | StopEvent:
        nonlocal done
        done += 1
        return Tick(ev.n - 1) if ev.n else StopEvent()

    workflow = Workflow("ticks", [begin, tick], durability="async", timeout=None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: workflow.run(store=Stuck(store), run_id="run"))
        await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked()
        assert 250 <= done <= 257
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("durability", MODES)
async def test_a_kill_loses_only_what_the_durability_allows(durability: str) -> None:
    """The store is severed after its fifth commit. Only a `sync` run is not far ahead of it."""
    store = MemoryStore()
    ran: list[int] = []

    @step
    async def begin(ev: StartEvent) -> Tick:
        return Tick(100)

    @step
    async def tick(ev: Tick) -> Tick | StopEvent:
        ran.append(ev.n)
        return Tick(ev.n - 1) if ev.n else StopEvent("end")

    workflow = Workflow("ticks", [begin, tick], durability=durability)
    with pytest.raises(StoreError):
        await workflow.run(
            store=FaultyStore(store, fail_after=5 if durability == "sync" else 2), run_id="run"
        )
    killed_at = ran[-1]
    if durability == "exit":
        # Its second commit is the snapshot of its end. Nothing was written in between.
        assert (await store.load_snapshot("run")).result == "end"
        return
    ran.clear()
    assert await workflow.resume_from("run", store=store) == "end"
    redone = ran[0] - killed_at
    assert redone <= (1 if durability == "sync" else 256)
    assert sorted(ran, reverse=True) == ran


async def test_without_a_store_nothing_is_stored() -> None:
    @step
    async def begin(ev: StartEvent) -> StopEvent:
        return StopEvent("end")

    store = MemoryStore()
    assert await Workflow("none", [begin]).run(run_id="run") == "end"
    with pytest.raises(RunNotFoundError):
        await store.get_run("run")


@on_each_store
@in_each_mode
async def test_a_snapshot_of_a_working_run_is_not_ahead_of_the_disk(
    kind: str, durability: str, tmp_path: Path
) -> None:
    @step
    async def begin(ev: StartEvent) -> Tick:
        return Tick(0)

    @step
    async def tick(ev: Tick) -> Tick | StopEvent:
        await trio.lowlevel.checkpoint()
        return Tick(ev.n + 1) if ev.n >= 0 else StopEvent()

    workflow = Workflow("ticks", [begin, tick], durability=durability)
    async with (
        staged(kind, tmp_path) as stage,
        workflow.run(store=stage.store, run_id="run") as run,
    ):
        for _ in range(5):
            taken = await run.snapshot()
            assert (await stage.on_disk()).seq >= taken.seq
        run.cancel()
