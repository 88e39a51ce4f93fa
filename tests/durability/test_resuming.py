"""Resuming from a snapshot and from a store; keys, answers and deadlines across resumes."""

from __future__ import annotations

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
    InputResponseError,
    InputResponseEvent,
    MemoryStore,
    RunLockedError,
    RunStatus,
    RunTimeoutError,
    Snapshot,
    StaleRunError,
    StartEvent,
    StopEvent,
    StoreError,
    Workflow,
    step,
)
from blazen_trio.testing import FaultyStore
from tests.durability.openings import Storage

if TYPE_CHECKING:
    from pathlib import Path

on_each_store = pytest.mark.parametrize("kind", ["memory", "sqlite"])
LARGE = "x" * 40_000


@attrs.frozen
class Add(Event):
    n: int


@step
async def ask(ev: StartEvent, ctx: Context) -> InputRequestEvent:
    ctx.set("large", LARGE)
    ctx.update("asked", lambda n: n + 1, 0)
    return InputRequestEvent("well?", request_id="q")


@step
async def answered(ev: InputResponseEvent, ctx: Context) -> StopEvent:
    return StopEvent([ev.response, ctx.get("sum", 0), ctx.get("asked"), len(ctx.get("large"))])


@step
async def add(ev: Add, ctx: Context) -> None:
    ctx.update("sum", lambda n: n + ev.n, 0)


ASKING = Workflow("asking", [ask, answered, add], external=[Add], history=True)


async def waiting_snapshot(store: Any = None) -> Snapshot:
    with pytest.raises(InputRequiredError) as caught:
        await ASKING.run(store=store, run_id="run")
    return caught.value.snapshot


@on_each_store
async def test_a_snapshot_of_the_newest_entry_resumes(kind: str, tmp_path: Path) -> None:
    storage = Storage(kind, tmp_path)
    async with storage.opened() as store:
        snapshot = await waiting_snapshot(store)
    async with storage.opened() as store:
        assert await ASKING.resume_with_input(snapshot, "yes", store=store) == [
            "yes",
            0,
            1,
            len(LARGE),
        ]
        stored = await store.load_snapshot("run")
        assert stored.status is RunStatus.COMPLETED
        assert stored.seq > snapshot.seq
        sequences = [record.sequence for record in stored.history]
        assert sequences == list(range(1, len(sequences) + 1))


@on_each_store
async def test_a_snapshot_older_than_the_stored_run_is_stale(kind: str, tmp_path: Path) -> None:
    storage = Storage(kind, tmp_path)
    async with storage.opened() as store:
        snapshot = await waiting_snapshot(store)
        async with ASKING.resume_from("run", store=store) as run:
            await run.send(Add(5))
            await run.pause()
    async with storage.opened() as store:
        for resumed in (
            ASKING.resume(snapshot, store=store),
            ASKING.resume_with_input(snapshot, "yes", store=store),
        ):
            with pytest.raises(StaleRunError, match=r"further|up to entry") as caught:
                await resumed
            assert caught.value.run_id == "run"
        # It is undriven, and unchanged.
        async with ASKING.resume_from("run", store=store) as run:
            await run.respond("late")
            assert await run.result() == ["late", 5, 1, len(LARGE)]
        # Without the store, the old snapshot is an independent run.
        assert await ASKING.resume_with_input(snapshot, "yes") == ["yes", 0, 1, len(LARGE)]


@on_each_store
async def test_a_snapshot_of_a_run_that_the_store_lacks_is_stored(
    kind: str, tmp_path: Path
) -> None:
    snapshot = Snapshot.from_json((await waiting_snapshot()).to_json())
    storage = Storage(kind, tmp_path)
    async with storage.opened() as store:
        with pytest.raises(InputRequiredError) as caught:
            await ASKING.resume(snapshot, store=store)
        assert (await store.get_run("run")).status is RunStatus.WAITING
        assert await store.load_snapshot("run") == caught.value.snapshot
        assert next(one.kind for one in await store.history("run")) == "workflow_started"
    async with storage.opened() as store:
        async with ASKING.resume_from("run", store=store) as run:
            await run.respond("yes")
            assert await run.result() == ["yes", 0, 1, len(LARGE)]
        assert (await store.get_run("run")).workflow == "asking"


@on_each_store
async def test_the_snapshot_of_a_completed_run_gives_its_result_in_any_store(
    kind: str, tmp_path: Path
) -> None:
    source = MemoryStore()
    snapshot = await waiting_snapshot(source)
    result = await ASKING.resume_with_input(snapshot, "yes", store=source)
    final = await source.load_snapshot("run")
    assert await ASKING.resume(final) == result
    assert await ASKING.resume(final, store=source) == result
    storage = Storage(kind, tmp_path)
    async with storage.opened() as store:
        assert await ASKING.resume(final, store=store) == result
        # It is stored, and undriven.
        assert await ASKING.resume_from("run", store=store) == result
        assert (await store.get_run("run")).status is RunStatus.COMPLETED
        await store.delete_run("run")


@on_each_store
async def test_a_snapshot_of_a_driven_run_is_refused(kind: str, tmp_path: Path) -> None:
    async with (
        Storage(kind, tmp_path).opened() as store,
        ASKING.run(store=store, run_id="run") as run,
    ):
        with pytest.raises(InputRequiredError) as caught:
            await run.result()
        with pytest.raises(RunLockedError):
            await ASKING.resume(caught.value.snapshot, store=store)
        await run.respond("yes")
        assert (await run.result())[0] == "yes"


@on_each_store
async def test_a_wrong_answer_releases_the_run(kind: str, tmp_path: Path) -> None:
    async with Storage(kind, tmp_path).opened() as store:
        snapshot = await waiting_snapshot(store)
        with pytest.raises(InputResponseError) as caught:
            await ASKING.resume_with_input(
                snapshot, InputResponseEvent("other", "yes"), store=store
            )
        assert caught.value.request_id == "other"
        with pytest.raises(InputRequiredError):
            await ASKING.resume_from("run", store=store)
        stored = await store.load_snapshot("run")
        assert [question.request_id for question in stored.input_requests] == ["q"]


async def test_an_answer_given_with_a_snapshot_is_on_disk_before_any_step_runs() -> None:
    store = MemoryStore()
    snapshot = await waiting_snapshot(store)
    # The first commit is that of the answer. The next, of the step that takes it, fails.
    with pytest.raises(StoreError):
        await ASKING.resume_with_input(snapshot, "yes", store=FaultyStore(store, fail_before=2))
    stored = await store.load_snapshot("run")
    assert not stored.input_requests
    assert [one.event.event_type for one in stored.deliveries] == ["InputResponseEvent"]
    assert (await ASKING.resume_from("run", store=store))[0] == "yes"


@on_each_store
async def test_a_used_key_is_refused_after_any_number_of_resumes(kind: str, tmp_path: Path) -> None:
    storage = Storage(kind, tmp_path)
    async with storage.opened() as store, ASKING.run(store=store, run_id="run") as run:
        assert await run.send(Add(1), key="mine")
        assert not await run.send(Add(1), key="mine")
        await run.pause()
    async with storage.opened() as store:
        async with ASKING.resume_from("run", store=store) as run:
            assert not await run.send(Add(1), key="mine")
            assert await run.send(Add(10), key="other")
            await run.pause()
        snapshot = await store.load_snapshot("run")
        async with ASKING.resume(snapshot, store=store) as run:
            assert not await run.send(Add(10), key="other")
            await run.respond("yes")
            assert (await run.result())[:2] == ["yes", 11]


@on_each_store
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_keyed_event_whose_commit_failed_is_delivered_once(
    kind: str, durability: str, tmp_path: Path
) -> None:
    """The inbox row is on disk without the entry that takes it: the resume takes it."""
    storage = Storage(kind, tmp_path)
    async with storage.opened() as store:
        faulty = FaultyStore(store)
        with pytest.raises(StoreError):  # the end of the block raises nothing else
            async with ASKING.run(store=faulty, run_id="run", durability=durability) as run:
                with pytest.raises(InputRequiredError):
                    await run.result()
                faulty.fail_next()
                await run.send(Add(7), key="once")
    async with storage.opened() as store:
        assert len((await store.load("run")).inbox) == 1
        async with ASKING.resume_from("run", store=store) as run:
            assert not await run.send(Add(7), key="once")
            await run.respond("yes")
            assert (await run.result())[:2] == ["yes", 7]
        assert not (await store.load("run")).inbox


# Deadlines


@attrs.frozen
class Tick(Event):
    n: int


@step
async def begin(ev: StartEvent) -> Tick:
    return Tick(3)


@step
async def tick(ev: Tick) -> Tick | StopEvent:
    await trio.sleep(10)
    return Tick(ev.n - 1) if ev.n > 1 else StopEvent("end")


TICKING = Workflow("ticking", [begin, tick], timeout=25)


async def killed_after(
    seconds: float, store: Any, durability: str = "sync", **options: Any
) -> None:
    """Run a workflow, then kill it: its store is severed before its tasks are cancelled."""
    faulty = FaultyStore(store)
    with trio.CancelScope() as scope:
        async with TICKING.run(store=faulty, run_id="run", durability=durability, **options):
            await trio.sleep(seconds)
            await faulty.sever()
            scope.cancel()


@pytest.mark.parametrize("durability", ["sync", "async"])
async def test_each_commit_stores_the_time_at_work(durability: str, autojump_clock: Any) -> None:
    store = MemoryStore()
    await killed_after(21, store, durability)
    assert (await store.load_snapshot("run")).elapsed == pytest.approx(20, abs=0.5)
    await trio.sleep(1000)  # no time at work passes while it is undriven
    began = trio.current_time()
    with pytest.raises(RunTimeoutError) as caught:
        await TICKING.resume_from("run", store=store)
    assert trio.current_time() - began == pytest.approx(5, abs=0.5)
    assert caught.value.active_steps == ("tick",)
    # A run that timed out gets its full time again.
    assert await TICKING.resume_from("run", store=store) == "end"
    assert (await store.load_snapshot("run")).elapsed == pytest.approx(10, abs=0.5)


async def test_exit_durability_resumes_with_the_time_on_disk(autojump_clock: Any) -> None:
    store = MemoryStore()
    await killed_after(21, store, "exit")
    assert (await store.load_snapshot("run")).elapsed == pytest.approx(0, abs=0.5)
    with pytest.raises(RunTimeoutError):
        await TICKING.resume_from("run", store=store, durability="exit")


@pytest.mark.parametrize("timeout", [100.0, None])
async def test_a_timeout_given_to_run_survives_a_resume(
    timeout: float | None, autojump_clock: Any
) -> None:
    store = MemoryStore()
    await killed_after(21, store, timeout=timeout)
    assert await TICKING.resume_from("run", store=store) == "end"


async def test_a_timeout_given_to_a_resume_starts_with_it(autojump_clock: Any) -> None:
    store = MemoryStore()
    await killed_after(21, store)
    began = trio.current_time()
    with pytest.raises(RunTimeoutError) as caught:
        await TICKING.resume_from("run", store=store, timeout=7)
    assert trio.current_time() - began == pytest.approx(7, abs=0.5)
    assert caught.value.timeout == 7
    assert await TICKING.resume_from("run", store=store, timeout=11) == "end"


async def test_a_pause_and_a_snapshot_contain_the_time_at_work(autojump_clock: Any) -> None:
    async with TICKING.run() as run:
        await trio.sleep(21)
        await run.pause(grace=0)
        await trio.sleep(500)
        snapshot = await run.snapshot()
    assert snapshot.elapsed == pytest.approx(21, abs=0.5)
    with pytest.raises(RunTimeoutError):
        await TICKING.resume(snapshot)
    async with TICKING.resume(snapshot, timeout=None) as run:
        await trio.testing.wait_all_tasks_blocked()
        assert await run.result() == "end"
