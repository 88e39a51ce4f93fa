"""The state of lease holders: which are dead, which are running, and which are only silent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from blazen_trio._stores.sql.leases import Holder, Sights


class _Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def _row(**changed: int | bool | str) -> dict[str, Any]:
    holder = {"host": "h", "boot": "another", "pid_namespace": "n", "pid": 1, "started": 1}
    return {"lease_id": 7, "expires": 1, "batch": 1, "expired": True, **holder, **changed}


def test_a_lease_is_dead_once_it_was_seen_expired_and_unchanged_for_its_ttl() -> None:
    clock = _Clock()
    sights = Sights(15.0, clock)
    assert sights.judge(_row()) == 15.0
    for clock.now in (5.0, 10.0):
        assert sights.judge(_row()) == 15.0 - clock.now
    # It was renewed and has expired again, so the wait starts again.
    assert sights.judge(_row(batch=2)) == 15.0
    clock.now = 14.0
    assert sights.judge(_row(batch=2)) == 11.0
    assert sights.judge(_row(batch=2, expired=False)) == float("inf")
    assert sights.judge(_row(batch=2)) == 15.0
    # The database was away for long. No lease could be renewed, so that time does not count.
    clock.now = 1000.0
    assert sights.judge(_row(batch=2)) == 10.0
    for clock.now in (1005.0, 1010.0):
        judged = sights.judge(_row(batch=2))
    assert judged == 0.0
    sights.keep([])
    assert sights.judge(_row(batch=2)) == 15.0


def test_a_process_is_known_to_be_dead_only_if_that_is_certain() -> None:
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


def test_even_a_living_process_is_given_up_eventually() -> None:
    clock = _Clock()
    program = [sys.executable, "-c", "input()"]
    with subprocess.Popen(program, stdin=subprocess.PIPE) as process:
        me, stat = Holder.this_process(), Path(f"/proc/{process.pid}/stat").read_text()
        started = int(stat[stat.rfind(")") + 1 :].split()[19])
        there = {"boot": me.boot, "pid_namespace": me.pid_namespace}
        row = _row(**there, pid=process.pid, started=started)
        sights = Sights(15.0, clock)
        for clock.now in range(0, 300, 5):  # 300 is twenty times the lease's TTL
            assert sights.judge(row) == float("inf"), clock.now
        for clock.now in range(300, 316, 5):
            judged = sights.judge(row)
        assert judged == 0.0
        # Another start time means another process, so this one is gone.
        assert sights.judge(_row(**there, pid=process.pid, started=started + 1)) == 0.0
        # A stopped process gets no extra time, and neither does one elsewhere, or our own.
        others = [_row(lease_id=8), _row(**there, pid=me.pid, started=me.started, lease_id=9)]
        os.kill(process.pid, signal.SIGSTOP)
        others.append(_row(**there, pid=process.pid, started=started, lease_id=10))
        _wait_until_stopped(process.pid)
        assert [sights.judge(each) for each in others] == [15.0] * 3
        process.kill()


def _wait_until_stopped(pid: int) -> None:
    until = time.monotonic() + 20
    while ") T" not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < until
        time.sleep(0.01)
