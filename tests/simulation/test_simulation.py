"""A simulated cluster, run with many seeds.

Whatever fails and whichever process dies, every invariant holds after every call, and every run
ends with the right result. `python -m tests.simulation` tries as many seeds as requested.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from blazen_trio._stores import memory
from blazen_trio._stores.sql.transaction import BatchTransaction
from tests.simulation.backends import InSqlite
from tests.simulation.invariants import BrokenError
from tests.simulation.storage import Opening
from tests.simulation.world import CALM, Plan, simulate

SEEDS = int(os.environ.get("BLAZEN_TRIO_SIMULATION_SEEDS", "10"))
SQL_SEEDS = SEEDS // 5
CRASH_POINTS = SEEDS


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_run_ends_correctly_in_memory(seed: int) -> None:
    world = simulate(seed)
    assert world.invariants.checks > 100


@pytest.mark.parametrize("seed", range(SQL_SEEDS))
def test_every_run_ends_correctly_in_sqlite(seed: int) -> None:
    with InSqlite.simulated() as backend:
        world = simulate(seed, backend=backend)
    assert world.invariants.checks > 100


@pytest.mark.parametrize("part", range(CRASH_POINTS))
def test_every_run_survives_a_death_at_any_scheduling_point(part: int) -> None:
    """The tested points are spread evenly over all points. There are no other faults."""
    points = simulate("crash", CALM).points
    at = 1 + part * (points - 1) // CRASH_POINTS
    world = simulate("crash", attrs.evolve(CALM, deaths=1, dies_at=at))
    assert world.deaths == 1


_PROGRAM = "from tests.simulation.world import simulate; print(simulate('the same').fingerprint)"


def test_a_seed_determines_all_that_happens() -> None:
    def run(hash_seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        root = Path(__file__).parents[2]
        command = [sys.executable, "-W", "ignore", "-c", _PROGRAM]
        done = subprocess.run(
            command, env=environment, cwd=root, capture_output=True, text=True, check=True
        )
        return done.stdout

    there = run("1")
    assert run("2") == there
    assert simulate("the same").fingerprint == there.strip() != simulate("another").fingerprint


def test_a_failure_names_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.simulation.world.SHORT_RESULT", "something else")
    with pytest.RaisesGroup(AssertionError, flatten_subgroups=True) as failed:
        simulate(7)
    assert any(note.startswith("seed 7, Plan(") for note in failed.value.__notes__)


# Does the simulation find faults? Each of these tests breaks one promise of a store.


SMALL = Plan(runs=1, stormy=30.0, deaths=3)


def some_seed_breaks(*, in_sql: bool = False, seeds: int = 30, plan: Plan | None = None) -> str:
    for seed in range(seeds):
        try:
            _simulate_in_sql(seed, plan) if in_sql else simulate(seed, plan)
        except BrokenError as broken:
            return str(broken)
        except Exception as error:
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            return f"{type(error).__name__}: {error}"
    return "nothing"


def _simulate_in_sql(seed: int, plan: Plan | None) -> None:
    with InSqlite.simulated() as backend:
        simulate(seed, plan, backend)


def test_the_simulation_finds_a_missing_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every former driver of a run can still write to it."""
    real = memory.MemoryStore.commit

    async def unfenced(self: memory.MemoryStore, driver: Any, commit: Any) -> None:
        kept = self._runs[commit.run_id]
        driving, kept.driver = kept.driver, driver
        driver.lost, driver.lease = None, self._own_lease()
        try:
            await real(self, driver, commit)
        finally:
            kept.driver = None if commit.release else driving

    monkeypatch.setattr(memory.MemoryStore, "commit", unfenced)
    assert "written by a process that does not drive the run" in some_seed_breaks()


def test_the_simulation_finds_a_store_that_ignores_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may write to every run that it drives, under any of its claims."""

    def driven_by(self: memory.MemoryStore, driver: Any) -> Any:
        kept = self._runs.get(driver.run_id)
        return kept if kept is not None and kept.owner is not None else None

    monkeypatch.setattr(memory.MemoryStore, "_driven_by", driven_by)
    monkeypatch.setattr(memory.MemoryDriver, "check", lambda _self: None)
    assert some_seed_breaks() != "nothing"


def test_the_simulation_finds_messages_that_are_delivered_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = memory.MemoryDriver.deliver

    def deliver(self: memory.MemoryDriver, mail: Any) -> None:
        real(self, [*mail, *mail])

    monkeypatch.setattr(memory.MemoryDriver, "deliver", deliver)
    assert "TooSlowError" in some_seed_breaks(plan=SMALL)  # a run is stuck


def test_the_simulation_finds_an_owed_release_that_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Opening, "owe", lambda _self, _again: None)
    # Without deaths, because a process that dies gives its runs back.
    assert "TooSlowError" in some_seed_breaks(plan=Plan(deaths=0))


def test_the_simulation_finds_a_lost_wake_time(monkeypatch: pytest.MonkeyPatch) -> None:
    real = memory.KeptRun.give_back

    def forgetful(self: Any, wake: float | None = None, hold: float = 0.0) -> None:
        real(self, wake, hold)
        if self.info.status is memory.RunStatus.WAITING:
            self.wake = None

    monkeypatch.setattr(memory.KeptRun, "give_back", forgetful)
    assert "no worker will ever take it" in some_seed_breaks()


def test_the_simulation_finds_messages_that_are_taken_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = BatchTransaction.append

    def leave_it_there(self: BatchTransaction, run_no: int, commit: Any, *large: Any) -> None:
        taken, commit.taken = commit.taken, ()
        real(self, run_no, commit, *large)
        commit.taken = taken

    monkeypatch.setattr(BatchTransaction, "append", leave_it_there)
    assert "a wrong result of meeting" in some_seed_breaks(in_sql=True, seeds=5, plan=SMALL)
