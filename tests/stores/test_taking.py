"""Taking runs.

Taken runs are read while others can write again. Whatever happens during the read, none gets stuck.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio

from blazen_trio._state.status import RunStatus
from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio._stores.sql import batches, queries, troubles
from blazen_trio.errors import SchemaError, StaleRunError, StoreError
from blazen_trio.testing.promises import Heard
from tests.databases import execute, mark_holders_dead
from tests.stores.by_id import ById, open_by_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blazen_trio._stores.driver import Mail
    from blazen_trio._stores.protocol import StoredRun

_NEW = NewRun("w", "1", 1.0)


async def _submit(store: ById, *run_ids: str) -> None:
    for run_id in run_ids:
        await store.create(_NEW, Commit(run_id, [(1, b"1")], status=RunStatus.QUEUED, release=True))


class Reading:
    """Reads runs, but only once it may."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.begun = threading.Event()
        self._read: Callable[..., Any] = queries.load_runs

    def __call__(self, *given: Any, **options: Any) -> Any:
        self.begun.set()
        assert self.may.wait(20)
        return self._read(*given, **options)


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Reading:
    reading = Reading()
    monkeypatch.setattr(queries, "load_runs", reading)
    return reading


async def test_others_can_write_while_taken_runs_are_read(url: str, reading: Reading) -> None:
    taken: list[str] = []
    inbox: dict[str, Sequence[Mail]] = {}
    async with open_by_id(url, migrate=True) as store:
        await _submit(store, "a", "b")
        await store.create(_NEW, Commit("ours", [(1, b"1")]))

        async def take() -> None:
            for run in await store.take(["w"], 5):
                taken.append(run.info.run_id)
                inbox[run.info.run_id] = run.inbox

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            with trio.fail_after(120):
                await trio.to_thread.run_sync(reading.begun.wait)
                await store.commit(Commit("ours", [(2, b"2")]))
                # A message that arrives during the read is found in the inbox, or by polling.
                await store.post("a", "event", b"x")
            assert taken == []
            # The runs are ours, so taking them can no longer be cancelled.
            nursery.cancel_scope.cancel()
            reading.may.set()
        assert sorted(taken) == ["a", "b"]
        heard = Heard(store.driver("a"))
        await store.poll(["w"])
        assert [mail.data for mail in [*inbox["a"], *heard.mail]] == [b"x"]
        await store.commit(Commit("a", [(2, b"2")]))
        with pytest.raises(StoreError, match="expected entry 2, got entry 3"):
            await store.commit(Commit("b", [(3, b"a gap")]))


async def test_a_lease_can_be_lost_while_taken_runs_are_read(url: str, reading: Reading) -> None:
    taken: list[StoredRun] = []
    async with open_by_id(url, migrate=True) as store, open_by_id(url) as other:
        await _submit(store, "a")

        async def take() -> None:
            taken.extend(await store.take(["w"], 5))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            await trio.to_thread.run_sync(reading.begun.wait)
            mark_holders_dead(url)
            reading.may.set()
            await other.claim("a")
            await other.commit(Commit("a", [(2, b"theirs")]))
        last = taken[0].last
        assert last is not None
        with pytest.raises(StaleRunError):
            await store.commit(Commit("a", [(last + 1, b"late")]))
        assert list((await store.load("a")).entries) == [(1, b"1"), (2, b"theirs")]


async def test_an_unreadable_run_does_not_affect_the_others(url: str) -> None:
    async with open_by_id(url, migrate=True) as store:
        await _submit(store, "a", "b", "c", "d")
        change = "WHERE run_no = (SELECT run_no FROM blazen_run WHERE run_id = '{}')"
        execute(url, f"UPDATE blazen_journal SET format = 9 {change.format('a')}")
        execute(url, f"UPDATE blazen_run SET created = 9000000000000000000 {change.format('b')}")
        execute(url, "UPDATE blazen_run SET status = 9 WHERE run_id = 'c'")
        assert (await store.poll(["w"], ["a", "b", "c", "d"])).watched.keys() == {"a", "b", "d"}
        taken = {run.info.run_id: run for run in await store.take(["w"], 5)}
        assert taken.keys() == {"a", "b", "d"}
        assert isinstance(taken["a"].fault, SchemaError)
        assert (list(taken["a"].entries), list(taken["b"].entries)) == ([], [(1, b"1")])
        assert (taken["b"].fault, taken["d"].fault) == (None, None)
        await store.set_aside(store.driver("a"), "can't be read")
        info = await store.get_run("a")
        assert (info.status, info.error) == (RunStatus.FAILED, "can't be read")
        assert [run.run_id for run in await store.list_runs()] == ["a", "d", "b"]
        # The run with an unknown status keeps no worker busy, and does not make other posts fail.
        assert not (await store.poll(["w"])).ready
        async with trio.open_nursery() as nursery:

            async def post_to_the_unknown() -> None:
                with pytest.raises(SchemaError, match="status 9"):
                    await store.post("c", "event", b"")

            nursery.start_soon(post_to_the_unknown)
            nursery.start_soon(store.post, "d", "event", b"")
        for call in (store.claim, store.get_run):
            with pytest.raises(SchemaError, match="status 9"):
                await call("c")


@pytest.mark.parametrize("how", ["claim", "take"])
async def test_runs_that_can_not_be_read_without_a_database_are_released(
    url: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_by_id(url, migrate=True) as store, open_by_id(url) as other:
        await _submit(store, "a")

        def refuse(*_given: Any, **_options: Any) -> Any:
            msg = "no server, nowhere"
            raise StoreError(msg)

        with monkeypatch.context() as away:
            away.setattr(queries, "load_runs", refuse)
            with pytest.raises(StoreError, match="nowhere"):
                await (store.claim("a") if how == "claim" else store.take(["w"], 5))
        assert store.statistics().driven == 0
        assert [run.info.run_id for run in await other.take(["w"], 5)] == ["a"]


async def test_the_release_of_runs_that_can_be_neither_read_nor_released_is_owed(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(troubles, "RECONNECT_FOR", 0.2)
    async with open_by_id(url, migrate=True) as store, open_by_id(url) as other:
        await store.create(_NEW, Commit("driven", [(1, b"1")]))
        await _submit(store, "a")
        with monkeypatch.context() as away:

            def refuse(*_given: Any, **_options: Any) -> Any:
                msg = "no server, nowhere"
                raise StoreError(msg)

            def lose(*_given: Any, **_options: Any) -> Any:
                away.setattr(batches.Batches, "_connect", refuse)
                store._batches._drop_connection()
                refuse()

            away.setattr(queries, "load_runs", lose)
            with pytest.raises(StoreError, match="nowhere"):
                await store.take(["w"], 5)
        with trio.fail_after(120):
            # The store does not notify us.
            while not (taken := await other.take(["w"], 5)):  # noqa: ASYNC110
                await trio.sleep(0.05)
        assert [(run.info.run_id, run.crashes) for run in taken] == [("a", 0)]
        # The other run that the store drives is not affected.
        await store.commit(Commit("driven", [(2, b"2")]))
