"""A run resumes exactly from each fold of its journal, and folded entries are deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from blazen_trio import (
    Context,
    Event,
    MemoryStore,
    RetryPolicy,
    RunStatus,
    StartEvent,
    StepFailedError,
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
WRITTEN_ALONG = pytest.mark.parametrize("durability", ["sync", "async"])
STEPS = 500


@attrs.frozen
class Tick(Event):
    n: int
    ballast: str = ""


@step
async def begin(ev: StartEvent) -> Tick:
    return Tick(STEPS)


@step
async def tick(ev: Tick, ctx: Context) -> Tick | StopEvent:
    """Write half a kilobyte of journal per step over a state of a few bytes."""
    ctx.update("sum", lambda total: total + ev.n, 0)
    if ev.n == 0:
        return StopEvent(ctx.get("sum"))
    return Tick(ev.n - 1, "x" * 400)


CHAIN = Workflow("chain", [begin, tick], timeout=None)
SUM = STEPS * (STEPS + 1) // 2


class Folds(FaultyStore):
    """A store that records which of its commits contained a snapshot."""

    def __init__(self, store: Any, **options: Any) -> None:
        super().__init__(store, **options)
        self.folds: list[int] = []

    async def commit(self, driver: Any, commit: Any) -> None:
        if commit.snapshot is not None:
            self.folds.append(self.commits + 1)
        await super().commit(driver, commit)


async def folds_of_an_undisturbed_run(durability: str) -> list[int]:
    store = Folds(MemoryStore())
    assert await CHAIN.run(store=store, durability=durability) == SUM
    return store.folds


@on_each_store
async def test_a_crash_around_each_fold(kind: str, tmp_path: Path) -> None:
    folds = await folds_of_an_undisturbed_run("sync")
    assert len(folds) >= 3
    storage = Storage(kind, tmp_path)
    if kind == "sqlite":
        folds = folds[-1:]
    for at in [number + near for number in folds for near in (-1, 0, 1)]:
        for where in ("fail_before", "fail_after"):
            run_id = f"{where} {at}"
            crash: dict[str, Any] = {where: at}
            async with storage.opened() as store:
                with pytest.raises(StoreError):
                    await CHAIN.run(store=FaultyStore(store, **crash), run_id=run_id)
            async with storage.opened() as store:
                stored = await store.load(run_id)
                assert stored.snapshot is not None or at <= folds[0]
                assert await CHAIN.resume_from(run_id, store=store) == SUM


@WRITTEN_ALONG
async def test_folded_entries_are_deleted_from_the_database(
    durability: str, tmp_path: Path
) -> None:
    storage = Storage("sqlite", tmp_path)
    async with storage.opened() as store:
        folds = Folds(store)
        assert await CHAIN.run(store=folds, run_id="run", durability=durability) == SUM
        assert folds.folds
        snapshot_seq = (await store.load("run")).snapshot[0]
        seqs = [seq for (seq,) in storage.rows("select seq from blazen_journal order by seq")]
        assert seqs == list(range(snapshot_seq + 1, snapshot_seq + 1 + len(seqs)))
        assert storage.rows("select count(*) from blazen_snapshot") == [(1,)]
        size = storage.rows("select sum(length(data)) from blazen_journal")[0][0]
        assert size < 70_000 + 256 * 600
        assert await CHAIN.resume_from("run", store=store) == SUM


async def test_a_run_of_exit_durability_is_stored_as_one_snapshot(tmp_path: Path) -> None:
    storage = Storage("sqlite", tmp_path)
    async with storage.opened() as store:
        faulty = FaultyStore(store)
        assert await CHAIN.run(store=faulty, durability="exit", run_id="run") == SUM
        assert faulty.commits == 2
        assert storage.rows("select count(*) from blazen_journal") == [(0,)]
        assert (await store.load_snapshot("run")).state["sum"] == SUM


async def test_a_run_that_only_retries_is_folded_too(autojump_clock: Any) -> None:
    """The state bounds the journal, whichever kind of entry fills it."""

    @step(retry=RetryPolicy(max_attempts=2000, initial_delay=1, multiplier=1, jitter=0))
    async def fails(ev: StartEvent) -> StopEvent:
        msg = "not yet"
        raise OSError(msg)

    store = MemoryStore()
    with pytest.raises(StepFailedError) as caught:
        await Workflow("fails", [fails], timeout=None).run(store=store, run_id="run")
    assert caught.value.attempts == 2000
    stored = await store.load("run")
    assert sum(len(data) for _, data in stored.entries) < 70_000


# Large values


@attrs.frozen
class Write(Event):
    n: int


def large(n: int) -> str:
    return f"{n:06}" + "y" * 40_000


@step
async def start(ev: StartEvent, ctx: Context) -> Write:
    ctx.set("kept", large(0))
    return Write(1)


@step
async def write(ev: Write, ctx: Context) -> Write | StopEvent:
    """Replace a large value by a new one in each tenth step."""
    assert ctx.get("kept") == large(0)
    if ev.n % 10 == 0:
        ctx.set("current", large(ev.n))
    ctx.set("ballast", "z" * 1000)
    return Write(ev.n + 1) if ev.n < 300 else StopEvent(ctx.get("current") == large(300))


LARGE = Workflow("large", [start, write], timeout=None)


class Blobs(Folds):
    """A store that records the large values that it receives."""

    def __init__(self, store: Any, **options: Any) -> None:
        super().__init__(store, **options)
        self.digests: list[str] = []
        self.widest = 0

    async def commit(self, driver: Any, commit: Any) -> None:
        self.digests += commit.blobs
        self.widest = max([self.widest, *(len(data) for _, data in commit.entries)])
        if commit.snapshot is not None:
            self.widest = max(self.widest, len(commit.snapshot.data))
        await super().commit(driver, commit)


@on_each_store
@WRITTEN_ALONG
async def test_large_values_are_stored_once_and_deleted_when_unused(
    kind: str, durability: str, tmp_path: Path
) -> None:
    storage = Storage(kind, tmp_path)
    async with storage.opened() as store:
        blobs = Blobs(store)
        assert await LARGE.run(store=blobs, run_id="run", durability=durability)
        assert len(blobs.digests) == len(set(blobs.digests)) == 31
        assert blobs.widest < 4000, "a large value is in an entry or a snapshot"
        assert len(blobs.folds) >= 3
        # Values that the last snapshot or a later entry refers to are kept.
        assert len((await store.load("run")).blobs) < 15
        state = (await store.load_snapshot("run")).state
        assert (state["kept"], state["current"]) == (large(0), large(300))
        if kind == "sqlite":
            assert len(storage.rows("select distinct digest from blazen_blob")) < 15
    async with storage.opened() as store:
        assert await LARGE.resume_from("run", store=store)


@pytest.mark.parametrize("number", range(20, 300, 40))
async def test_large_values_are_not_stored_again_after_a_crash(number: int) -> None:
    store = MemoryStore()
    before, after = Blobs(store, fail_after=number), Blobs(store)
    with pytest.raises(StoreError):
        await LARGE.run(store=before, run_id="run")
    assert await LARGE.resume_from("run", store=after)
    both = before.digests + after.digests
    assert len(both) == len(set(both)) == 31


# Wide fan-outs


@attrs.frozen
class Member(Event):
    n: int


@attrs.frozen
class Done(Event):
    n: int


@step
async def spread(ev: StartEvent) -> list[Member]:
    return [Member(n) for n in range(ev.data)]


@step
async def work(ev: Member) -> Done:
    await trio.sleep(ev.n % 7)
    return Done(ev.n)


@step
async def gather(done: list[Done]) -> StopEvent:
    return StopEvent([one.n for one in done])


FAN = Workflow("fan", [spread, work, gather], timeout=None, max_concurrency=50)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_fan_out_keeps_its_order_across_folds_and_crashes(
    durability: str, autojump_clock: Any
) -> None:
    store = MemoryStore()
    folds = 0
    resumed = FAN.run(1500, store=Folds(store, fail_after=150), run_id="run", durability=durability)
    for _ in range(100):
        faulty = Folds(store, fail_after=150)
        try:
            result = await resumed
        except StoreError:
            resumed = FAN.resume_from("run", store=faulty, durability=durability)
            folds += len(faulty.folds)
        else:
            break
    assert result == list(range(1500))
    assert (await store.get_run("run")).status is RunStatus.COMPLETED


async def test_a_wide_fan_out_on_sqlite_costs_few_bytes_per_event(tmp_path: Path) -> None:
    width = 30_000
    storage = Storage("sqlite", tmp_path)

    @step
    async def stuck(ev: Member) -> Done:
        await trio.sleep_forever()
        return Done(ev.n)

    with trio.CancelScope() as scope:
        async with (
            storage.opened() as store,
            Workflow("fan", [spread, stuck, gather], timeout=None, max_concurrency=1).run(
                width, store=store, run_id="run"
            ),
        ):
            # Until the fan-out is on disk.
            while store.statistics().bytes < width:  # noqa: ASYNC110
                await trio.sleep(0.01)
            scope.cancel()
    for table in ("blazen_journal", "blazen_snapshot"):
        assert (storage.rows(f"select sum(length(data)) from {table}")[0][0] or 0) < width * 100
    async with storage.opened() as store:
        assert len((await store.load_snapshot("run")).deliveries) == width
        before = store.statistics()
        fan = Workflow("fan", [spread, at_once, gather], timeout=None)
        assert await fan.resume_from("run", store=store, durability="exit") == list(range(width))
        assert store.statistics().commits - before.commits < 10


@step(name="stuck")
async def at_once(ev: Member) -> Done:
    return Done(ev.n)
