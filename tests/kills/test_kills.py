"""Real processes, really killed: a run with one of everything goes on by its id, with nothing lost and nothing doubled."""

from __future__ import annotations

import ast
import random
import signal
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio

from blazen_trio import MemoryStore, RunNotFoundError, RunStatus, open_store
from tests.mixed import INPUT, Log, check_result, mixed_workflow

if TYPE_CHECKING:
    import subprocess

SEEDS = range(20)
ATTEMPTS = 45  # about so many attempts an undisturbed run takes
REDONE: dict[int, int] = {}


def wait_for_attempts(scene: Any, child: subprocess.Popen[str], count: int) -> bool:
    """Wait until so many attempts have begun in all; false if the child has ended before."""
    while len(scene.attempts()) < count:
        if child.poll() is not None:
            return False
        time.sleep(0.001)
    return True


def kill(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGKILL)
    child.communicate()


async def stored(scene: Any) -> Any:
    """What is on disk while nobody drives the run; `None`: nothing yet."""
    async with open_store(scene.url) as store:
        try:
            return await store.load_snapshot(scene.run_id)
        except RunNotFoundError:
            return None


async def undisturbed_commits() -> Any:
    """How often each step commits, if nobody kills it."""
    store = MemoryStore()
    check_result(await mixed_workflow(Log(), slowness=0.0).run(INPUT, store=store, run_id="run"))
    return (await store.load_snapshot("run")).state["commits"]


@pytest.mark.parametrize("seed", SEEDS)
async def test_killed_again_and_again(scene: Any, seed: int) -> None:
    chance = random.Random(seed)
    kills_inside = redone = 0
    begun: set[str] = set()
    in_flight: set[str] = set()
    length = 0
    for _ in range(chance.randint(1, 2)):
        child = scene.start()
        if not wait_for_attempts(scene, child, length + chance.randint(3, ATTEMPTS // 2)):
            break
        kill(child)
        redone += check_redone(scene, length, begun, in_flight)
        snapshot = await stored(scene)
        if snapshot.status is RunStatus.COMPLETED:
            break
        kills_inside += snapshot.seq > 1
        attempts = scene.attempts()
        length, begun = len(attempts), {key for _, key, _ in attempts}
        in_flight = begun & {f"run:{one.id}:{one.step}" for one in snapshot.deliveries}
    with trio.fail_after(20):
        output = await last_words(scene.start())
    redone += check_redone(scene, length, begun, in_flight)
    check_result(ast.literal_eval(output))
    final = await stored(scene)
    assert final.status is RunStatus.COMPLETED
    assert final.state["commits"] == await undisturbed_commits()
    assert kills_inside
    REDONE[seed] = redone


def check_redone(scene: Any, length: int, begun: set[str], in_flight: set[str]) -> int:
    """After a kill, what was in flight runs again, and nothing else that had begun."""
    again = {key for _, key, _ in scene.attempts()[length:]} & begun
    assert again <= in_flight, "a step whose commit was on disk ran again"
    return len(again)


async def last_words(child: subprocess.Popen[str]) -> str:
    output, errors = await trio.to_thread.run_sync(child.communicate)
    assert child.returncode == 0, errors
    return output


def test_some_steps_were_redone_over_all_seeds() -> None:
    if len(REDONE) < len(SEEDS):
        pytest.skip("the seeds did not all run in this process")
    assert sum(REDONE.values()) > 0, "no kill hit a step in flight: this proves nothing"


async def test_taking_over_takes_no_longer_than_a_second(scene: Any) -> None:
    child = scene.start()
    assert wait_for_attempts(scene, child, 10)
    kill(child)
    async with open_store(scene.url) as store:
        workflow = mixed_workflow(Log(), slowness=0.004)
        with trio.fail_after(1):
            async with workflow.resume_from("run", store=store) as run:
                assert run.status is RunStatus.RUNNING
                run.cancel()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("durability", ["async", "exit"])
async def test_killed_with_less_durability(scene: Any, durability: str, seed: int) -> None:
    scene.durability = durability
    child = scene.start()
    assert wait_for_attempts(scene, child, random.Random(seed).randint(1, ATTEMPTS // 2))
    kill(child)
    snapshot = await stored(scene)
    if durability == "exit":
        assert snapshot.seq == 1, "something was written that nobody asked for"
    check_result(ast.literal_eval(await last_words(scene.start())))


async def test_two_processes_resume_one_run(scene: Any) -> None:
    child = scene.start()
    assert wait_for_attempts(scene, child, 3)
    kill(child)
    children = [scene.start() for _ in range(2)]
    outputs = [await trio.to_thread.run_sync(child.communicate) for child in children]
    results = {output.strip() for output, _ in outputs}
    # The second one is refused, unless it came so late that it is told the recorded result.
    results.discard("RunLockedError")
    (result,) = results
    check_result(ast.literal_eval(result))


async def test_a_frozen_driver_that_was_replaced_writes_nothing_more(scene: Any) -> None:
    scene.lease_ttl = 0.5
    child = scene.start()
    assert wait_for_attempts(scene, child, 8)
    freeze_between_transactions(scene, child)
    try:
        async with open_store(scene.url) as store:
            log = Log()
            with trio.fail_after(20):
                result = await resume_when_free(mixed_workflow(log, slowness=0.004), store)
            check_result(result)
            before = await store.load_snapshot("run")
            child.send_signal(signal.SIGCONT)
            output, errors = await trio.to_thread.run_sync(child.communicate)
            assert output.strip() == "StaleRunError", errors
            assert await store.load_snapshot("run") == before
    finally:
        child.kill()
        child.communicate()


def freeze_between_transactions(scene: Any, child: subprocess.Popen[str]) -> None:
    """A process that is frozen inside its transaction keeps an SQLite file locked until it goes on: not what is tested."""
    while True:
        child.send_signal(signal.SIGSTOP)
        connection = sqlite3.connect(scene.folder / "runs.db", timeout=0.2, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            child.send_signal(signal.SIGCONT)
            time.sleep(0.002)
        else:
            return
        finally:
            connection.close()


async def resume_when_free(workflow: Any, store: Any) -> Any:
    """Its lease has to expire first, on the database's clock."""
    while True:
        try:
            return await workflow.resume_from("run", store=store)
        except Exception as error:
            if type(error).__name__ != "RunLockedError":
                raise
            await trio.sleep(0.05)
