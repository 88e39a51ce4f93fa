"""Taking runs: they are read when others may write again, and whatever happens meanwhile none of them is stuck."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio

from blazen_trio._state.status import RunStatus
from blazen_trio._stores.open import open_store
from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio._stores.sql import batches, queries, troubles
from blazen_trio.errors import SchemaError, StaleRunError, StoreError
from tests.databases import execute

if TYPE_CHECKING:
    from collections.abc import Callable

    from blazen_trio._stores.protocol import StoredRun
    from blazen_trio._stores.sql.store import SqlStore

_NEW = NewRun("w", "1", 1.0)


async def _submit(store: SqlStore, *run_ids: str) -> None:
    for run_id in run_ids:
        await store.create(_NEW, Commit(run_id, [(1, b"1")], status=RunStatus.QUEUED, release=True))


class Reading:
    """Reads runs only when it may."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.begun = threading.Event()
        self._read: Callable[..., Any] = queries.load_runs

    def __call__(self, *given: Any) -> Any:
        self.begun.set()
        assert self.may.wait(20)
        return self._read(*given)


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Reading:
    reading = Reading()
    monkeypatch.setattr(queries, "load_runs", reading)
    return reading


async def test_others_write_while_what_was_taken_is_read(url: str, reading: Reading) -> None:
    taken: list[str] = []
    async with open_store(url, migrate=True) as store:
        await _submit(store, "a", "b")
        await store.create(_NEW, Commit("ours", [(1, b"1")]))

        async def take() -> None:
            taken.extend(run.info.run_id for run in await store.take(["w"], 5))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            with trio.fail_after(20):
                await trio.to_thread.run_sync(reading.begun.wait)
                await store.commit(Commit("ours", [(2, b"2")]))
                # What comes meanwhile is found in the inbox, or by polling.
                await store.post("a", "event", b"x")
            assert taken == []
            # They are ours: whoever took them is not cancelled any more.
            nursery.cancel_scope.cancel()
            reading.may.set()
        assert sorted(taken) == ["a", "b"]
        assert [mail.data for mail in (await store.poll(["w"])).mail["a"]] == [b"x"]
        await store.commit(Commit("a", [(2, b"2")]))
        with pytest.raises(StoreError, match="entry 3 was to be stored where entry 2 belongs"):
            await store.commit(Commit("b", [(3, b"a gap")]))


async def test_a_lease_that_is_lost_while_what_was_taken_is_read(url: str, reading: Reading) -> None:
    taken: list[StoredRun] = []
    async with open_store(url, migrate=True) as store, open_store(url) as other:
        await _submit(store, "a")

        async def take() -> None:
            taken.extend(await store.take(["w"], 5))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            await trio.to_thread.run_sync(reading.begun.wait)
            execute(url, "UPDATE blazen_lease SET expires = 1")
            reading.may.set()
            await other.claim("a")
            await other.commit(Commit("a", [(2, b"theirs")]))
        last = taken[0].last
        assert last is not None
        with pytest.raises(StaleRunError):
            await store.commit(Commit("a", [(last + 1, b"late")]))
        assert list((await store.load("a")).entries) == [(1, b"1"), (2, b"theirs")]


async def test_what_was_taken_and_can_not_be_read_is_given_back(url: str) -> None:
    async with open_store(url, migrate=True) as store, open_store(url) as other:
        await _submit(store, "a", "b")
        execute(url, "UPDATE blazen_journal SET format = 9")
        with pytest.raises(SchemaError, match="format 9"):
            await store.take(["w"], 5)
        assert store.statistics().driven == 0
        execute(url, "UPDATE blazen_journal SET format = 1")
        taken = await other.take(["w"], 5)
        assert sorted((run.info.run_id, run.crashes) for run in taken) == [("a", 0), ("b", 0)]


async def test_what_can_be_neither_read_nor_given_back_goes_back_with_its_lease(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(troubles, "RECONNECT_FOR", 0.2)
    async with open_store(url, migrate=True) as store, open_store(url) as other:
        await store.create(_NEW, Commit("driven", [(1, b"1")]))
        await _submit(store, "a")
        with monkeypatch.context() as away:

            def refuse(*_given: Any) -> Any:
                msg = "no server, nowhere"
                raise StoreError(msg)

            def lose(*_given: Any) -> Any:
                away.setattr(batches.Batches, "_connect", refuse)
                refuse()

            away.setattr(queries, "load_runs", lose)
            with pytest.raises(StoreError, match="nowhere"):
                await store.take(["w"], 5)
        with pytest.raises(StaleRunError):
            await store.commit(Commit("driven", [(2, b"2")]))
        await store.post("a", "event", b"x")  # the next that is written
        taken = await other.take(["w"], 5)
        assert sorted((run.info.run_id, run.crashes) for run in taken) == [("a", 0), ("driven", 0)]
