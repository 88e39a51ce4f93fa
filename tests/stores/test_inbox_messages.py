"""Inbox messages in a database.

Each driver is given each row once, however polls, posts and commits overlap.
"""

from __future__ import annotations

import datetime as dt
import threading
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
import trio

from blazen_trio._state.status import RunStatus
from blazen_trio._stores.driver import Driver
from blazen_trio._stores.open_store import open_store
from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio._stores.sql import polling
from blazen_trio.errors import StaleRunError, StoreError
from blazen_trio.testing.promises import Heard
from tests.databases import SERVERS, an_engine, execute
from tests.runtime.test_idle_costs import listened_to, plans

if TYPE_CHECKING:
    from blazen_trio._stores.sql.store import SqlStore

_NEW = NewRun("w", "1", 1.0)


async def _create(store: SqlStore, run_id: str = "a") -> Driver:
    driver = await store.create(_NEW, Commit(run_id, [(1, b"1")], status=RunStatus.WAITING))
    assert driver is not None
    return driver


async def _wait_for(heard: Heard, count: int) -> None:
    with trio.fail_after(120):
        while len(heard.mail) < count:  # noqa: ASYNC110  # a listener can't wake this task
            await trio.sleep(0.01)


class SlowPoll:
    """A poll whose thread has read, but may not return yet."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.may, self.has_read = threading.Event(), threading.Event()
        real = getattr(polling, name)

        def look(*given: Any) -> Any:
            found = real(*given)
            if not self.has_read.is_set():
                self.has_read.set()
                assert self.may.wait(20)
            return found

        monkeypatch.setattr(polling, name, look)


@pytest.mark.parametrize("taker", ["itself", "another opening"])
async def test_messages_found_by_a_slow_poll_are_not_delivered_again(
    url: str, taker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During the poll, the row was taken, and the run was released and claimed again."""
    async with open_store(url, migrate=True) as store, open_store(url) as other:
        driver = await _create(store)
        # The store's own polls, which may happen at any moment, find nothing.
        monkeypatch.setattr(polling, "new_mail", lambda *_: {})
        heard = Heard(driver)
        mail = await other.post("a", "event", b"x")
        assert mail is not None
        slow = SlowPoll(monkeypatch, "poll")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.poll, [])
            await trio.to_thread.run_sync(slow.has_read.wait)
            await store.release(driver)
            if taker == "itself":
                between = (await store.claim("a")).driver
            else:
                between = (await other.claim("a")).driver
            assert between is not None
            theirs = store if taker == "itself" else other
            await theirs.commit(between, Commit("a", [(2, b"took")], taken=[mail.id]))
            await theirs.release(between)
            claimed = await store.claim("a")
            assert claimed.driver is not None
            again = Heard(claimed.driver)
            slow.may.set()
        assert (heard.mail, list(claimed.inbox), again.mail) == ([], [], [])
        late = await other.post("a", "event", b"y")
        await store.poll([])
        assert again.mail == [late]
        await store.commit(
            claimed.driver, Commit("a", [(3, b"took")], taken=[late.id if late else 0])
        )


async def test_a_row_that_is_taken_during_a_poll_is_delivered_once(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(url, migrate=True) as store:
        driver = await _create(store)
        heard = Heard(driver)
        mail = await store.post("a", "event", b"x")
        assert mail is not None
        slow = SlowPoll(monkeypatch, "poll")
        real = polling.mail_by_id
        # As if it had not been delivered yet when the poll decided what to read.
        monkeypatch.setattr("blazen_trio._stores.sql.mailroom.Look.given", lambda *_: ())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.poll, [])
            await trio.to_thread.run_sync(slow.has_read.wait)
            await store.commit(driver, Commit("a", [(2, b"took")], taken=[mail.id]))
            slow.may.set()
        assert heard.mail == [mail]
        assert real is polling.mail_by_id


async def test_a_message_that_arrives_during_a_claim_is_delivered_once(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(url, migrate=True) as store:
        await store.create(_NEW, Commit("a", [(1, b"1")], status=RunStatus.QUEUED, release=True))
        first = await store.post("a", "event", b"1")
        begun, may = threading.Event(), threading.Event()
        real = store._read

        async def read(query: Any) -> Any:
            def wait(connection: sa.Connection) -> Any:
                begun.set()
                assert may.wait(20)
                return query(connection)

            return await real(wait)

        monkeypatch.setattr(store, "_read", read)
        given: list[Any] = []
        async with trio.open_nursery() as nursery:

            async def claim() -> None:
                stored = await store.claim("a")
                assert stored.driver is not None
                given.extend(stored.inbox)
                heard = Heard(stored.driver)
                given.extend(heard.mail)

            nursery.start_soon(claim)
            await trio.to_thread.run_sync(begun.wait)
            second = await store.post("a", "event", b"2")
            may.set()
        assert sorted(given, key=lambda mail: mail.id) == [first, second]


async def test_a_flood_is_delivered_in_pages_and_does_not_delay_other_runs(url: str) -> None:
    async with open_store(url, migrate=True) as store, open_store(url) as other:
        flooded, quiet = Heard(await _create(store, "a")), Heard(await _create(store, "b"))
        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(other.post, "a", "event", b"%d" % number)
        answer = await other.post("b", "event", b"answer")
        await _wait_for(quiet, 1)
        assert quiet.mail == [answer]
        with trio.fail_after(5):  # at two pages a second it would take another 4
            await _wait_for(flooded, 300)
        assert len({mail.id for mail in flooded.mail}) == 300


@pytest.mark.parametrize("kind", SERVERS)  # SQLite has one writer at a time
async def test_rows_that_commit_late_are_delivered_too(url: str) -> None:
    """A row gets its id when it is written, and is visible once it is committed."""
    async with open_store(url, migrate=True) as store:
        heard = Heard(await _create(store))
        with an_engine(url) as engine, engine.connect() as connection:
            begun = connection.begin()
            early = await store.post("a", "event", b"early", connection=connection)
            late = await store.post("a", "event", b"late")
            await store.poll([])
            assert heard.mail == [late]
            begun.commit()
            await store.poll([])
            assert heard.mail == [late, early]


async def test_a_poll_replaces_the_stores_own_one_unless_it_fails(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(url, migrate=True) as store, open_store(url) as other:
        heard = Heard(await _create(store))
        own_polls: list[Any] = []
        real = polling.new_mail
        monkeypatch.setattr(polling, "new_mail", lambda *given: own_polls.append(0) or real(*given))
        for _ in range(12):
            await store.poll([])
            await trio.sleep(0.1)
        assert len(own_polls) <= 1  # the first, which may have happened before the first poll

        def fail(*_given: Any) -> Any:
            msg = "no poll"
            raise StoreError(msg)

        monkeypatch.setattr(polling, "poll", fail)
        mail = await other.post("a", "event", b"x")
        with trio.fail_after(120):
            while not heard.mail:
                with pytest.raises(StoreError, match="no poll"):
                    await store.poll([])
                await trio.sleep(0.05)
        assert heard.mail == [mail]


async def test_only_the_commit_whose_message_another_driver_took_is_refused(url: str) -> None:
    async with open_store(url, migrate=True) as store:
        drivers = {run_id: await _create(store, run_id) for run_id in ("a", "b", "c")}
        mail = {run_id: await store.post(run_id, "event", b"") for run_id in drivers}
        execute(url, f"DELETE FROM blazen_inbox WHERE mail_id = {mail['b'].id if mail['b'] else 0}")
        refused: list[str] = []

        async def take(run_id: str) -> None:
            row = mail[run_id]
            assert row is not None
            try:
                commit = Commit(run_id, [(2, b"2")], taken=[row.id], status=RunStatus.RUNNING)
                await store.commit(drivers[run_id], commit)
            except StaleRunError as error:
                refused.append(f"{run_id}: {error}")

        async with trio.open_nursery() as nursery:
            for run_id in drivers:
                nursery.start_soon(take, run_id)
        assert len(refused) == 1
        assert "'b': another driver took its inbox messages" in refused[0]
        assert {each: len((await store.load(each)).entries) for each in drivers} == {
            "a": 2,
            "b": 1,
            "c": 2,
        }
        statuses = {each: (await store.get_run(each)).status for each in drivers}
        assert statuses == {"a": RunStatus.RUNNING, "b": RunStatus.WAITING, "c": RunStatus.RUNNING}
        assert isinstance(drivers["b"].lost, StaleRunError)


async def test_a_poll_for_messages_reads_only_through_an_index(url: str) -> None:
    with an_engine(url) as engine:
        async with open_store(engine, migrate=True) as store:
            Heard(await _create(store))
            with engine.begin() as connection:
                rows = [{"run": 1000 + number % 7, "data": b"x"} for number in range(3000)]
                columns = "(run_no, kind, format, data)"
                query = f"INSERT INTO blazen_inbox {columns} VALUES (:run, 'event', 1, :data)"
                connection.execute(sa.text(query), rows)
            for _ in range(5):
                await store.post("a", "event", b"")
            with listened_to(engine) as heard:
                await store.poll([])
            plan = plans(engine, [each for each in heard if "blazen_inbox" in each[0]])
    assert "ix_blazen_inbox_run_no_mail_id" in plan, plan
    for whole in (
        "SCAN blazen_inbox\n",
        "Seq Scan on blazen_inbox",
        "blazen_inbox ALL",
        "Sort  ",
        "filesort",
    ):
        assert whole not in plan, plan


_LARGE = bytes(range(256)) * 40_000  # 10 MB: three parts


def _parts(url: str) -> int:
    return int(execute(url, "SELECT count(*) FROM blazen_inbox_part")[0][0])


async def test_a_large_message_arrives_whole_and_leaves_no_parts(url: str) -> None:
    async with open_store(url, migrate=True) as store:
        driver = await _create(store)
        heard = Heard(driver)
        posted = await store.post("a", "event", _LARGE)
        assert posted is not None
        assert _parts(url) == 3
        await _wait_for(heard, 1)
        await store.release(driver)
        [taken] = await store.take(["w"], 1)
        assert [mail.data for mail in (*heard.mail, *taken.inbox)] == [_LARGE] * 2
        assert (await store.load("a")).inbox[0].data == _LARGE
        assert taken.driver is not None
        small = await store.post("a", "event", b"small")
        assert small is not None
        await store.commit(taken.driver, Commit("a", [(2, b"2")], taken=[posted.id, small.id]))
        assert (_parts(url), (await store.load("a")).inbox) == (0, ())


async def test_a_large_message_of_another_process_is_found_by_a_poll(url: str) -> None:
    async with open_store(url, migrate=True) as store, open_store(url) as other:
        driver = await _create(store)
        heard = Heard(driver)
        posted = await other.post("a", "event", _LARGE, key="k")
        await _wait_for(heard, 1)
        assert heard.mail == [posted]
        assert await other.post("a", "event", _LARGE, key="k") is None
        await store.commit(driver, Commit("a", [(2, b"2")], taken=[heard.mail[0].id]))
        assert _parts(url) == 0


@pytest.mark.parametrize("how", ["completed", "deleted", "purged"])
async def test_the_parts_of_a_message_are_deleted_with_its_run(url: str, how: str) -> None:
    async with open_store(url, migrate=True) as store:
        driver = await _create(store)
        with an_engine(url) as engine, engine.begin() as theirs:
            await store.post("a", "event", _LARGE, connection=theirs)
        assert _parts(url) == 3
        if how == "completed":
            ends = {"status": RunStatus.COMPLETED, "release": True}
            await store.commit(driver, Commit("a", [(2, b"2")], **ends))
        elif how == "deleted":
            await store.release(driver)
            await store.delete_run("a")
        else:
            execute(url, "DELETE FROM blazen_run")
            await store.purge(older_than=dt.timedelta(0))
        assert _parts(url) == 0
