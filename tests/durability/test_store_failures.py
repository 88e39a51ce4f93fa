"""A run stops if its store fails or it is lost; every caller gets the error; it can be resumed."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing

from blazen_trio import (
    Context,
    Delayed,
    Event,
    InputRequestEvent,
    InputRequiredError,
    InputResponseEvent,
    MemoryStore,
    RetryPolicy,
    RunPausedError,
    RunStatus,
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
    from collections.abc import AsyncIterator
    from pathlib import Path

    from blazen_trio import Run

on_each_store = pytest.mark.parametrize("kind", ["memory", "sqlite"])
in_each_mode = pytest.mark.parametrize("durability", ["sync", "async", "exit"])


@attrs.frozen
class Nudge(Event):
    n: int


@attrs.frozen
class Slow(Event):
    pass


CANCELLED: list[str] = []


@step
async def begin(ev: StartEvent) -> tuple[Slow, InputRequestEvent] | InputRequestEvent:
    question = InputRequestEvent("well?", request_id="q")
    return (Slow(), question) if ev.data == "slow" else question


@step
async def slow(ev: Slow) -> StopEvent:
    try:
        await trio.sleep_forever()
    finally:
        CANCELLED.append("slow")
    return StopEvent()


@step
async def take(ev: Nudge, ctx: Context) -> StopEvent | None:
    ctx.update("sum", lambda total: total + ev.n, 0)
    return StopEvent(ctx.get("sum")) if ev.n == 0 else None


@step
async def answered(ev: InputResponseEvent) -> StopEvent:
    return StopEvent(ev.response)


WORKFLOW = Workflow("fails", [begin, slow, take, answered], external=[Nudge])
CALLS = {
    "send": lambda run: run.send(Nudge(1)),
    "send with a key": lambda run: run.send(Nudge(1), key="k"),
    "respond": lambda run: run.respond("yes"),
    "pause": lambda run: run.pause(grace=0),
    "snapshot": lambda run: run.snapshot(),
    "result": lambda run: run.result(),
}


async def until_asked(run: Run) -> None:
    while not run.input_requests:  # noqa: ASYNC110  # no event reports it
        await trio.lowlevel.checkpoint()


@in_each_mode
@pytest.mark.parametrize("call", ["send", "send with a key", "respond", "pause"])
async def test_a_call_whose_commit_fails_raises_and_so_do_all_later_calls(
    call: str, durability: str
) -> None:
    CANCELLED.clear()
    store = MemoryStore()
    faulty = FaultyStore(store)
    async with WORKFLOW.run("slow", store=faulty, run_id="run", durability=durability) as run:
        await until_asked(run)
        await run.snapshot()
        faulty.fail_next()
        with pytest.raises(StoreError, match="severed"):
            await CALLS[call](run)
        errors = []
        for name in ("result", "send", "respond", "pause", "result"):
            with pytest.raises(StoreError, match="severed") as caught:
                await CALLS[name](run)
            assert caught.value.run_id == "run"
            errors.append(caught.value)
        assert len({id(error) for error in errors}) == len(errors)
        assert CANCELLED == ["slow"], "a step in flight was not cancelled and awaited"
    # The stored run is as it was before, and resumes.
    stored = await store.load_snapshot("run")
    assert stored.status in (RunStatus.RUNNING, RunStatus.WAITING)
    assert len(stored.input_requests) == 1
    async with WORKFLOW.resume_from("run", store=store) as run:
        if call != "respond":  # its answer was in the inbox before the commit that takes it failed
            await run.respond("yes")
        assert await run.result() == "yes"


@in_each_mode
async def test_the_end_of_the_block_raises_an_error_that_no_call_has_raised(
    durability: str,
) -> None:
    store = MemoryStore()
    with pytest.raises(StoreError, match="severed"):
        async with WORKFLOW.run(
            store=FaultyStore(store, fail_before=2), run_id="run", durability=durability
        ):
            await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(InputRequiredError):
        await WORKFLOW.resume_from("run", store=store)


@in_each_mode
async def test_a_stop_event_that_could_not_be_stored_is_not_a_result(durability: str) -> None:
    store = MemoryStore()
    faulty = FaultyStore(store)
    async with WORKFLOW.run(store=faulty, run_id="run", durability=durability) as run:
        stream = run.stream()
        with pytest.raises(InputRequiredError):
            await run.result()
        await run.send(Nudge(3))
        await run.snapshot()
        faulty.fail_after = None
        await run.pause()
        await run.send(Nudge(0))
        faulty.fail_next()
        with pytest.raises(StoreError):
            # Unpausing is not stored by itself; the outcome of the step is.
            await run.unpause()
            await run.result()
        assert [event async for event in stream if isinstance(event, StopEvent)] == []
    assert await WORKFLOW.resume_from("run", store=store) == 3


async def test_no_step_starts_after_a_failed_commit(autojump_clock: Any) -> None:
    started: list[int] = []

    @step
    async def fan(ev: StartEvent) -> list[Nudge]:
        return [Nudge(n) for n in range(1, 20)]

    @step(max_concurrency=2)
    async def member(ev: Nudge) -> StopEvent | None:
        started.append(ev.n)
        await trio.sleep(ev.n)
        return None

    faulty = FaultyStore(MemoryStore(), fail_before=4)
    with pytest.raises(StoreError):
        await Workflow("fan", [fan, member]).run(store=faulty)
    assert started == [1, 2, 3]


# Cancelled from outside


@on_each_store
@in_each_mode
async def test_a_cancelled_run_writes_its_commits_and_releases_itself(
    kind: str, durability: str, tmp_path: Path
) -> None:
    storage = Storage(kind, tmp_path)
    done = trio.Event()

    @step
    async def first(ev: StartEvent) -> Nudge:
        return Nudge(50)

    @step
    async def count(ev: Nudge, ctx: Context) -> Nudge | Slow:
        ctx.set("at", ev.n)
        return Nudge(ev.n - 1) if ev.n else Slow()

    @step
    async def last(ev: Slow, ctx: Context) -> StopEvent:
        if ctx.get("at") == 0 and not done.is_set():
            done.set()
            await trio.sleep_forever()
        return StopEvent("end")

    workflow = Workflow("flushed", [first, count, last], durability=durability)
    async with storage.opened() as store, storage.opened() as other:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: workflow.run(store=store, run_id="run"))
            await done.wait()
            nursery.cancel_scope.cancel()
        stored = await other.load_snapshot("run")
        assert stored.status is RunStatus.RUNNING
        assert stored.state == {"at": 0}
        assert [one.step for one in stored.deliveries] == ["last"]
        # The other opening may drive it immediately, although the first is still open.
        assert await workflow.resume_from("run", store=other) == "end"


class WillNotRelease(FaultyStore):
    async def release(self, driver: Any, **_options: Any) -> None:
        await trio.lowlevel.cancel_shielded_checkpoint()
        raise StoreError("the database is gone")


async def test_a_failed_release_does_not_hide_a_cancellation() -> None:
    with trio.CancelScope() as scope:
        async with WORKFLOW.run("slow", store=WillNotRelease(MemoryStore())) as run:
            await until_asked(run)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_the_end_of_the_block_raises_a_failed_release() -> None:
    store = MemoryStore()
    with pytest.raises(StoreError, match="is gone"):
        async with WORKFLOW.run(store=WillNotRelease(store), run_id="run") as run:
            await run.pause()
    with pytest.raises(ExceptionGroup) as caught:
        async with WORKFLOW.run(store=WillNotRelease(store), run_id="other") as run:
            await until_asked(run)
            raise ZeroDivisionError
    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError, StoreError]


# Lost to another process


@asynccontextmanager
async def lost(kind: str, folder: Path, durability: str) -> AsyncIterator[tuple[Run, Any]]:
    """A waiting run that another opening has taken over, and that opening."""
    storage = Storage(kind, folder)
    async with storage.opened() as store, storage.opened() as other:
        async with WORKFLOW.run("slow", store=store, run_id="run", durability=durability) as run:
            await until_asked(run)
            await run.snapshot()
            if kind == "sqlite":
                # Like a lease that has expired and was declared dead.
                storage.rows("update blazen_lease set state = 0")
            else:
                store.expire()
            async with WORKFLOW.resume_from("run", store=other) as taken:
                yield run, taken
                await taken.respond("by the other")
                assert await taken.result() == "by the other"
        assert (await other.load_snapshot("run")).state == {}


@pytest.mark.parametrize("kind", ["sqlite"])
@in_each_mode
async def test_a_lost_run_writes_nothing_more_and_raises(
    kind: str, durability: str, tmp_path: Path
) -> None:
    CANCELLED.clear()
    async with lost(kind, tmp_path, durability) as (run, _):
        with pytest.raises(StaleRunError) as caught:
            await run.send(Nudge(1))
        assert caught.value.run_id == "run"
        for call in ("result", "respond", "send", "pause"):
            with pytest.raises(StaleRunError):
                await CALLS[call](run)
        assert CANCELLED == ["slow"]


@in_each_mode
async def test_the_end_of_the_block_raises_the_loss_of_a_run(durability: str) -> None:
    store = MemoryStore()
    with pytest.raises(StaleRunError):
        async with WORKFLOW.run(store=store, run_id="run", durability=durability) as run:
            await until_asked(run)
            await run.snapshot()
            store.expire()
            other = store.beside()
            driver = (await other.claim("run")).driver
            assert driver is not None
            await other.release(driver)
            with trio.CancelScope() as scope:
                scope.cancel()
                await run.send(Nudge(1))  # cancelled, so it did not happen
            run.cancel()
    with pytest.raises(InputRequiredError):
        await WORKFLOW.resume_from("run", store=store)


# How far ahead of the disk


class Stuck(FaultyStore):
    """A store whose commits wait, in order, until `go` is set."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.go = trio.Event()
        self.go.set()
        self._order = trio.Lock()

    async def commit(self, driver: Any, commit: Any) -> None:
        with trio.CancelScope(shield=True):
            async with self._order:
                await self.go.wait()
                await super().commit(driver, commit)


@in_each_mode
async def test_an_end_that_was_not_stored_has_no_snapshot(durability: str) -> None:
    faulty = FaultyStore(MemoryStore())
    async with WORKFLOW.run(store=faulty, run_id="run", durability=durability) as run:
        await until_asked(run)
        await run.snapshot()
        faulty.fail_next()
        with pytest.raises(StoreError):
            await run.respond("yes")
        with pytest.raises(StoreError):
            await run.result()
        with pytest.raises(StoreError, match="severed"):
            await run.snapshot()


@in_each_mode
@pytest.mark.parametrize("call", ["pause", "result", "snapshot"])
async def test_a_snapshot_contains_only_what_is_on_disk(
    call: str, durability: str, autojump_clock: Any
) -> None:
    store = MemoryStore()
    stuck = Stuck(store)
    found: list[Snapshot] = []

    async def take() -> None:
        try:
            found.append(await CALLS[call](run))
        except RunPausedError as paused:
            found.append(paused.snapshot)

    async with (
        WORKFLOW.run(store=stuck, run_id="run", durability=durability) as run,
        trio.open_nursery() as nursery,
    ):
        await until_asked(run)
        await run.pause()
        stuck.go = trio.Event()
        nursery.start_soon(run.send, Nudge(1))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(take)
        await trio.sleep(1)
        assert found == []
        stuck.go.set()
    assert found[0].seq == (await store.load_snapshot("run")).seq


@pytest.mark.parametrize("what", ["retries", "delayed"])
async def test_every_kind_of_commit_waits_once_an_async_run_is_far_ahead(
    what: str, autojump_clock: Any
) -> None:
    """At most 256 commits are behind, also of failing steps and of events due at the same time."""

    @step
    async def fan(ev: StartEvent) -> list[Nudge | Delayed[Nudge]]:
        return [Delayed(Nudge(n), 1.0) if what == "delayed" else Nudge(n) for n in range(2000)]

    @step(retry=RetryPolicy(max_attempts=2, initial_delay=0.5, jitter=0))
    async def member(ev: Nudge, ctx: Context) -> Slow:
        if what == "retries" and ctx.attempt == 1:
            await trio.sleep(1)
            raise OSError("once")
        return Slow()

    @step
    async def keep(ev: StartEvent) -> None:
        """Keep the run from parking between two due times, which would wait for the disk."""
        await trio.sleep(10)

    @step
    async def join(all_of_them: list[Slow]) -> StopEvent:
        return StopEvent(len(all_of_them))

    store = MemoryStore()
    stuck = Stuck(store)
    workflow = Workflow("ahead", [fan, keep, member, join], durability="async", timeout=None)
    async with workflow.run(store=stuck, run_id="run") as run:
        await trio.sleep(0.5)
        stuck.go = trio.Event()
        await trio.sleep(2)
        await trio.testing.wait_all_tasks_blocked()
        behind = run._core.state.seq - (await store.load_snapshot("run")).seq
        stuck.go.set()
        assert 200 <= behind <= 257
        assert await run.result() == 2000


@pytest.mark.parametrize("size", [30_000, 60_000], ids=["in the entry", "stored apart"])
async def test_async_is_never_more_than_4_mib_behind(size: int, autojump_clock: Any) -> None:
    @attrs.frozen
    class Big(Event):
        data: str

    @step
    async def fan(ev: StartEvent) -> list[Nudge]:
        return [Nudge(n) for n in range(500)]

    @step
    async def member(ev: Nudge) -> Big:
        await trio.sleep(1)
        return Big(f"{ev.n:05}" * (size // 5))

    @step
    async def join(big: list[Big]) -> StopEvent:
        return StopEvent(len(big))

    store = MemoryStore()
    stuck = Stuck(store)
    async with Workflow("big", [fan, member, join], durability="async").run(
        store=stuck, run_id="run"
    ) as run:
        await trio.sleep(0.5)
        stuck.go = trio.Event()
        await trio.sleep(2)
        await trio.testing.wait_all_tasks_blocked()
        behind = run._core.state.seq - (await store.load_snapshot("run")).seq
        stuck.go.set()
        assert 4 * 2**20 - size <= behind * size <= 4 * 2**20 + 60_000
        assert await run.result() == 500
