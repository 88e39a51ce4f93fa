"""Checks of a store's promises to drivers: tokens, losses, crashes and quarantine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blazen_trio._state.status import RunStatus
from blazen_trio._stores.protocol import Commit
from blazen_trio.errors import StaleRunError, StoreError, WorkflowError
from blazen_trio.testing.promises import (
    NOW,
    Heard,
    drive,
    driver_of,
    expect,
    expect_error,
    journal,
    start,
)

if TYPE_CHECKING:
    from blazen_trio._stores.protocol import CheckpointStore, StoredRun

__all__ = ["CHECKS", "CHECKS_OF_TWO"]


async def _check_token(store: CheckpointStore) -> None:
    first = await start(store)
    await store.release(first)
    second = await drive(store)
    expect("each claim of a run returns a new driver", first is second, False)
    late = Commit("run", entries=[(2, b"late")])
    await expect_error(
        "an earlier driver does not commit", StaleRunError, store.commit(first, late)
    )
    await store.release(first)
    await store.set_aside(first, "late")
    expect("an earlier driver does not set a run aside", (await store.get_run("run")).error, None)
    await store.commit(second, Commit("run", entries=[(2, b"ours")]))
    written = journal(await store.load("run"))
    expect("a release by an earlier driver has no effect", written, [(1, b"first"), (2, b"ours")])
    another = Commit("another", entries=[(2, b"x")])
    await start(store, "another")
    await expect_error(
        "a driver commits to its own run only", StaleRunError, store.commit(second, another)
    )


async def _check_failed_commit(store: CheckpointStore) -> None:
    driver = await start(store)
    heard = Heard(driver)
    gap = Commit("run", entries=[(5, b"gap")])
    await expect_error("a gap in the entries is refused", StoreError, store.commit(driver, gap))
    expect(
        "a driver whose commit failed is notified of the reason",
        [*map(type, heard.lost)],
        [StoreError],
    )
    expect("a driver whose commit failed keeps the reason", driver.lost is heard.lost[0], True)
    again = await drive(store)  # the run can be claimed again, by this opening too
    await store.release(driver)
    await store.commit(again, Commit("run", entries=[(2, b"second")]))
    await expect_error(
        "a driver whose commit failed does not write beside its successor",
        WorkflowError,
        store.commit(driver, Commit("run", entries=[(3, b"third")])),
    )
    gap = Commit("run", entries=[(5, b"gap")])
    await expect_error("a gap in the entries is refused", StoreError, store.commit(again, gap))
    await store.release(again)
    taken = [driver_of(run) for run in await store.take(["shop"], 5)]
    expect("a driver whose commit failed can release the run", len(taken), 1)


async def _check_reasons(store: CheckpointStore) -> None:
    driver = await start(store)
    await store.release(driver, reason="of a later version \0")
    (run,) = await store.take(["shop"], 5)
    told = run.info.error or ""
    expect(
        "the reason of a release becomes the run's error",
        told.startswith("of a later version"),
        True,
    )
    expect("a release with a reason keeps the status and counts no crash", run.crashes, 0)
    await store.commit(driver_of(run), Commit("run", status=RunStatus.RUNNING, at=NOW + 1))
    expect(
        "the reason of a release is kept until a status is committed",
        (await store.get_run("run")).error,
        None,
    )


async def _check_crashes(store: CheckpointStore) -> None:
    driver = await start(store)
    await store.commit(driver, Commit("run", status=RunStatus.RUNNING, at=NOW + 1))
    await store.release(driver, crash="it broke \0 down")
    (run,) = await store.take(["shop"], 5)
    expect("a release with a crash counts as a crash", run.crashes, 1)
    told = run.info.error or ""
    expect(
        "the text of a crash becomes the run's error",
        told.startswith("it broke") and told.endswith("down"),
        True,
    )
    expect("a crash keeps the run's status", run.info.status, RunStatus.RUNNING)
    await store.commit(driver_of(run), Commit("run", entries=[(2, b"x")]))
    await store.commit(driver_of(run), Commit("run", status=RunStatus.WAITING, at=NOW + 2))
    expect(
        "the error of a crash is kept until a step commits",
        (await store.get_run("run")).error,
        run.info.error,
    )
    await store.release(driver_of(run), crash="again")
    (run,) = await store.take(["shop"], 5, suspects=1)
    expect("crashes add up", (run.crashes, run.info.error), (2, "again"))
    await store.commit(driver_of(run), Commit("run", entries=[(3, b"step")], progress=True))
    expect(
        "a step that commits clears the error of a crash", (await store.get_run("run")).error, None
    )
    await store.release(driver_of(run))
    (run,) = await store.take(["shop"], 5, suspects=0)
    expect("a step that commits resets the count of crashes", run.crashes, 0)
    await store.release(driver_of(run), crash="third")
    stored = await store.claim("run")
    expect("a claim resets the count of crashes", (await store.load("run")).crashes, 0)
    end = Commit("run", status=RunStatus.FAILED, error="its \0 own", at=NOW, release=True)
    await store.commit(driver_of(stored), end)
    told = (await store.get_run("run")).error or ""
    expect("an error of any text is stored", told.startswith("its") and told.endswith("own"), True)


async def _check_set_aside(store: CheckpointStore) -> None:
    driver = await start(store)
    await store.commit(driver, Commit("run", entries=[(2, b"unreadable")]))
    await store.post("run", "event", b"kept")
    await store.set_aside(driver, "can't be read")
    info = await store.get_run("run")
    expect(
        "a run that is set aside has failed",
        (info.status, info.error),
        (RunStatus.FAILED, "can't be read"),
    )
    expect("a run that is set aside is not taken", list(await store.take(["shop"], 5)), [])
    claimed = await store.claim("run")
    found = (journal(claimed), len(claimed.inbox))
    expect(
        "a run that is set aside keeps its journal and its inbox",
        found,
        ([(1, b"first"), (2, b"unreadable")], 1),
    )
    again = Commit("run", entries=[(3, b"on")], status=RunStatus.RUNNING, at=NOW)
    await store.commit(driver_of(claimed), again)
    expect("a run that is set aside can be tried again", (await store.get_run("run")).error, None)


async def _check_stale(store: CheckpointStore, other: CheckpointStore) -> None:
    driver = await start(store)
    heard = Heard(driver)
    await store.release(driver)
    theirs = await drive(other)
    for call in (store.release(driver), other.release(driver), store.release(theirs)):
        await call
    for error in ("late", "not ours"):
        await store.set_aside(driver if error == "late" else theirs, error)
    crossed = Commit("run", entries=[(2, b"x")])
    for crossing in (store.commit(theirs, crossed), other.commit(driver, crossed)):
        await expect_error("a driver is valid only in its own opening", StaleRunError, crossing)
    await other.commit(theirs, Commit("run", entries=[(2, b"theirs")]))
    stored: StoredRun = await store.load("run")
    expect(
        "a late call of an earlier driver has no effect on the journal",
        journal(stored),
        [(1, b"first"), (2, b"theirs")],
    )
    expect(
        "a late call of an earlier driver does not change the row",
        (stored.info.error, stored.crashes),
        (None, 0),
    )
    expect("a release is not reported as a loss", heard.lost, [])
    expect("the next driver is not affected by late calls", theirs.lost, None)


CHECKS = (
    _check_token,
    _check_failed_commit,
    _check_reasons,
    _check_crashes,
    _check_set_aside,
)
CHECKS_OF_TWO = (_check_stale,)
