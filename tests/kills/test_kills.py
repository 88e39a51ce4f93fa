"""Real processes are killed. A run that uses every feature resumes, nothing lost or doubled."""

from __future__ import annotations

import ast
import contextlib
import os
import random
import signal
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from blazen_trio import MemoryStore, RunLockedError, RunNotFoundError, RunStatus, open_store
from tests.mixed import INPUT, Log, check_result, mixed_workflow, pending_keys_of
from tests.thorough import try_many

if TYPE_CHECKING:
    from tests.kills.conftest import Scene

SEEDS = range(try_many(8, 100))
REDONE: dict[int, int] = {}
LOST: dict[str, list[int]] = {}


async def stored(scene: Scene) -> Any:
    """Return the stored, undriven run; `None`: nothing is stored yet."""
    async with open_store(scene.url) as store:
        try:
            return await store.load_snapshot("run")
        except RunNotFoundError:
            return None


async def undisturbed_commits() -> Any:
    """Return how often each step commits in an undisturbed run."""
    store = MemoryStore()
    check_result(await mixed_workflow(Log(), slowness=0.0).run(INPUT, store=store, run_id="run"))
    return (await store.load_snapshot("run")).state["commits"]


@attrs.define
class Ledger:
    """The deliveries, by key, that were committed or in flight at the kills so far."""

    seen: int = 0
    committed: set[str] = attrs.field(factory=set)
    in_flight: set[str] = attrs.field(factory=set)
    redone: int = 0

    def check(self, attempts: list[str]) -> None:
        """Check what has started since the last kill against what was on disk then."""
        since = set(attempts[self.seen :])
        assert not since & self.committed, "a step whose commit was on disk ran again"
        self.redone += len(since & self.in_flight)
        self.in_flight -= since

    def kill(self, attempts: list[str], pending: set[str]) -> None:
        """Record a kill, after which these deliveries are pending on disk."""
        self.seen = len(attempts)
        self.committed |= set(attempts) - pending
        self.in_flight |= set(attempts) & pending


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_run_killed_repeatedly_ends_correctly(scene: Scene, seed: int) -> None:
    chance = random.Random(seed)
    ledger = Ledger()
    kills_inside = 0
    while True:
        child = scene.start()
        started = ledger.seen + chance.randint(4, 30)
        if not scene.wait(child, lambda started=started: len(scene.attempts()) >= started):
            break
        scene.kill(child, chance)
        ledger.check(scene.attempts())
        snapshot = await stored(scene)
        if snapshot.status is not RunStatus.COMPLETED:
            kills_inside += snapshot.seq > 1
        ledger.kill(scene.attempts(), pending_keys_of(snapshot))
    ledger.check(scene.attempts())
    check_result(ast.literal_eval(scene.last_words(child)))
    assert not ledger.in_flight, "a step that was in flight at a kill was never redone"
    final = await stored(scene)
    assert final.status is RunStatus.COMPLETED
    assert final.state["commits"] == await undisturbed_commits()
    assert kills_inside
    REDONE[seed] = ledger.redone


def test_some_steps_were_redone_in_some_seed() -> None:
    if len(REDONE) < len(SEEDS):
        pytest.skip("the seeds did not all run in this process")
    assert sum(REDONE.values()) > 0, "no kill hit a step in flight: this proves nothing"


async def test_a_take_over_on_the_same_host_does_not_wait_for_the_lease(scene: Scene) -> None:
    child = scene.start()
    assert scene.wait(child, lambda: len(scene.attempts()) >= 10)
    scene.kill(child)
    async with open_store(scene.url) as store:
        workflow = mixed_workflow(Log(), slowness=0.004)
        with trio.fail_after(10):  # the lease has 15 seconds
            async with workflow.resume_from("run", store=store) as run:
                assert run.status is RunStatus.RUNNING
                run.cancel()


# The three durabilities


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_kill_loses_only_what_the_durability_allows(
    scene: Scene, durability: str, seed: int
) -> None:
    """The log of a chain of ticks shows the last started tick, and the last acknowledged one."""
    chance = random.Random(seed)
    order: dict[str, Any] = {
        "durability": durability,
        "ticks": 2000 if durability == "async" else 250,
    }
    acknowledge = chance.randint(5, 60)
    until = acknowledge + chance.randint(5, 150)
    standing = durability == "exit" and seed % 2 == 0
    child = scene.start(
        **order,
        acknowledge=acknowledge,
        standing=standing,
        # If nothing is written in between, it makes no difference that it waits when it is killed.
        hold=until if durability == "exit" else -1,
    )
    if scene.wait(
        child, lambda: bool(scene.noted("acknowledged")) and scene.noted("tick")[-1] >= until
    ):
        scene.kill(child, chance)
    (acknowledged,), ticks = scene.noted("acknowledged"), scene.noted("tick")
    on_disk = await stored(scene)
    if on_disk.status is RunStatus.COMPLETED:
        return  # it ended before the kill
    kept = on_disk.state["n"]
    lost = ticks[-1] - 1 - kept  # that were certainly decided; the last one may have been, too
    LOST.setdefault(durability, []).append(lost)
    assert acknowledged <= kept <= ticks[-1]
    if durability == "sync":
        assert lost <= 0
    elif durability == "async":
        assert lost <= 256
    elif standing:
        assert kept == acknowledged, "more is on disk than was acknowledged"
    again = len(ticks)
    assert int(scene.last_words(scene.start(**order))) == sum(range(order["ticks"]))
    # Lost ticks are redone in order, and no earlier ones.
    assert scene.noted("tick")[again:] == list(range(kept + 1, order["ticks"]))


def test_each_durability_was_killed_in_the_middle() -> None:
    if len(LOST) < 3:
        pytest.skip("not all of them ran in this process")
    assert max(LOST["exit"]) > 0


@pytest.mark.parametrize("durability", ["async", "exit"])
async def test_a_run_with_every_feature_and_less_durability_ends_correctly(
    scene: Scene, durability: str
) -> None:
    chance = random.Random(durability)
    for _ in range(3):
        child = scene.start(durability=durability)
        started = len(scene.attempts()) + chance.randint(3, 25)
        if not scene.wait(child, lambda started=started: len(scene.attempts()) >= started):
            break
        scene.kill(child, chance)
    child = scene.start(durability=durability)
    check_result(ast.literal_eval(scene.last_words(child)))
    assert (await stored(scene)).state["commits"] == await undisturbed_commits()


# Two at once


async def test_only_one_of_two_processes_that_resume_a_run_drives_it(scene: Scene) -> None:
    child = scene.start()
    assert scene.wait(child, lambda: len(scene.attempts()) >= 3)
    scene.kill(child)
    before = len(scene.lines())
    children = [scene.start(slowness=0.02) for _ in range(2)]
    words = {scene.last_words(child) for child in children}
    # The second one is refused, unless it came so late that it gets the stored result.
    words.discard("RunLockedError")
    (result,) = words
    check_result(ast.literal_eval(result))
    drove = {pid for pid, what, _ in scene.lines()[before:] if what.startswith("run:")}
    assert len(drove) == 1, "both ran steps of it"


async def test_a_driven_run_is_refused_to_another_process(scene: Scene) -> None:
    child = scene.start(ticks=100, hold=5)
    assert scene.wait(child, lambda: 5 in scene.noted("tick"))
    other = scene.start(ticks=100)
    assert scene.last_words(other) == "RunLockedError"
    assert child.is_alive()
    scene.kill(child)
    assert int(scene.last_words(scene.start(ticks=100))) == sum(range(100))


async def test_a_frozen_and_replaced_driver_writes_nothing_more(scene: Scene) -> None:
    child = scene.start(lease_ttl=0.5)
    assert scene.wait(child, lambda: len(scene.attempts()) >= 8)
    freeze_between_transactions(scene, child)
    async with open_store(scene.url) as store:
        with trio.fail_after(120):
            check_result(await resume_when_free(mixed_workflow(Log(), slowness=0.004), store))
        before = rows(scene)
        os.kill(child.pid, signal.SIGCONT)
        assert await trio.to_thread.run_sync(scene.last_words, child) == "StaleRunError"
        assert rows(scene) == before


def freeze_between_transactions(scene: Scene, child: Any) -> None:
    """Freeze a process outside of a transaction.

    Inside one, it would keep an SQLite file locked until it continues, which is not tested here.
    So it is frozen while the lock is ours.
    """
    with contextlib.closing(
        sqlite3.connect(scene.folder / "runs.db", timeout=20, isolation_level=None)
    ) as connection:
        connection.execute("BEGIN IMMEDIATE")
        os.kill(child.pid, signal.SIGSTOP)
        time.sleep(0.05)  # until the signal has reached all its threads, which can't be observed
        connection.execute("ROLLBACK")


def rows(scene: Scene) -> list[Any]:
    """Return everything that is stored of runs."""
    with contextlib.closing(sqlite3.connect(scene.folder / "runs.db")) as connection:
        tables = [
            "blazen_run",
            "blazen_journal",
            "blazen_snapshot",
            "blazen_history",
            "blazen_blob",
            "blazen_inbox",
        ]
        return [connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables]


async def resume_when_free(workflow: Any, store: Any) -> Any:
    """Wait until its lease has expired by the database's clock."""
    while True:
        try:
            return await workflow.resume_from("run", store=store)
        except RunLockedError:
            await trio.sleep(0.05)
