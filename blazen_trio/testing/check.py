"""Proving a checkpoint store right: every promise of `CheckpointStore`, tried out."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import trio

from blazen_trio._state.status import RunStatus
from blazen_trio._stores.protocol import Commit, NewRun, SnapshotRow
from blazen_trio.errors import RunExistsError, RunLockedError, RunNotFoundError, StaleRunError, StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from blazen_trio._stores.protocol import CheckpointStore, StoredRun

__all__ = ["check_store"]

_NOW = 1_700_000_000.0


async def check_store(  # noqa: ASYNC910  # the store it checks suspends
    factory: Callable[[], AbstractAsyncContextManager[CheckpointStore]],
    *,
    reopen: Callable[[CheckpointStore], AbstractAsyncContextManager[CheckpointStore]] | None = None,
) -> None:
    """Try out every promise of the `CheckpointStore` protocol.

        async def test_my_store() -> None:
            await check_store(lambda: open_my_store(fresh_folder()))

    Args:
        factory: Opens a new, empty store, which shares nothing with any other that it opened.
        reopen: Opens the storage of an open store a second time, as another process would. Where it is left out, what
            two openings promise each other is not tried.

    Raises:
        AssertionError: A promise is broken; the message says which one.
    """
    for check in _CHECKS:
        async with factory() as store:
            await check(store)
    if reopen is not None:
        for check_two in _CHECKS_OF_TWO:
            async with factory() as store, reopen(store) as other:
                await check_two(store, other)
        await _check_closing(factory, reopen)


def _expect(promise: str, found: object, expected: object) -> None:
    if found != expected:
        msg = f"the store breaks a promise: {promise}; expected {expected!r}, found {found!r}"
        raise AssertionError(msg)


async def _expect_error(promise: str, kind: type[Exception], call: Awaitable[Any]) -> None:
    try:
        found = await call
    except kind:
        return  # noqa: ASYNC910  # an error need not be a checkpoint
    except Exception as error:
        msg = f"the store breaks a promise: {promise}; expected a {kind.__name__}, but {error!r} was raised"
        raise AssertionError(msg) from error
    msg = f"the store breaks a promise: {promise}; expected a {kind.__name__}, but {found!r} was returned"
    raise AssertionError(msg)


async def _start(store: CheckpointStore, run_id: str = "run", created: float = _NOW, **more: Any) -> None:
    given = {"status": RunStatus.RUNNING, "at": created, "entries": [(1, b"first")], **more}
    await store.create(NewRun("shop", "1", created), Commit(run_id, **given))


def _journal(stored: StoredRun) -> list[tuple[int, bytes]]:
    return [(seq, bytes(data)) for seq, data in stored.entries]


async def _check_create(store: CheckpointStore) -> None:
    await _start(store, blobs={"d1": b"large"}, history=(1, b"began"))
    await _expect_error("an id is given to one run only", RunExistsError, _start(store))
    stored = await store.load("run")
    _expect("what a run is created with is stored", _journal(stored), [(1, b"first")])
    _expect("its blobs are stored with it", dict(stored.blobs), {"d1": b"large"})
    _expect("its history is stored with it", list(stored.history), [b"began"])
    _expect("a new run has no snapshot", stored.snapshot, None)
    info = await store.get_run("run")
    _expect("a run's line names it", (info.run_id, info.workflow, info.version), ("run", "shop", "1"))
    _expect("a run's line has its status", (info.status, info.error), (RunStatus.RUNNING, None))
    moment = dt.datetime.fromtimestamp(_NOW, dt.UTC)
    _expect("a run's times are UTC, with their time zone", (info.created, info.updated), (moment, moment))
    await _start(store, "queued", status=RunStatus.QUEUED, release=True)
    await _expect_error("a run created with `release` is not driven", StaleRunError, store.commit(Commit("queued")))
    _expect("it can be claimed then", (await store.claim("queued")).info.status, RunStatus.QUEUED)


async def _check_commit(store: CheckpointStore) -> None:
    await _start(store)
    big = bytes(range(256)) * 20_000  # 5 MB, more than some databases take in one row
    await store.commit(Commit("run", entries=[(2, b"second"), (3, big)], blobs={"d1": big}))
    await store.commit(Commit("run", entries=[(4, b"")], blobs={"d1": big, "d2": b"x"}))
    stored = await store.load("run")
    expected = [(1, b"first"), (2, b"second"), (3, big), (4, b"")]
    _expect("entries come back in order and unchanged", _journal(stored) == expected, True)
    _expect("a blob may be given again, and is stored once", dict(stored.blobs) == {"d1": big, "d2": b"x"}, True)
    await _expect_error(
        "an entry that is stored already is refused",
        StaleRunError,
        store.commit(Commit("run", entries=[(4, b"again")])),
    )
    _expect("a refused commit writes nothing", len((await store.load("run")).entries), 4)
    await _start(store, "gap")
    await _expect_error(
        "a gap in the entries is refused", StoreError, store.commit(Commit("gap", entries=[(3, b"third")]))
    )
    _expect("a refused commit writes nothing", _journal(await store.load("gap")), [(1, b"first")])
    await _expect_error("nobody commits to an unknown run", StaleRunError, store.commit(Commit("unknown")))


async def _check_order(store: CheckpointStore) -> None:
    """Calls made one after the other, before any of them has returned, are stored in that order."""
    await _start(store)
    numbers = iter(range(2, 102))

    async def commit_next() -> None:
        # Whichever task runs first takes the first number, and hands its commit over before it suspends.
        seq = next(numbers)
        await store.commit(Commit("run", entries=[(seq, b"%d" % seq)]))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(commit_next)
    expected = [(1, b"first"), *((seq, b"%d" % seq) for seq in range(2, 102))]
    _expect("commits of a run are stored in the order of the calls", _journal(await store.load("run")), expected)


async def _check_row(store: CheckpointStore) -> None:
    await _start(store)
    await store.commit(Commit("run", status=RunStatus.FAILED, error="broke", version="2", at=_NOW + 5))
    info = await store.get_run("run")
    _expect("a status is stored with its error", (info.status, info.error), (RunStatus.FAILED, "broke"))
    _expect("a changed version is stored", info.version, "2")
    _expect("`updated` is the commit's `at`", info.updated.timestamp(), _NOW + 5)
    await store.commit(Commit("run", entries=[(2, b"x")], at=_NOW + 9))
    unchanged = await store.get_run("run")
    _expect("a commit without a status leaves the line alone", unchanged, info)
    await store.commit(Commit("run", status=RunStatus.RUNNING, at=_NOW + 10))
    _expect("an error goes with its status", (await store.get_run("run")).error, None)


async def _check_snapshot(store: CheckpointStore) -> None:
    await _start(store, blobs={"gone": b"1", "kept": b"2"})
    await store.commit(Commit("run", entries=[(2, b"b"), (3, b"c")]))
    folded = SnapshotRow(2, b"folded", frozenset({"kept"}))
    await store.commit(Commit("run", entries=[(4, b"d")], blobs={"new": b"3"}, snapshot=folded))
    stored = await store.load("run")
    _expect("a snapshot comes back", stored.snapshot, (2, b"folded"))
    _expect("a snapshot replaces the entries up to it, and no others", _journal(stored), [(3, b"c"), (4, b"d")])
    _expect("a snapshot drops the blobs that nothing needs", dict(stored.blobs), {"kept": b"2", "new": b"3"})
    await store.commit(Commit("run", snapshot=SnapshotRow(4, b"later", frozenset({"new"}))))
    await store.commit(Commit("run", entries=[(5, b"e")]))
    stored = await store.load("run")
    _expect("a later snapshot replaces an earlier one", stored.snapshot, (4, b"later"))
    _expect("the journal goes on after a snapshot", _journal(stored), [(5, b"e")])
    _expect("blobs are dropped again", dict(stored.blobs), {"new": b"3"})
    await _start(store, "copy", entries=[], snapshot=SnapshotRow(7, b"moved", frozenset()))
    await store.commit(Commit("copy", entries=[(8, b"on")]))
    moved = await store.load("copy")
    _expect("a run may begin with a snapshot", (moved.snapshot, _journal(moved)), ((7, b"moved"), [(8, b"on")]))


async def _check_history(store: CheckpointStore) -> None:
    await _start(store, history=(1, b"one"))
    await store.commit(Commit("run", history=(2, b"two to four")))
    await store.commit(
        Commit("run", entries=[(2, b"x")], history=(5, b"five"), snapshot=SnapshotRow(2, b"", frozenset()))
    )
    stored = await store.load("run")
    _expect(
        "the history comes back in order; snapshots leave it", list(stored.history), [b"one", b"two to four", b"five"]
    )


async def _check_inbox(store: CheckpointStore) -> None:
    await _start(store)
    mails = [await store.post("run", kind, data) for kind, data in (("event", b"1"), ("pause", b""), ("event", b"3"))]
    waiting = list((await store.load("run")).inbox)
    _expect("what was posted waits in order, with its id, kind and data", waiting, mails)
    second = waiting[1]
    await store.commit(Commit("run", entries=[(2, b"took one")], taken=[second.id]))
    left = list((await store.load("run")).inbox)
    _expect("a row is taken by its id, and no other is", left, [waiting[0], waiting[2]])
    later = await store.post("run", "event", b"4")
    _expect("an id is not used again", later is not None and later.id not in {mail.id for mail in waiting}, True)
    await _expect_error("nothing is posted to an unknown run", RunNotFoundError, store.post("unknown", "event", b""))


async def _check_keys(store: CheckpointStore) -> None:
    await _start(store)
    await _start(store, "other")
    mail = await store.post("run", "event", b"1", key="k")
    _expect("a key is stored with its row", mail is not None and mail.key, "k")
    _expect("a key is accepted once", await store.post("run", "event", b"2", key="k"), None)
    _expect("a key belongs to its run", await store.post("other", "event", b"3", key="k") is not None, True)
    _expect("another key is accepted", await store.post("run", "event", b"4", key="K") is not None, True)
    await store.commit(Commit("run", taken=[mail.id if mail else 0]))
    _expect("a key stays used after its row was taken", await store.post("run", "event", b"5", key="k"), None)


async def _check_claim(store: CheckpointStore) -> None:
    await _start(store)
    await _expect_error("a run that is driven can't be claimed", RunLockedError, store.claim("run"))
    await _expect_error("a run that is driven can't be deleted", RunLockedError, store.delete_run("run"))
    await store.release("run")
    await store.release("run")
    await _expect_error("a run given back is not ours", StaleRunError, store.commit(Commit("run", entries=[(2, b"x")])))
    await store.post("run", "event", b"mail")
    claimed = await store.claim("run")
    _expect("a claim reads all of the run", claimed, await store.load("run"))
    await store.commit(Commit("run", entries=[(2, b"y")], status=RunStatus.CANCELLED, at=_NOW, release=True))
    await _expect_error(
        "a commit may give the run back", StaleRunError, store.commit(Commit("run", entries=[(3, b"z")]))
    )
    _expect("a run that has ended can be claimed", _journal(await store.claim("run")), [(1, b"first"), (2, b"y")])
    done = Commit("run", entries=[(3, b"z")], status=RunStatus.COMPLETED, at=_NOW, release=True)
    await store.commit(done)
    for _ in range(2):
        _expect("a completed run is read by claim", (await store.claim("run")).info.status, RunStatus.COMPLETED)
    await _expect_error("a completed run is not driven", StaleRunError, store.commit(Commit("run", entries=[(4, b"")])))
    for call in (store.claim, store.load, store.get_run, store.delete_run):
        await _expect_error(f"{call.__name__} knows no unknown run", RunNotFoundError, call("unknown"))
    await store.release("unknown")


async def _check_list(store: CheckpointStore) -> None:
    for number, age in enumerate((5, 3, 3, 9, 1)):
        await _start(store, f"r{number}", created=_NOW - age)
    await store.create(NewRun("other", "1", _NOW), Commit("r5", status=RunStatus.PAUSED, at=_NOW))
    order = ["r3", "r0", "r1", "r2", "r4", "r5"]
    _expect("runs are listed by when they were created", [run.run_id for run in await store.list_runs()], order)
    pages: list[str] = []
    while page := await store.list_runs(limit=2, after=pages[-1] if pages else None):
        pages += [run.run_id for run in page]
    _expect("pages have each run once, in order", pages, order)
    paused = [run.run_id for run in await store.list_runs(status="paused")]
    _expect("runs are found by their status, also by its name", paused, ["r5"])
    _expect("runs are found by their workflow", len(await store.list_runs(workflow="shop")), 5)
    both = await store.list_runs(workflow="shop", status=RunStatus.PAUSED)
    _expect("what is asked for is asked for together", both, [])


async def _check_delete(store: CheckpointStore) -> None:
    await _start(store, blobs={"d": b"1"}, history=(1, b"h"))
    await store.post("run", "event", b"1", key="k")
    await store.release("run")
    await store.delete_run("run")
    await _expect_error("a deleted run is gone", RunNotFoundError, store.load("run"))
    await _start(store)
    again = await store.load("run")
    _expect(
        "nothing is left of a deleted run", (dict(again.blobs), list(again.history), list(again.inbox)), ({}, [], [])
    )
    _expect("a deleted run's keys are free", await store.post("run", "event", b"1", key="k") is not None, True)


async def _check_purge(store: CheckpointStore) -> None:
    ends = {
        "old": RunStatus.COMPLETED,
        "failed": RunStatus.FAILED,
        "waits": RunStatus.WAITING,
        "new": RunStatus.COMPLETED,
    }
    for run_id, status in ends.items():
        at = _NOW if run_id == "new" else _NOW - 100
        await _start(store, run_id, created=_NOW - 200)
        await store.commit(Commit(run_id, status=status, at=at, release=True))
    await _start(store, "driven", created=_NOW - 200, status=RunStatus.FAILED)
    moment = dt.datetime.fromtimestamp(_NOW - 50, dt.UTC)
    counted = await store.purge(older_than=moment, status=[RunStatus.FAILED])
    _expect("purge deletes those of the given statuses that nobody drives", counted, 1)
    _expect("purge deletes all that ended before then by default", await store.purge(older_than=moment), 1)
    left = {run.run_id for run in await store.list_runs()}
    _expect("purge leaves what is new, has not ended, or is driven", left, {"waits", "new", "driven"})
    aged = await store.purge(older_than=dt.timedelta(seconds=1), status=["waiting", "completed"])
    _expect("purge takes an age too, and statuses by name", aged, 2)


async def _check_two_openings(store: CheckpointStore, other: CheckpointStore) -> None:
    await _start(store)
    await _expect_error("one opening drives a run at a time", RunLockedError, other.claim("run"))
    await _expect_error("a run driven by another can't be deleted", RunLockedError, other.delete_run("run"))
    await _expect_error("only the driver commits", StaleRunError, other.commit(Commit("run", entries=[(2, b"x")])))
    await other.release("run")
    await store.commit(Commit("run", entries=[(2, b"y")]))
    mail = await other.post("run", "event", b"from afar", key="k")
    _expect("everybody sees what was posted", list((await store.load("run")).inbox), [mail])
    _expect("everybody's keys are one space", await store.post("run", "event", b"", key="k"), None)
    _expect("everybody may read", _journal(await other.load("run")), [(1, b"first"), (2, b"y")])
    await store.release("run")
    await other.claim("run")
    await _expect_error(
        "who gave a run back can't write", StaleRunError, store.commit(Commit("run", entries=[(3, b"z")]))
    )
    await other.commit(Commit("run", entries=[(3, b"ours")]))
    _expect("the new driver goes on", len((await store.load("run")).entries), 3)


async def _check_closing(
    factory: Callable[[], AbstractAsyncContextManager[CheckpointStore]],
    reopen: Callable[[CheckpointStore], AbstractAsyncContextManager[CheckpointStore]],
) -> None:
    async with factory() as store:
        async with reopen(store) as other:
            await _start(other)
        _expect("closing gives all runs back", _journal(await store.claim("run")), [(1, b"first")])


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
_CHECKS_OF_TWO = (_check_two_openings,)
