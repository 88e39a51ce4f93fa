"""Servers that go away for a moment, and processes that freeze in a transaction.

Nothing is lost, and nothing is done twice.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
import trio

from blazen_trio._state.status import RunStatus
from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio._stores.sql import batches, troubles
from blazen_trio._stores.sql.databases.base import PlainTransaction
from blazen_trio._stores.sql.statements import Whole
from blazen_trio.errors import RunExistsError, StaleRunError, StoreError
from tests.databases import SERVERS, an_engine, execute, kill_backends, mark_holders_dead
from tests.stores.by_id import ById, open_by_id

if TYPE_CHECKING:
    from collections.abc import Callable


pytestmark = pytest.mark.parametrize("kind", SERVERS)

_NEW = NewRun("w", "1", 1.0)


async def _create(store: ById, run_id: str = "a", **more: Any) -> None:
    await store.create(_NEW, Commit(run_id, [(1, b"1")], **more))


def refusing(store: ById) -> Callable[..., Any]:
    """Return a function that fails as the driver does if it finds no server."""

    def refuse(*_args: Any) -> Any:
        kind = store._engine.dialect.loaded_dbapi.OperationalError
        raise (
            kind(2003, "Connection refused")
            if store._engine.dialect.driver == "pymysql"
            else kind("Connection refused")
        )

    return refuse


async def test_connections_lost_while_idle_are_reopened(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_by_id(url, migrate=True) as store:
        await _create(store)
        await _create(store, "other", release=True)
        for seq in (2, 3):
            await store.load("a")
            assert kill_backends(url) > 0
            await store.commit(Commit("a", [(seq, b"x")]))
            kill_backends(url)
            assert [entry for entry, _ in (await store.load("a")).entries] == list(
                range(1, seq + 1)
            )
            kill_backends(url)
            assert (await store.poll(["w"])).ready
        kill_backends(url)
        await store.claim("other")
        kill_backends(url)
    assert caplog.records == []
    # Closing has released everything, although its connection was gone.
    assert execute(url, "SELECT count(*) FROM blazen_lease") == [(0,)]
    assert execute(url, "SELECT count(*) FROM blazen_run WHERE owner IS NOT NULL") == [(0,)]


@pytest.fixture
def strikes(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Lose the connection at the writer's next COMMIT, or at its next statement without one."""

    def arm(url: str, when: str) -> None:
        armed = [True]

        def wrap(commit: Callable[..., Any], query: Callable[..., Any]) -> Callable[..., Any]:
            def strike(*given: Any) -> Any:
                if not armed:
                    return commit(*given)
                armed.clear()
                if when == "after":
                    commit(*given)
                kill_backends(url)
                # The connection is gone, which this query makes the driver report.
                query(*given)
                raise AssertionError("the connection is not gone")

            return strike

        def query_plainly(begun: PlainTransaction) -> None:
            begun._driver.cursor().execute("SELECT 1")

        def query(begun: sa.engine.RootTransaction) -> None:
            begun.connection.connection.cursor().execute("SELECT 1")

        def query_at_once(_whole: Whole, cursor: Any, *_given: Any) -> None:
            cursor.execute("SELECT 1")

        for kind, name, lose in (
            (PlainTransaction, "commit", query_plainly),
            (sa.engine.RootTransaction, "commit", query),
            (Whole, "execute", query_at_once),
        ):
            monkeypatch.setattr(kind, name, wrap(getattr(kind, name), lose))

    return arm


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("status", [None, RunStatus.WAITING])
async def test_a_commit_is_written_once_if_its_connection_is_lost(
    url: str, when: str, status: RunStatus | None, strikes: Callable[[str, str], None]
) -> None:
    async with open_by_id(url, migrate=True) as store:
        await _create(store)
        strikes(url, when)
        await store.commit(Commit("a", [(2, b"2")], status=status))
        await store.commit(Commit("a", [(3, b"3")]))
        assert list((await store.load("a")).entries) == [(1, b"1"), (2, b"2"), (3, b"3")]
        assert store.statistics().commits == 3


@pytest.mark.parametrize("when", ["before", "after"])
async def test_the_first_lease_is_written_once_if_its_connection_is_lost(
    url: str, when: str, strikes: Callable[[str, str], None]
) -> None:
    async with open_by_id(url, migrate=True) as store:
        strikes(url, when)
        await _create(store)
        with pytest.raises(RunExistsError):
            await _create(store)
        await store.commit(Commit("a", [(2, b"2")]))
        assert list((await store.load("a")).entries) == [(1, b"1"), (2, b"2")]
        assert execute(url, "SELECT count(*) FROM blazen_lease") == [(1,)]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_commit_without_a_lease_is_not_repeated_if_its_connection_is_lost(
    url: str, when: str, strikes: Callable[[str, str], None]
) -> None:
    async with open_by_id(url, migrate=True) as store:
        await _create(store, release=True)
        strikes(url, when)
        with pytest.raises(StoreError, match="check before you do it again"):
            await store.post("a", "event", b"x", key="k")
        # With a key, it is safe to repeat it.
        assert (await store.post("a", "event", b"x", key="k") is None) == (when == "after")
        assert len((await store.load("a")).inbox) == 1


@pytest.mark.parametrize("when", ["before", "after"])
async def test_looking_for_work_is_repeated_if_its_connection_is_lost(
    url: str, when: str, strikes: Callable[[str, str], None]
) -> None:
    async with open_by_id(url, migrate=True) as store:
        await _create(store, status=RunStatus.COMPLETED, release=True)
        strikes(url, when)
        assert list(await store.take(["w"], 1)) == []
        strikes(url, when)
        assert (await store.claim("a")).info.status is RunStatus.COMPLETED


async def test_the_search_for_a_new_lease_waits_for_its_transaction_to_end(url: str) -> None:
    """The old connection is slow, not dead, so its lease may still be committed."""
    async with open_by_id(url, migrate=True) as store:
        await _create(store, "other", release=True)
        writer = store._batches
        with an_engine(url) as engine, engine.connect() as slow:
            begun = slow.begin()
            columns = "state, expires, batch, host, boot, pid_namespace, pid, started"
            slow.execute(
                sa.text(
                    f"INSERT INTO blazen_lease (lease_id, {columns})"
                    " VALUES (77, 1, 1, 42, '', '', '', 1, 1)"
                )
            )
            writer._number = 42
            async with trio.open_nursery() as nursery:
                found: list[bool] = []

                async def look() -> None:
                    found.append(await trio.to_thread.run_sync(writer._look, 77))
                    writer._drop_connection()

                nursery.start_soon(look)
                await trio.sleep(0.3)
                assert found == []
                await trio.to_thread.run_sync(begun.commit)
            assert found == [True]
        assert not await trio.to_thread.run_sync(writer._look, 78)
        writer._drop_connection()


async def test_a_database_that_stays_away_raises_an_error_after_a_bounded_time(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(troubles, "RECONNECT_FOR", 0.3)
    async with open_by_id(url, migrate=True) as store:
        await _create(store)

        with monkeypatch.context() as away:
            away.setattr(batches.Batches, "_connect", refusing(store))
            with pytest.raises(StoreError, match="no server answers"):
                await store.commit(Commit("a", [(2, b"2")]))
        await store.claim("a")
        await store.commit(Commit("a", [(2, b"2")]))


@pytest.mark.parametrize("when", ["before", "after"])
async def test_runs_taken_in_a_commit_with_an_unknown_outcome_are_not_stuck(
    url: str, when: str, strikes: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(troubles, "RECONNECT_FOR", 0.3)
    async with open_by_id(url, migrate=True) as store:
        await _create(store, "driven")
        await _create(store, "queued", status=RunStatus.QUEUED, release=True)
        strikes(url, when)

        with monkeypatch.context() as away:
            away.setattr(batches.Batches, "_look", refusing(store))
            with pytest.raises(StoreError, match="check before you do it again"):
                await store.take(["w"], 1)
        # The store can't know whether it has the runs, so it gives them up: they can be taken at
        # once, and are not suspects.
        with pytest.raises(StaleRunError):
            await store.commit(Commit("driven", [(2, b"2")]))
        taken = await store.take(["w"], 2)
        assert sorted((run.info.run_id, run.crashes) for run in taken) == [
            ("driven", 0),
            ("queued", 0),
        ]
        assert execute(url, "SELECT count(*) FROM blazen_lease") == [(1,)]


async def test_killing_connections_at_any_moment_loses_nothing(url: str) -> None:
    acknowledged: dict[str, int] = {}
    kills = 0

    async def drive(store: ById, run_id: str) -> None:
        await _create(store, run_id)
        while kills < 15:
            seq = acknowledged.get(run_id, 1) + 1
            status = RunStatus.RUNNING if seq % 3 == 0 else None
            await store.commit(Commit(run_id, [(seq, bytes(seq))], status=status, at=float(seq)))
            acknowledged[run_id] = seq

    async def look(store: ById) -> None:
        while kills < 15:
            await store.list_runs()

    async with open_by_id(url, migrate=True) as store:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(drive, store, f"r{number}")
            nursery.start_soon(look, store)
            while kills < 15:
                enough = sum(acknowledged.values()) + 10
                # Commits do not notify us.
                while sum(acknowledged.values()) < enough:  # noqa: ASYNC110
                    await trio.sleep(0.001)
                kills += await trio.to_thread.run_sync(kill_backends, url)
        assert len(acknowledged) == 10
        for run_id, last in acknowledged.items():
            stored = await store.load(run_id)
            assert list(stored.entries) == [
                (1, b"1"),
                *((seq, bytes(seq)) for seq in range(2, last + 1)),
            ]


# Starts to write to the run `r`, says so, and freezes.
_FROZEN = """
import sys, time, trio
from blazen_trio._state.status import RunStatus
from tests.stores.by_id import open_by_id
from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio._stores.sql.transaction import BatchTransaction

async def main():
    async with open_by_id(sys.argv[1], lease_ttl=1.0, migrate=True) as store:
        await store.create(NewRun("w", "1", 1.0), Commit("r", [(1, b"")]))
        finish = BatchTransaction.finish

        def freeze(self):
            finish(self)
            print("frozen", flush=True)
            time.sleep(1000)

        BatchTransaction.finish = freeze
        await store.commit(Commit("r", [(2, b"never")], status=RunStatus.RUNNING))

trio.run(main)
"""


async def test_the_server_ends_the_transaction_of_a_frozen_process(url: str) -> None:
    command = [sys.executable, "-c", _FROZEN, url]
    # No other task runs.
    frozen = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
    try:
        assert frozen.stdout is not None
        assert frozen.stdout.readline() == "frozen\n"
        os.kill(frozen.pid, signal.SIGSTOP)
        async with open_by_id(url, lease_ttl=1.0) as store:
            execute(url, "UPDATE blazen_run SET wake = NULL WHERE run_id = 'r'")
            with trio.fail_after(120):
                # The server does not notify us.
                while not (taken := await store.take(["w"], 1)):  # noqa: ASYNC110
                    await trio.sleep(0.1)
            assert list(taken[0].entries) == [(1, b"")]
            assert taken[0].crashes == 1
            await store.commit(Commit("r", [(2, b"ours")]))
            assert list((await store.load("r")).entries) == [(1, b""), (2, b"ours")]
    finally:
        frozen.kill()
        frozen.communicate()


async def test_a_lease_lost_while_disconnected_is_noticed_on_reconnecting(url: str) -> None:
    async with open_by_id(url, migrate=True) as loser, open_by_id(url) as winner:
        await _create(loser)
        mark_holders_dead(url)
        await winner.claim("a")
        kill_backends(url)
        with pytest.raises(StaleRunError):
            await loser.commit(Commit("a", [(2, b"too late")]))
        await winner.commit(Commit("a", [(2, b"ours")]))
