"""Checks of a store's promises to workers: the runs that `take` returns, and polls."""

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
    """Create a run, commit a status, and release it."""
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
    expect("take returns at most its limit, oldest first", oldest, ["q0", "q1"])
    expect("take returns each run once", await _taken(store), ["q2"])
    expect("take returns nothing if no run is ready", await _taken(store), [])
    await expect_error("a run that was taken has a driver", RunLockedError, store.claim("q0"))
    await store.commit(driver_of(first), Commit("q0", entries=[(2, b"x")]))
    await store.release(driver_of(first))
    expect("take returns only runs of the given workflows", await _taken(store, "other"), [])
    (again,) = await store.take(["other", "shop"], 10)
    expect("take returns the whole run", again, await store.load("q0"))


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
    expect(
        "take returns runs that can, or may, continue by themselves",
        sorted(await _taken(store)),
        going_on,
    )
    for run_id in ("waits", "sleeps", "paused"):
        await store.post(run_id, "event", b"")
    expect("a poll reports that there are runs to take", (await store.poll(["shop"])).ready, True)
    expect(
        "messages wake waiting runs, and not paused ones",
        sorted(await _taken(store)),
        ["sleeps", "waits"],
    )
    expect("a poll reports that no run is left to take", (await store.poll(["shop"])).ready, False)


async def _check_hold(store: CheckpointStore) -> None:
    soon = time.time() + _HOUR
    await _rest(store, "held", RunStatus.RUNNING, hold=soon)
    await _rest(store, "later", RunStatus.WAITING, wake=NOW, hold=soon)
    await store.post("held", "event", b"")
    await store.post("later", "event", b"")
    expect("a run on hold is not taken, whatever is in its inbox", await _taken(store), [])
    expect("a poll does not report a run on hold", (await store.poll(["shop"])).ready, False)
    driver = await drive(store, "held")  # it can be claimed
    await store.release(driver)
    expect("a release without a hold ends the hold", await _taken(store), ["held"])


async def _check_poll(store: CheckpointStore) -> None:
    await start(store)
    await start(store, "other", release=True)
    await store.post("other", "event", b"")
    found = await store.poll([], ["run", "other", "unknown"])
    watched = {run_id: await store.get_run(run_id) for run_id in ("run", "other")}
    expect(
        "a poll returns the rows of watched runs that exist",
        {**found.watched},
        watched,
    )
    expect("a poll without workflows reports no run to take", found.ready, False)
    expect("a poll changes nothing", await _taken(store), ["other"])


async def _check_finished(store: CheckpointStore) -> None:
    driver = await start(store)
    await store.post("run", "event", b"too late", key="k")
    await store.commit(driver, Commit("run", status=RunStatus.FAILED, at=NOW, release=True))
    await expect_error(
        "a post to a run that has ended is refused",
        RunFinishedError,
        store.post("run", "event", b""),
    )
    expect(
        "a used key is refused even after the run has ended",
        await store.post("run", "event", b"", key="k"),
        None,
    )
    claimed = await store.claim("run")
    expect("a failed run keeps its inbox", len(claimed.inbox), 1)
    driver = driver_of(claimed)
    await store.commit(driver, Commit("run", status=RunStatus.RUNNING, at=NOW))
    posted = await store.post("run", "event", b"")
    expect("a resumed run accepts messages", posted is not None, True)
    await store.commit(driver, Commit("run", status=RunStatus.COMPLETED, at=NOW, release=True))
    expect("a completed run has an empty inbox", list((await store.load("run")).inbox), [])


async def _check_given_back(store: CheckpointStore, other: CheckpointStore) -> None:
    driver = await start(store)
    second = await start(store, "second")
    expect("take does not return runs that have a live driver", await _taken(other), [])
    await store.release(driver)
    await store.release(second, hold=time.time() + _HOUR)
    (taken,) = await other.take(["shop"], 10, patient=True)
    given = (taken.info.run_id, taken.crashes)
    expect("a run that one opening releases can be taken by another", given, ("run", 0))
    late = Commit("run", entries=[(2, b"x")])
    await expect_error(
        "an opening that has released a run can't write", StaleRunError, store.commit(driver, late)
    )


CHECKS = (_check_take, _check_rests, _check_hold, _check_poll, _check_finished)
CHECKS_OF_TWO = (_check_given_back,)
