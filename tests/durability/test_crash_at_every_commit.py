"""A run that uses every feature is stopped before and after each commit, and ends the same way."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from blazen_trio import MemoryStore, RunNotFoundError, RunStatus, StoreError, open_store
from blazen_trio.testing import FaultyStore
from tests.mixed import INPUT, Log, check_result, mixed_workflow, pending_keys_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from blazen_trio import CheckpointStore


@asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncIterator[CheckpointStore]:
    if kind == "memory":
        yield MemoryStore()
    else:
        async with open_store(f"sqlite:///{folder / 'runs.db'}") as store:
            yield store


async def pending_keys(store: Any, run_id: str) -> set[str] | None:
    """Return the idempotency keys of the deliveries pending on disk; `None`: there is no run."""
    try:
        snapshot = await store.load_snapshot(run_id)
    except RunNotFoundError:
        return None
    return pending_keys_of(snapshot)


async def crash_and_resume(
    store: Any, run_id: str, *, before: int | None, after: int | None, durability: str
) -> Log:
    """Crash a run at a commit, resume it, and check its end. Return what ran after the crash."""
    first, second = Log(), Log()
    faulty = FaultyStore(store, fail_before=before, fail_after=after)
    workflow = mixed_workflow(first, durability=durability)
    with pytest.raises(StoreError, match="severed"):
        await workflow.run(INPUT, store=faulty, run_id=run_id)
    pending = await pending_keys(store, run_id)
    again = mixed_workflow(second, durability=durability)
    if pending is None:
        check_result(await again.run(INPUT, store=store, run_id=run_id))
        return second
    check_result(await again.resume_from(run_id, store=store))
    begun_before = {key for key, _ in first.attempts}
    redone = {key for key, _ in second.attempts} & begun_before
    assert redone <= pending, "a step whose commit was on disk ran again"
    return second


async def commits_of_an_undisturbed_run(store: Any, durability: str) -> int:
    faulty = FaultyStore(store)
    check_result(
        await mixed_workflow(Log(), durability=durability).run(
            INPUT, store=faulty, run_id="undisturbed"
        )
    )
    return faulty.commits


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_crash_at_each_commit_in_memory(when: str, autojump_clock: Any) -> None:
    store = MemoryStore()
    commits = await commits_of_an_undisturbed_run(store, "sync")
    redone = 0
    for number in range(1, commits + 1):
        at: dict[str, Any] = {"before": None, "after": None, when: number}
        try:
            log = await crash_and_resume(store, f"{when} {number}", durability="sync", **at)
        except pytest.fail.Exception:
            # Conflicts make the number of commits vary a little: this run had ended before.
            assert number > commits - 6
            continue
        redone += len(log.attempts)
        snapshot = await store.load_snapshot(f"{when} {number}")
        assert snapshot.status is RunStatus.COMPLETED
        # Each step has had its effect on the run exactly once, however often it started.
        assert (
            snapshot.state["commits"] == (await store.load_snapshot("undisturbed")).state["commits"]
        )
    assert redone > 0


@pytest.mark.parametrize("durability", ["async", "exit"])
async def test_a_crash_at_each_commit_with_less_durability(
    durability: str, autojump_clock: Any
) -> None:
    store = MemoryStore()
    commits = await commits_of_an_undisturbed_run(store, durability)
    for number in range(1, commits + 1):
        try:
            await crash_and_resume(
                store, f"run {number}", before=None, after=number, durability=durability
            )
        except pytest.fail.Exception:
            assert number > commits - 6
            continue
        assert (await store.get_run(f"run {number}")).status is RunStatus.COMPLETED


@pytest.mark.parametrize("number", range(1, 40, 3))
async def test_a_crash_at_some_commits_on_sqlite(number: int, tmp_path: Path) -> None:
    async with opened("sqlite", tmp_path) as store:
        await crash_and_resume(store, "before", before=number, after=None, durability="sync")
    async with opened("sqlite", tmp_path) as store:
        await crash_and_resume(store, "after", before=None, after=number, durability="sync")
        snapshots = [await store.load_snapshot(run_id) for run_id in ("before", "after")]
    assert snapshots[0].state["commits"] == snapshots[1].state["commits"]
    assert snapshots[0].result == snapshots[1].result
