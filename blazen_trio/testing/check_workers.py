"""What a store promises to workers: which runs it gives them, and what a look at it tells."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from blazen_trio._state.status import RunStatus
from blazen_trio._stores.protocol import Commit
from blazen_trio.errors import RunFinishedError, RunLockedError, StaleRunError
from blazen_trio.testing.promises import NOW, drive, driver_of, expect, expect_error, start

if TYPE_CHECKING:
    from blazen_trio._stores.protocol import CheckpointStore

__all__ = ["CHECKS", "CHECKS_OF_TWO"]

_HOUR = 3600.0


async def _taken(
    store: CheckpointStore, *workflows: str, limit: int = 10, suspects: int | None = None
) -> list[str]:  # noqa: ASYNC910
    return [
        run.info.run_id
        for run in await store.take(workflows or ("shop",), limit, suspects=suspects)
    ]


async def _rest(store: CheckpointStore, run_id: str, status: RunStatus, **more: Any) -> None:
    """A run that came to rest and was given back."""
    driver = await start(store, run_id)
    await store.commit(driver, Commit(run_id, status=status, at=NOW))
    await store.release(driver, **more)


async def _check_take(store: CheckpointStore) -> None:
    for number in range(3):
        await start(
            store, f"q{number}", created=NOW + number, status=RunStatus.QUEUED, release=True
        )
    await start(store, "driven")
    first, second = await store.take(["shop"], 2)
    oldest = [first.info.run_id, second.info.run_id]
    expect("take gives no more than its limit, oldest first", oldest, ["q0", "q1"])
    expect("take gives each run once", await _taken(store), ["q2"])
    expect("take gives nothing where nothing is", await _taken(store), [])
    await expect_error("who takes a run drives it", RunLockedError, store.claim("q0"))
    await store.commit(driver_of(first), Commit("q0", entries=[(2, b"x")]))
    await store.release(driver_of(first))
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
        driver = await start(store, status.value)
        await store.commit(driver, Commit(status.value, status=status, at=NOW, release=True))
    going_on = ["is due", "running", "who knows"]
    expect("take gives what can go on by itself, or may", sorted(await _taken(store)), going_on)
    for run_id in ("waits", "sleeps", "paused"):
        await store.post(run_id, "event", b"")
    expect("there is something to take", (await store.poll(["shop"])).ready, True)
    expect(
        "mail wakes what waits, and not what is paused",
        sorted(await _taken(store)),
        ["sleeps", "waits"],
    )
    expect("there is nothing to take any more", (await store.poll(["shop"])).ready, False)


async def _check_hold(store: CheckpointStore) -> None:
    soon = time.time() + _HOUR
    await _rest(store, "held", RunStatus.RUNNING, hold=soon)
    await _rest(store, "later", RunStatus.WAITING, wake=NOW, hold=soon)
    await store.post("held", "event", b"")
    await store.post("later", "event", b"")
    expect("nobody takes a run that is held, whatever comes in", await _taken(store), [])
    expect("there is nothing to take then", (await store.poll(["shop"])).ready, False)
    driver = await drive(store, "held")  # it can be claimed
    await store.release(driver)
    expect("giving it back ends that", await _taken(store), ["held"])


async def _check_poll(store: CheckpointStore) -> None:
    await start(store)
    await start(store, "other", release=True)
    await store.post("other", "event", b"")
    found = await store.poll([], ["run", "other", "unknown"])
    watched = {run_id: await store.get_run(run_id) for run_id in ("run", "other")}
    expect(
        "a poll tells the line of what is watched, if there is such a run",
        {**found.watched},
        watched,
    )
    expect("nothing is ready for who asks for no workflow", found.ready, False)
    expect("looking changes nothing", await _taken(store), ["other"])


async def _check_finished(store: CheckpointStore) -> None:
    driver = await start(store)
    await store.post("run", "event", b"too late", key="k")
    await store.commit(driver, Commit("run", status=RunStatus.FAILED, at=NOW, release=True))
    await expect_error(
        "nothing is posted to a run that has ended",
        RunFinishedError,
        store.post("run", "event", b""),
    )
    expect("a key is refused for ever", await store.post("run", "event", b"", key="k"), None)
    claimed = await store.claim("run")
    expect("a run that failed keeps its mail", len(claimed.inbox), 1)
    driver = driver_of(claimed)
    await store.commit(driver, Commit("run", status=RunStatus.RUNNING, at=NOW))
    posted = await store.post("run", "event", b"")
    expect("a run that is tried again takes mail", posted is not None, True)
    await store.commit(driver, Commit("run", status=RunStatus.COMPLETED, at=NOW, release=True))
    expect("a run that has completed keeps none", list((await store.load("run")).inbox), [])


async def _check_given_back(store: CheckpointStore, other: CheckpointStore) -> None:
    driver = await start(store)
    second = await start(store, "second")
    expect("take leaves alone what somebody alive drives", await _taken(other), [])
    await store.release(driver)
    await store.release(second, hold=time.time() + _HOUR)
    (taken,) = await other.take(["shop"], 10, patient=True)
    given = (taken.info.run_id, taken.crashes)
    expect("what one gives back another takes", given, ("run", 0))
    late = Commit("run", entries=[(2, b"x")])
    await expect_error("who gave it back can't write", StaleRunError, store.commit(driver, late))


CHECKS = (_check_take, _check_rests, _check_hold, _check_poll, _check_finished)
CHECKS_OF_TWO = (_check_given_back,)
