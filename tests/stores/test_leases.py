"""One driver per run: leases between processes, taking over, and the fence against who wakes late."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
import trio

from blazen_trio._stores.open import open_store
from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio._stores.sql.leases import Holder
from blazen_trio.errors import RunLockedError, StaleRunError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Drives the run `r`, and after each line that it is sent appends one entry and tells how that went.
_DRIVER = """
import sys, trio
from blazen_trio._stores.open import open_store
from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio.errors import WorkflowError

async def main():
    async with open_store(sys.argv[1], lease_ttl=float(sys.argv[2])) as store:
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
from blazen_trio._stores.open import open_store
from blazen_trio.errors import RunLockedError

async def main():
    async with open_store(sys.argv[1]) as store:
        sys.stdin.readline()
        try:
            await store.claim("r")
            print("drives", flush=True)
        except RunLockedError:
            print("refused", flush=True)
        sys.stdin.readline()

trio.run(main)
"""


@contextmanager
def _process(program: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", program, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _ask(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def _hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


async def test_of_two_processes_one_drives(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    async with open_store(url) as store:
        await store.create(NewRun("w", "1", 1.0), Commit("r", [(1, b"")], release=True))
    with _process(_RACER, url) as one, _process(_RACER, url) as two:
        for process in (one, two):
            _ask(process, "go")
        assert sorted([_hear(one), _hear(two)]) == ["drives", "refused"]


async def test_a_killed_driver_is_replaced_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    # The lease lasts for longer than any test: only the process's death can end it.
    with _process(_DRIVER, url, "3600") as driver:
        assert _hear(driver) == "drives"
        _ask(driver, "2")
        assert _hear(driver) == "stored"
        async with open_store(url) as store:
            with pytest.raises(RunLockedError, match=f"process {driver.pid}") as refusal:
                await store.claim("r")
            assert str(driver.pid) in refusal.value.owner
            driver.kill()  # and not waited for: it may still be there as a zombie
            with trio.fail_after(20):
                while True:
                    try:
                        stored = await store.claim("r")
                    except RunLockedError:  # the signal has not got there yet
                        await trio.lowlevel.checkpoint()
                    else:
                        break
            assert [seq for seq, _ in stored.entries] == [1, 2]
            await store.commit(Commit("r", [(3, b"by us")]))


async def test_a_stopped_driver_that_was_replaced_writes_nothing_when_it_wakes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    with _process(_DRIVER, url, "3600") as driver:
        assert _hear(driver) == "drives"
        os.kill(driver.pid, signal.SIGSTOP)
        _ask(driver, "2")
        async with open_store(url) as store:
            _expire_all(url)
            await store.claim("r")
            await store.commit(Commit("r", [(2, b"by us")]))
            os.kill(driver.pid, signal.SIGCONT)
            assert _hear(driver) == "StaleRunError"
            assert list((await store.load("r")).entries) == [(1, b"by the child"), (2, b"by us")]


def _expire_all(url: str) -> None:
    """Let the time of all leases run out, without waiting for it."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE blazen_lease SET expires = 1"))
    engine.dispose()


async def test_an_expired_lease_that_nobody_took_is_still_ours(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    async with open_store(url) as store:
        await store.create(NewRun("w", "1", 1.0), Commit("r", [(1, b"")]))
        _expire_all(url)
        await store.commit(Commit("r", [(2, b"")]))
        async with open_store(url) as other:  # and renewed by that commit
            with pytest.raises(RunLockedError):
                await other.claim("r")


async def test_losing_a_lease_loses_all_its_runs_and_a_new_one_is_taken(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    async with open_store(url) as loser, open_store(url) as winner:
        for run_id in ("a", "b", "c"):
            await loser.create(NewRun("w", "1", 1.0), Commit(run_id, [(1, b"")]))
        lost = loser.statistics().lease_id
        _expire_all(url)
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


async def test_a_lost_lease_does_not_hinder_what_needs_none(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    async with open_store(url) as loser, open_store(url) as winner:
        await loser.create(NewRun("w", "1", 1.0), Commit("a", [(1, b"")]))
        _expire_all(url)
        await winner.claim("a")
        assert await loser.post("a", "event", b"x") is not None


async def test_an_idle_store_renews_its_lease(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    engine = sa.create_engine(url)
    async with open_store(url, lease_ttl=0.03) as store:
        await store.create(NewRun("w", "1", 1.0), Commit("a", [(1, b"")]))
        _expire_all(url)
        with trio.fail_after(20):
            while True:
                with engine.connect() as connection:
                    if connection.execute(sa.text("SELECT expires FROM blazen_lease")).scalar_one() != 1:
                        break
                await trio.lowlevel.checkpoint()
    engine.dispose()


async def test_reading_takes_no_lease_and_closing_leaves_none(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    async with open_store(url) as store:
        await store.create(NewRun("w", "1", 1.0), Commit("a", [(1, b"")]))
    async with open_store(url) as store:
        await store.load("a")
        await store.post("a", "event", b"")
        assert store.statistics().lease_id is None
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM blazen_lease")).scalar() == 0
    engine.dispose()


def test_a_process_is_known_to_be_dead_only_where_that_is_certain() -> None:
    me = Holder.this_process()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    elsewhere = {"host": me.host, "pid": 2**22 + 1, "started": 1}
    assert not me.known_dead()
    assert Holder(boot=me.boot, pid_namespace=me.pid_namespace, **elsewhere).known_dead()
    assert not Holder(boot="another", pid_namespace=me.pid_namespace, **elsewhere).known_dead()
    assert not Holder(boot=me.boot, pid_namespace="another", **elsewhere).known_dead()
    assert not Holder(boot="", pid_namespace="", **elsewhere).known_dead()
    # A later process with the id of an earlier one.
    assert Holder(me.host, me.boot, me.pid_namespace, child.pid, started=1).known_dead()
    child.kill()
    child.communicate()
