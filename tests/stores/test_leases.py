"""One driver per run: leases, take-over, and the fence against a process that wakes up late."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import trio

from blazen_trio._state.status import RunStatus
from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio.errors import RunLockedError, StaleRunError
from tests.databases import SERVERS, an_engine, execute, mark_holders_dead
from tests.forked import program
from tests.stores.by_id import ById, open_by_id

_NEW = NewRun("w", "1", 1.0)

# Drives the run `r`. For each line that it reads, it appends an entry and prints the outcome.
_DRIVER = """
import sys, trio
from tests.stores.by_id import open_by_id
from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio.errors import WorkflowError

async def main():
    async with open_by_id(sys.argv[1], lease_ttl=float(sys.argv[2]), migrate=True) as store:
        await store.create(NewRun("w", "1", 1.0), Commit("r", [(1, b"by the child")]))
        print("drives", flush=True)
        for line in sys.stdin:
            try:
                await store.commit(Commit("r", [(int(line), b"by the child")]))
                print("stored", flush=True)
            except WorkflowError as error:
                print(type(error).__name__, flush=True)

trio.run(main)
"""
_RACER = """
import sys, trio
from tests.stores.by_id import open_by_id
from blazen_trio.errors import RunLockedError

async def main():
    async with open_by_id(sys.argv[1]) as store:
        sys.stdin.readline()
        try:
            await store.claim("r")
            print("drives", flush=True)
        except RunLockedError:
            print("refused", flush=True)
        sys.stdin.readline()

trio.run(main)
"""


async def test_only_one_of_two_processes_drives_a_run(url: str) -> None:
    async with open_by_id(url, migrate=True) as store:
        await store.create(NewRun("w", "1", 1.0), Commit("r", [(1, b"")], release=True))
    with program(_RACER, url) as one, program(_RACER, url) as two:
        for process in (one, two):
            process.ask("go")
        assert sorted([one.hear(), two.hear()]) == ["drives", "refused"]


async def test_a_killed_driver_is_replaced_at_once(url: str) -> None:
    # The lease lasts longer than any test, so only the death of the process can end it.
    with program(_DRIVER, url, "3600") as driver:
        assert driver.hear() == "drives"
        driver.ask("2")
        assert driver.hear() == "stored"
        async with open_by_id(url, migrate=True) as store:
            with pytest.raises(RunLockedError, match=f"process {driver.pid}") as refusal:
                await store.claim("r")
            assert str(driver.pid) in refusal.value.owner
            driver.kill()  # not awaited, so it may still exist as a zombie
            with trio.fail_after(120):
                while True:
                    try:
                        stored = await store.claim("r")
                    except RunLockedError:  # the signal has not arrived yet
                        await trio.lowlevel.checkpoint()
                    else:
                        break
            assert [seq for seq, _ in stored.entries] == [1, 2]
            await store.commit(Commit("r", [(3, b"by us")]))


async def test_a_stopped_driver_that_was_replaced_writes_nothing_when_it_wakes(url: str) -> None:
    with program(_DRIVER, url, "3600") as driver:
        assert driver.hear() == "drives"
        os.kill(driver.pid, signal.SIGSTOP)
        driver.ask("2")
        async with open_by_id(url, lease_ttl=0.3, migrate=True) as store:
            _expire_all(url)
            await store.claim("r")
            await store.commit(Commit("r", [(2, b"by us")]))
            os.kill(driver.pid, signal.SIGCONT)
            assert driver.hear() == "StaleRunError"
            assert list((await store.load("r")).entries) == [(1, b"by the child"), (2, b"by us")]


def _expire_all(url: str) -> None:
    """Let all leases expire, without waiting for it."""
    execute(url, "UPDATE blazen_lease SET expires = 1")


async def test_an_expired_lease_that_no_process_took_is_still_ours(url: str) -> None:
    async with open_by_id(url, migrate=True) as store:
        await store.create(NewRun("w", "1", 1.0), Commit("r", [(1, b"")]))
        _expire_all(url)
        await store.commit(Commit("r", [(2, b"")]))
        async with open_by_id(url, migrate=True) as other:  # that commit has renewed the lease
            with pytest.raises(RunLockedError):
                await other.claim("r")


async def test_losing_a_lease_loses_all_its_runs_and_a_new_one_is_taken(url: str) -> None:
    async with open_by_id(url, migrate=True) as loser, open_by_id(url, migrate=True) as winner:
        for run_id in ("a", "b", "c"):
            await loser.create(NewRun("w", "1", 1.0), Commit(run_id, [(1, b"")]))
        lost = loser.statistics().lease_id
        mark_holders_dead(url)
        await winner.claim("a")
        await winner.claim("b")
        for run_id in ("a", "b", "c"):
            with pytest.raises(StaleRunError):
                await loser.commit(Commit(run_id, [(2, b"too late")]))
        assert loser.statistics().driven == 0
        await loser.claim("c")
        await loser.commit(Commit("c", [(2, b"again")]))
        assert loser.statistics().lease_id not in (lost, None)
        with pytest.raises(StaleRunError):
            await loser.commit(Commit("a", [(2, b"too late")]))
        await winner.commit(Commit("a", [(2, b"ours")]))


async def test_a_lost_lease_does_not_prevent_a_post(url: str) -> None:
    async with open_by_id(url, migrate=True) as loser, open_by_id(url, migrate=True) as winner:
        await loser.create(NewRun("w", "1", 1.0), Commit("a", [(1, b"")]))
        mark_holders_dead(url)
        await winner.claim("a")
        assert await loser.post("a", "event", b"x") is not None


async def test_an_idle_store_renews_its_lease(url: str) -> None:
    async with open_by_id(url, lease_ttl=0.03, migrate=True) as store:
        await store.create(NewRun("w", "1", 1.0), Commit("a", [(1, b"")]))
        _expire_all(url)
        with trio.fail_after(120):
            while True:
                if execute(url, "SELECT expires FROM blazen_lease") != [(1,)]:
                    break
                await trio.lowlevel.checkpoint()


async def test_a_lease_that_has_lasted_for_a_third_of_its_time_is_renewed_by_the_next_commit(
    url: str,
) -> None:
    async with open_by_id(url, lease_ttl=300, migrate=True) as store:
        await store.create(NewRun("w", "1", 1.0), Commit("a", [(1, b"")]))
        ((expires,),) = execute(url, "SELECT expires FROM blazen_lease")
        execute(url, "UPDATE blazen_lease SET expires = :earlier", earlier=expires - 101_000_000)
        await store.commit(Commit("a", [(2, b"")]))
        ((renewed,),) = execute(url, "SELECT expires FROM blazen_lease")
        assert renewed > expires
        # So is a lease that lasts too long because the clock was set back.
        execute(url, "UPDATE blazen_lease SET expires = :later", later=renewed + 3_600_000_000)
        await store.commit(Commit("a", [(3, b"")]))
        assert (
            renewed <= execute(url, "SELECT expires FROM blazen_lease")[0][0] < renewed + 60_000_000
        )
        assert [seq for seq, _ in (await store.load("a")).entries] == [1, 2, 3]


async def test_reading_takes_no_lease_and_closing_leaves_none(url: str) -> None:
    async with open_by_id(url, migrate=True) as store:
        await store.create(NewRun("w", "1", 1.0), Commit("a", [(1, b"")]))
    async with open_by_id(url, migrate=True) as store:
        await store.load("a")
        await store.post("a", "event", b"")
        assert store.statistics().lease_id is None
    assert execute(url, "SELECT count(*) FROM blazen_lease") == [(0,)]


async def test_the_death_of_a_leases_holder_counts_as_a_crash_of_its_running_runs(url: str) -> None:
    async with open_by_id(url, migrate=True) as loser, open_by_id(url, migrate=True) as winner:
        for run_id, status in (("ran", RunStatus.RUNNING), ("waited", RunStatus.WAITING)):
            await loser.create(NewRun("w", "1", 1.0), Commit(run_id, [(1, b"")], status=status))
        mark_holders_dead(url)
        assert (await winner.poll(["w"])).ready
        taken = {run.info.run_id: run.crashes for run in await winner.take(["w"], 10)}
        assert taken == {"ran": 1, "waited": 0}
        await winner.commit(Commit("ran", [(2, b"got further")], progress=True))
        mark_holders_dead(url)
        assert {run.info.run_id: run.crashes for run in await loser.take(["w"], 10)} == {
            "ran": 1,
            "waited": 0,
        }


async def test_two_stores_that_take_runs_at_once_get_each_run_once(url: str) -> None:
    taken: list[str] = []
    rounds = 0

    async def take(store: ById) -> None:
        nonlocal rounds
        while runs := await store.take(["w"], 7):
            rounds += 1
            taken.extend(run.info.run_id for run in runs)

    async with open_by_id(url, migrate=True) as one, open_by_id(url, migrate=True) as two:
        for number in range(60):
            first = Commit(f"r{number}", [(1, b"")], status=RunStatus.QUEUED, release=True)
            await one.create(NewRun("w", "1", 1.0), first)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, one)
            nursery.start_soon(take, two)
        assert sorted(taken) == sorted(f"r{number}" for number in range(60))
        assert one.statistics().driven + two.statistics().driven == 60
        assert rounds >= 60 / 7


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_run_that_another_transaction_has_locked_is_not_taken(url: str) -> None:
    async with open_by_id(url, migrate=True) as store:
        for run_id in ("a", "b"):
            await store.create(
                NewRun("w", "1", 1.0),
                Commit(run_id, [(1, b"")], status=RunStatus.QUEUED, release=True),
            )
        with an_engine(url) as engine, engine.begin() as theirs:
            theirs.execute(sa.text("SELECT * FROM blazen_run WHERE run_id = 'a' FOR UPDATE"))
            assert [run.info.run_id for run in await store.take(["w"], 10)] == ["b"]
        assert [run.info.run_id for run in await store.take(["w"], 10)] == ["a"]


async def test_an_expired_lease_of_a_living_process_is_not_taken_over(url: str) -> None:
    async with open_by_id(url, lease_ttl=0.6, migrate=True) as store:
        await store.create(_NEW, Commit("a", [(1, b"")]))
        async with open_by_id(url, lease_ttl=2.0) as other:
            _expire_all(url)
            began = time.monotonic()
            assert await other.take(["w"], 5) == []  # which does not wait
            with pytest.raises(RunLockedError):
                await other.claim("a")
            _expire_all(url)
            assert await other.take(["w"], 5, patient=True) == []
            assert time.monotonic() - began < 10
        await store.commit(Commit("a", [(2, b"still ours")]))


@pytest.mark.parametrize("how", ["claim", "take", "poll", "delete"])
async def test_a_store_that_waits_long_enough_takes_over(url: str, how: str) -> None:
    with program(_DRIVER, url, "3600") as driver:
        assert driver.hear() == "drives"
        os.kill(driver.pid, signal.SIGSTOP)
        async with open_by_id(url, lease_ttl=0.5) as store:
            _expire_all(url)
            with trio.fail_after(120):
                if how == "claim":
                    await store.claim("r")
                elif how == "take":
                    assert [
                        run.info.run_id for run in await store.take(["w"], 1, patient=True)
                    ] == ["r"]
                elif how == "delete":
                    await store.delete_run("r")
                else:
                    while not (await store.poll(["w"])).ready:  # noqa: ASYNC110
                        await trio.sleep(0.05)
                    assert [run.info.run_id for run in await store.take(["w"], 1)] == ["r"]
            if how != "delete":
                await store.commit(Commit("r", [(2, b"by us")]))


async def test_waiting_for_a_lease_to_be_declared_dead_can_be_cancelled(url: str) -> None:
    with program(_DRIVER, url, "3600") as driver:
        assert driver.hear() == "drives"
        os.kill(driver.pid, signal.SIGSTOP)
        async with open_by_id(url, lease_ttl=3600.0) as store:
            _expire_all(url)
            with trio.move_on_after(0.1) as scope:
                await store.claim("r")
            assert scope.cancelled_caught


async def test_a_leap_of_the_clock_costs_no_living_process_its_lease(tmp_path: Path) -> None:
    url, leap = f"sqlite:///{tmp_path}/a.db", 0.0
    with an_engine(url) as engine, an_engine(url) as engine_of_the_other:
        for each in (engine, engine_of_the_other):

            @sa.event.listens_for(each, "connect")
            def leaping(driver: Any, _record: Any) -> None:
                driver.create_function(
                    "julianday", 1, lambda _now: (time.time() + leap) / 86400 + 2440587.5
                )

        async with (
            open_by_id(engine, lease_ttl=1.5) as store,
            open_by_id(engine_of_the_other, lease_ttl=1.5) as other,
        ):
            await store.create(_NEW, Commit("a", [(1, b"")], status=RunStatus.RUNNING))
            leap = 3600.0
            with trio.move_on_after(2.5):
                while True:
                    assert await other.take(["w"], 5) == []
                    await trio.sleep(0.1)
            await store.commit(Commit("a", [(2, b"still ours")]))


# Says that it drives the run, then keeps the GIL: nothing else in its process runs.
_KEEPS_THE_GIL = _DRIVER.replace(
    "for line in sys.stdin:\n",
    "for line in sys.stdin:\n            if line == 'keep\\n':\n"
    "                print('keeps', flush=True)\n"
    "                sys.setswitchinterval(1000)\n"
    "                while not os.path.exists(sys.argv[3]): pass\n"
    "                sys.setswitchinterval(0.005)\n                continue\n",
).replace("import sys, trio", "import os, sys, trio")


async def test_a_process_that_keeps_its_gil_is_not_declared_dead(url: str, tmp_path: Path) -> None:
    done = tmp_path / "done"
    with program(_KEEPS_THE_GIL, url, "0.5", str(done)) as driver:
        assert driver.hear() == "drives"
        driver.ask("keep")
        assert driver.hear() == "keeps"
        async with open_by_id(url, lease_ttl=0.5) as store:
            with trio.move_on_after(3):
                while True:
                    assert not (await store.poll(["w"])).ready
                    assert await store.take(["w"], 1, patient=True) == []
                    await trio.sleep(0.1)
            # A claim does not wait. Its error names the driver.
            with trio.fail_after(60), pytest.raises(RunLockedError, match=str(driver.pid)):
                await store.claim("r")
            done.touch()
            driver.ask("2")
            assert driver.hear() == "stored"
