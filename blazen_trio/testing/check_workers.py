"""What a store promises to workers: which runs it gives them, and what a look at it tells."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from blazen_trio._state.status import RunStatus
from blazen_trio._stores.protocol import Commit
from blazen_trio.errors import RunFinishedError, RunLockedError, StaleRunError
from blazen_trio.testing.promises import NOW, expect, expect_error, start

if TYPE_CHECKING:
    from blazen_trio._stores.protocol import CheckpointStore

__all__ = ["CHECKS", "CHECKS_OF_TWO"]

_HOUR = 3600.0


async def _taken(store: CheckpointStore, *workflows: str, limit: int = 10, suspects: int | None = None) -> list[str]:  # noqa: ASYNC910
    return [run.info.run_id for run in await store.take(workflows or ("shop",), limit, suspects=suspects)]


async def _rest(store: CheckpointStore, run_id: str, status: RunStatus, **more: Any) -> None:
    """A run that came to rest and was given back."""
    await start(store, run_id)
    await store.commit(Commit(run_id, status=status, at=NOW))
    await store.release(run_id, **more)


async def _check_take(store: CheckpointStore) -> None:
    for number in range(3):
        await start(store, f"q{number}", created=NOW + number, status=RunStatus.QUEUED, release=True)
    await start(store, "driven")
    expect("take gives no more than its limit, oldest first", await _taken(store, limit=2), ["q0", "q1"])
    expect("take gives each run once", await _taken(store), ["q2"])
    expect("take gives nothing where nothing is", await _taken(store), [])
    await expect_error("who takes a run drives it", RunLockedError, store.claim("q0"))
    await store.commit(Commit("q0", entries=[(2, b"x")]))
    await store.release("q0")
    expect("take gives only runs of the workflows asked for", await _taken(store, "other"), [])
    (again,) = await store.take(["other", "shop"], 10)
    expect("take reads all of a run", again, await store.load("q0"))


async def _check_rests(store: CheckpointStore) -> None:
    soon = time.time() + _HOUR
    await _rest(store, "running", RunStatus.RUNNING)
    await _rest(store, "waits", RunStatus.WAITING, wake=math.inf)
    await _rest(store, "who knows", RunStatus.WAITING)
    await _rest(store, "sleeps", RunStatus.WAITING, wake=soon)
    await _rest(store, "is due", RunStatus.WAITING, wake=NOW)
    await _rest(store, "paused", RunStatus.PAUSED)
    for status in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.TIMED_OUT, RunStatus.CANCELLED):
        await start(store, status.value)
        await store.commit(Commit(status.value, status=status, at=NOW, release=True))
    going_on = ["is due", "running", "who knows"]
    expect("take gives what can go on by itself, or may", sorted(await _taken(store)), going_on)
    for run_id in ("waits", "sleeps", "paused"):
        await store.post(run_id, "event", b"")
    expect("there is something to take", (await store.poll(["shop"])).ready, True)
    expect("mail wakes what waits, and not what is paused", sorted(await _taken(store)), ["sleeps", "waits"])
    expect("there is nothing to take any more", (await store.poll(["shop"])).ready, False)


async def _check_hold(store: CheckpointStore) -> None:
    soon = time.time() + _HOUR
    await _rest(store, "held", RunStatus.RUNNING, hold=soon)
    await _rest(store, "later", RunStatus.WAITING, wake=NOW, hold=soon)
    await store.post("held", "event", b"")
    await store.post("later", "event", b"")
    expect("nobody takes a run that is held, whatever comes in", await _taken(store), [])
    expect("there is nothing to take then", (await store.poll(["shop"])).ready, False)
    expect("a run that is held can be claimed", (await store.claim("held")).info.run_id, "held")
    await store.release("held")
    expect("giving it back ends that", await _taken(store), ["held"])


async def _check_poll(store: CheckpointStore) -> None:
    await start(store)
    first, second = await store.post("run", "event", b"1"), await store.post("run", "cancel", b"")
    await start(store, "other", release=True)
    await store.post("other", "event", b"")
    found = await store.poll([], ["run", "other", "unknown"])
    mail = {run_id: list(rows) for run_id, rows in found.mail.items()}
    expect("a poll tells the mail of the runs that are driven here", mail, {"run": [first, second]})
    watched = {run_id: await store.get_run(run_id) for run_id in ("run", "other")}
    expect("a poll tells the line of what is watched, if there is such a run", {**found.watched}, watched)
    expect("nothing is ready for who asks for no workflow", found.ready, False)
    expect("looking changes nothing", await _taken(store), ["other"])


async def _check_finished(store: CheckpointStore) -> None:
    await start(store)
    await store.post("run", "event", b"too late", key="k")
    await store.commit(Commit("run", status=RunStatus.FAILED, at=NOW, release=True))
    await expect_error("nothing is posted to a run that has ended", RunFinishedError, store.post("run", "event", b""))
    expect("a key is refused for ever", await store.post("run", "event", b"", key="k"), None)
    expect("a run that failed keeps its mail", len((await store.claim("run")).inbox), 1)
    await store.commit(Commit("run", status=RunStatus.RUNNING, at=NOW))
    expect("a run that is tried again takes mail", await store.post("run", "event", b"") is not None, True)
    await store.commit(Commit("run", status=RunStatus.COMPLETED, at=NOW, release=True))
    expect("a run that has completed keeps none", list((await store.load("run")).inbox), [])


async def _check_given_back(store: CheckpointStore, other: CheckpointStore) -> None:
    await start(store)
    await start(store, "second")
    expect("take leaves alone what somebody alive drives", await _taken(other), [])
    await store.release("run")
    await store.release("second", hold=time.time() + _HOUR)
    (taken,) = await other.take(["shop"], 10)
    expect("what one gives back another takes", (taken.info.run_id, taken.crashes), ("run", 0))
    await expect_error("who gave it back can't write", StaleRunError, store.commit(Commit("run", entries=[(2, b"x")])))
    await other.post("second", "event", b"")
    expect("mail is told to who drives the run only", {**(await other.poll([])).mail}, {})


CHECKS = (_check_take, _check_rests, _check_hold, _check_poll, _check_finished)
CHECKS_OF_TWO = (_check_given_back,)
