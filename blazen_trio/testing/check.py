"""`check_store`, which tests every promise of the `CheckpointStore` protocol."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import trio

from blazen_trio._state.status import RunStatus
from blazen_trio._stores.driver import Driver
from blazen_trio._stores.protocol import Commit, NewRun, SnapshotRow
from blazen_trio.errors import (
    RunExistsError,
    RunLockedError,
    RunNotFoundError,
    StaleRunError,
    StoreError,
)
from blazen_trio.testing import check_drivers, check_mail, check_workers
from blazen_trio.testing.promises import (
    NOW,
    drive,
    driver_of,
    expect,
    expect_error,
    journal,
    start,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from blazen_trio._stores.protocol import CheckpointStore

__all__ = ["check_store"]


async def check_store(  # noqa: ASYNC910  # the store it checks suspends
    factory: Callable[[], AbstractAsyncContextManager[CheckpointStore]],
    *,
    reopen: Callable[[CheckpointStore], AbstractAsyncContextManager[CheckpointStore]] | None = None,
) -> None:
    """Test every promise of the `CheckpointStore` protocol::

        async def test_my_store() -> None:
            await check_store(lambda: open_my_store(fresh_folder()))

    Args:
        factory: Opens a new, empty store, which shares nothing with any other that it opened.
        reopen: Opens the storage of an open store a second time, as another process would. Without
            it, the promises between two openings are not tested.

    Raises:
        AssertionError: A promise is broken; the message says which one.
    """
    for check in (*_CHECKS, *check_drivers.CHECKS, *check_mail.CHECKS, *check_workers.CHECKS):
        async with factory() as store:
            await check(store)
    if reopen is not None:
        of_two = (check_drivers, check_mail, check_workers)
        for check_two in (
            _check_two_openings,
            *(each for module in of_two for each in module.CHECKS_OF_TWO),
        ):
            async with factory() as store, reopen(store) as other:
                await check_two(store, other)
        await _check_closing(factory, reopen)


async def _check_create(store: CheckpointStore) -> None:
    await start(store, blobs={"d1": b"large"}, history=(1, b"began"))
    await expect_error("an id belongs to one run only", RunExistsError, start(store))
    stored = await store.load("run")
    expect("the entries that a run is created with are stored", journal(stored), [(1, b"first")])
    expect("the blobs that a run is created with are stored", dict(stored.blobs), {"d1": b"large"})
    expect("the history that a run is created with is stored", list(stored.history), [b"began"])
    expect("a new run has no snapshot", stored.snapshot, None)
    info = await store.get_run("run")
    expect("a row names its run", (info.run_id, info.workflow, info.version), ("run", "shop", "1"))
    expect("a run's row has its status", (info.status, info.error), (RunStatus.RUNNING, None))
    moment = dt.datetime.fromtimestamp(NOW, dt.UTC)
    expect(
        "a run's times are UTC, with their time zone",
        (info.created, info.updated),
        (moment, moment),
    )
    queued = await start(store, "queued", status=RunStatus.QUEUED, release=True)
    await expect_error(
        "a run created with `release` has no driver",
        StaleRunError,
        store.commit(queued, Commit("queued")),
    )
    expect(
        "a run created with `release` can be claimed",
        (await store.claim("queued")).info.status,
        RunStatus.QUEUED,
    )


async def _check_commit(store: CheckpointStore) -> None:
    driver = await start(store)
    big = bytes(range(256)) * 20_000  # 5 MB, more than some databases take in one row
    await store.commit(driver, Commit("run", entries=[(2, b"second"), (3, big)], blobs={"d1": big}))
    await store.commit(driver, Commit("run", entries=[(4, b"")], blobs={"d1": big, "d2": b"x"}))
    stored = await store.load("run")
    expected = [(1, b"first"), (2, b"second"), (3, big), (4, b"")]
    expect("entries are returned in order and unchanged", journal(stored) == expected, True)
    expect(
        "a blob may be written again, and is stored once",
        dict(stored.blobs) == {"d1": big, "d2": b"x"},
        True,
    )
    await expect_error(
        "an entry that is stored already is refused",
        StaleRunError,
        store.commit(driver, Commit("run", entries=[(4, b"again")])),
    )
    expect("a refused commit writes nothing", len((await store.load("run")).entries), 4)
    gap = await start(store, "gap")
    await expect_error(
        "a gap in the entries is refused",
        StoreError,
        store.commit(gap, Commit("gap", entries=[(3, b"third")])),
    )
    await expect_error(
        "no commit is accepted after a refused one",
        StoreError,
        store.commit(gap, Commit("gap", entries=[(2, b"second")])),
    )
    expect("a refused commit writes nothing", journal(await store.load("gap")), [(1, b"first")])
    await expect_error(
        "a commit to an unknown run is refused",
        StaleRunError,
        store.commit(Driver("unknown"), Commit("unknown")),
    )


async def _check_order(store: CheckpointStore) -> None:
    """Check that calls made before an earlier one has returned are stored in their order."""
    driver = await start(store)
    numbers = iter(range(2, 102))

    async def commit_next() -> None:
        # The task that runs first takes the first number, and hands over its commit before it
        # suspends.
        seq = next(numbers)
        await store.commit(driver, Commit("run", entries=[(seq, b"%d" % seq)]))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(commit_next)
    expected = [(1, b"first"), *((seq, b"%d" % seq) for seq in range(2, 102))]
    expect(
        "commits of a run are stored in the order of the calls",
        journal(await store.load("run")),
        expected,
    )


async def _check_row(store: CheckpointStore) -> None:
    driver = await start(store)
    await store.commit(
        driver, Commit("run", status=RunStatus.FAILED, error="broke", version="2", at=NOW + 5)
    )
    info = await store.get_run("run")
    expect(
        "a status is stored with its error", (info.status, info.error), (RunStatus.FAILED, "broke")
    )
    expect("a changed version is stored", info.version, "2")
    expect("`updated` is the commit's `at`", info.updated.timestamp(), NOW + 5)
    await store.commit(driver, Commit("run", entries=[(2, b"x")], at=NOW + 9))
    unchanged = await store.get_run("run")
    expect("a commit without a status does not change the row", unchanged, info)
    await store.commit(driver, Commit("run", status=RunStatus.RUNNING, at=NOW + 10))
    expect("a new status clears the error of the old one", (await store.get_run("run")).error, None)


async def _check_snapshot(store: CheckpointStore) -> None:
    driver = await start(store, blobs={"gone": b"1", "kept": b"2"})
    await store.commit(driver, Commit("run", entries=[(2, b"b"), (3, b"c")]))
    folded = SnapshotRow(2, b"folded", frozenset({"kept"}))
    await store.commit(
        driver, Commit("run", entries=[(4, b"d")], blobs={"new": b"3"}, snapshot=folded)
    )
    stored = await store.load("run")
    expect("a snapshot is returned unchanged", stored.snapshot, (2, b"folded"))
    expect(
        "a snapshot replaces the entries up to it, and no others",
        journal(stored),
        [(3, b"c"), (4, b"d")],
    )
    expect(
        "a snapshot drops the blobs that nothing refers to",
        dict(stored.blobs),
        {"kept": b"2", "new": b"3"},
    )
    await store.commit(driver, Commit("run", snapshot=SnapshotRow(4, b"later", frozenset({"new"}))))
    await store.commit(driver, Commit("run", entries=[(5, b"e")]))
    stored = await store.load("run")
    expect("a later snapshot replaces an earlier one", stored.snapshot, (4, b"later"))
    expect("the journal continues after a snapshot", journal(stored), [(5, b"e")])
    expect("a later snapshot drops blobs too", dict(stored.blobs), {"new": b"3"})
    copy = await start(store, "copy", entries=[], snapshot=SnapshotRow(7, b"moved", frozenset()))
    await store.commit(copy, Commit("copy", entries=[(8, b"on")]))
    moved = await store.load("copy")
    expect(
        "a run may be created with a snapshot",
        (moved.snapshot, journal(moved)),
        ((7, b"moved"), [(8, b"on")]),
    )


async def _check_history(store: CheckpointStore) -> None:
    driver = await start(store, history=(1, b"one"))
    await store.commit(driver, Commit("run", history=(2, b"two to four")))
    await store.commit(
        driver,
        Commit(
            "run",
            entries=[(2, b"x")],
            history=(5, b"five"),
            snapshot=SnapshotRow(2, b"", frozenset()),
        ),
    )
    stored = await store.load("run")
    expect(
        "the history is returned in order, and snapshots keep it",
        list(stored.history),
        [b"one", b"two to four", b"five"],
    )


async def _check_inbox(store: CheckpointStore) -> None:
    driver = await start(store)
    mails = [
        await store.post("run", kind, data)
        for kind, data in (("event", b"1"), ("pause", b""), ("event", b"3"))
    ]
    waiting = list((await store.load("run")).inbox)
    expect("posted messages wait in order, with their ids, kinds and data", waiting, mails)
    second = waiting[1]
    await store.commit(driver, Commit("run", entries=[(2, b"took one")], taken=[second.id]))
    left = list((await store.load("run")).inbox)
    expect("a row is taken by its id, and no other row is", left, [waiting[0], waiting[2]])
    later = await store.post("run", "event", b"4")
    expect(
        "a row's id is never used again",
        later is not None and later.id not in {mail.id for mail in waiting},
        True,
    )
    await expect_error(
        "a post to an unknown run is refused", RunNotFoundError, store.post("unknown", "event", b"")
    )


async def _check_keys(store: CheckpointStore) -> None:
    driver = await start(store)
    await start(store, "other")
    mail = await store.post("run", "event", b"1", key="k")
    expect("a key is stored with its row", mail is not None and mail.key, "k")
    expect("a key is accepted once", await store.post("run", "event", b"2", key="k"), None)
    expect(
        "a key belongs to its run",
        await store.post("other", "event", b"3", key="k") is not None,
        True,
    )
    expect(
        "another key is accepted", await store.post("run", "event", b"4", key="K") is not None, True
    )
    await store.commit(driver, Commit("run", taken=[mail.id if mail else 0]))
    expect(
        "a key stays used after its row was taken",
        await store.post("run", "event", b"5", key="k"),
        None,
    )


async def _check_claim(store: CheckpointStore) -> None:
    driver = await start(store)
    await expect_error("a driven run can't be claimed", RunLockedError, store.claim("run"))
    await expect_error("a driven run can't be deleted", RunLockedError, store.delete_run("run"))
    await store.release(driver)
    await store.release(driver)
    late = Commit("run", entries=[(2, b"x")])
    await expect_error("a released run can't be written", StaleRunError, store.commit(driver, late))
    await store.post("run", "event", b"mail")
    claimed = await store.claim("run")
    expect("a claim returns the whole run", claimed, await store.load("run"))
    driver = driver_of(claimed)
    end = Commit("run", entries=[(2, b"y")], status=RunStatus.CANCELLED, at=NOW, release=True)
    await store.commit(driver, end)
    late = Commit("run", entries=[(3, b"z")])
    await expect_error("a commit may release the run", StaleRunError, store.commit(driver, late))
    again = await store.claim("run")
    expect("a run that has ended can be claimed", journal(again), [(1, b"first"), (2, b"y")])
    done = Commit("run", entries=[(3, b"z")], status=RunStatus.COMPLETED, at=NOW, release=True)
    await store.commit(driver_of(again), done)
    for _ in range(2):
        read = await store.claim("run")
        expect("claiming a completed run returns it", read.info.status, RunStatus.COMPLETED)
        expect("claiming a completed run returns no driver", read.driver, None)
    queries = (store.load, store.load_snapshot, store.history, store.get_run)
    for call in (store.claim, store.delete_run, *queries):
        await expect_error(
            f"{call.__name__} refuses an unknown run", RunNotFoundError, call("unknown")
        )
    await store.release(Driver("unknown"))


async def _check_list(store: CheckpointStore) -> None:
    for number, age in enumerate((5, 3, 3, 9, 1)):
        await start(store, f"r{number}", created=NOW - age)
    await store.create(NewRun("other", "1", NOW), Commit("r5", status=RunStatus.PAUSED, at=NOW))
    order = ["r3", "r0", "r1", "r2", "r4", "r5"]
    expect(
        "runs are listed in the order of their creation",
        [run.run_id for run in await store.list_runs()],
        order,
    )
    pages: list[str] = []
    while page := await store.list_runs(limit=2, after=pages[-1] if pages else None):
        pages += [run.run_id for run in page]
    expect("pages contain each run once, in order", pages, order)
    paused = [run.run_id for run in await store.list_runs(status="paused")]
    expect("runs are found by their status, or its name", paused, ["r5"])
    await store.create(
        NewRun("shop", "1", NOW), Commit("r6", status=RunStatus.FAILED, at=NOW, release=True)
    )
    wanted: list[RunStatus | str] = [RunStatus.FAILED, "paused"]
    several = [run.run_id for run in await store.list_runs(status=wanted, limit=1)]
    several += [run.run_id for run in await store.list_runs(status=wanted, after=several[0])]
    expect("runs are found by several statuses, in pages and in order", several, ["r5", "r6"])
    expect("no run matches an empty list of statuses", await store.list_runs(status=[]), [])
    expect("runs are found by their workflow", len(await store.list_runs(workflow="shop")), 6)
    both = await store.list_runs(workflow="shop", status=RunStatus.PAUSED)
    expect("all given conditions apply together", both, [])


async def _check_delete(store: CheckpointStore) -> None:
    driver = await start(store, blobs={"d": b"1"}, history=(1, b"h"))
    await store.post("run", "event", b"1", key="k")
    await store.release(driver)
    await store.delete_run("run")
    await expect_error("a deleted run is not found", RunNotFoundError, store.load("run"))
    await start(store)
    again = await store.load("run")
    expect(
        "nothing is left of a deleted run",
        (dict(again.blobs), list(again.history), list(again.inbox)),
        ({}, [], []),
    )
    expect(
        "a deleted run's keys are free",
        await store.post("run", "event", b"1", key="k") is not None,
        True,
    )


async def _check_purge(store: CheckpointStore) -> None:
    ends = {
        "old": RunStatus.COMPLETED,
        "failed": RunStatus.FAILED,
        "waits": RunStatus.WAITING,
        "new": RunStatus.COMPLETED,
    }
    for run_id, status in ends.items():
        at = NOW if run_id == "new" else NOW - 100
        driver = await start(store, run_id, created=NOW - 200)
        await store.commit(driver, Commit(run_id, status=status, at=at, release=True))
    await start(store, "driven", created=NOW - 200, status=RunStatus.FAILED)
    moment = dt.datetime.fromtimestamp(NOW - 50, dt.UTC)
    counted = await store.purge(older_than=moment, status=[RunStatus.FAILED])
    expect("purge deletes runs of the given statuses that have no driver", counted, 1)
    expect(
        "purge deletes all runs that ended before the time by default",
        await store.purge(older_than=moment),
        1,
    )
    left = {run.run_id for run in await store.list_runs()}
    expect("purge keeps runs that are new, not ended or driven", left, {"waits", "new", "driven"})
    aged = await store.purge(older_than=dt.timedelta(seconds=1), status=["waiting", "completed"])
    expect("purge accepts an age too, and names of statuses", aged, 2)


async def _check_two_openings(store: CheckpointStore, other: CheckpointStore) -> None:
    driver = await start(store)
    await expect_error("only one opening drives a run", RunLockedError, other.claim("run"))
    await expect_error(
        "a run driven elsewhere can't be deleted", RunLockedError, other.delete_run("run")
    )
    await expect_error(
        "only the driver commits",
        StaleRunError,
        other.commit(driver, Commit("run", entries=[(2, b"x")])),
    )
    await other.release(driver)
    await store.commit(driver, Commit("run", entries=[(2, b"y")]))
    mail = await other.post("run", "event", b"from afar", key="k")
    expect("every opening sees a posted message", list((await store.load("run")).inbox), [mail])
    expect("all openings share the keys", await store.post("run", "event", b"", key="k"), None)
    expect("every opening may read", journal(await other.load("run")), [(1, b"first"), (2, b"y")])
    await store.release(driver)
    theirs = await drive(other)
    await expect_error(
        "a driver that has released its run can't write",
        StaleRunError,
        store.commit(driver, Commit("run", entries=[(3, b"z")])),
    )
    await other.commit(theirs, Commit("run", entries=[(3, b"ours")]))
    expect("the next driver continues the run", len((await store.load("run")).entries), 3)


async def _check_closing(
    factory: Callable[[], AbstractAsyncContextManager[CheckpointStore]],
    reopen: Callable[[CheckpointStore], AbstractAsyncContextManager[CheckpointStore]],
) -> None:
    async with factory() as store:
        async with reopen(store) as other:
            await start(other)
        expect("closing releases all runs", journal(await store.claim("run")), [(1, b"first")])


_CHECKS = (
    _check_create,
    _check_commit,
    _check_order,
    _check_row,
    _check_snapshot,
    _check_history,
    _check_inbox,
    _check_keys,
    _check_claim,
    _check_list,
    _check_delete,
    _check_purge,
)
