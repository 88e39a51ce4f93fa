"""The fence on servers.

A batch and a process that deposes the lease's holder exclude each other, however few statements the
batch has.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
import trio

from blazen_trio._state.status import RunStatus
from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio._stores.sql.databases import mysql
from blazen_trio._stores.sql.transaction import BatchTransaction
from blazen_trio.errors import StaleRunError, StoreError
from tests.databases import SERVERS, WRITER_ARGUMENTS, an_engine, execute, kill_backends, trace
from tests.stores.by_id import ById, open_by_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


_on_servers = pytest.mark.parametrize("kind", SERVERS)
_on_postgresql = pytest.mark.parametrize("kind", ["postgresql"])
_append_and_more = pytest.mark.parametrize("status", [None, RunStatus.WAITING])
"""An append alone, which has the fewest statements, and one that changes more."""

_DEPOSE = "UPDATE blazen_lease SET state = 0 WHERE state = 1"
_OF_ANOTHER = (
    "INSERT INTO blazen_journal SELECT run_no, 2, 0, 1, 'x' FROM blazen_run WHERE run_id = 'a'"
)


@asynccontextmanager
async def _driving(url: str | sa.Engine, *run_ids: str, **options: Any) -> AsyncIterator[ById]:
    """Open a store that drives these runs, each with its first entry."""
    async with open_by_id(url, migrate=True, **options) as store:
        for run_id in run_ids:
            await store.create(NewRun("w", "1", 1.0), Commit(run_id, [(1, b"1")]))
        yield store


def _entries(url: str) -> list[int]:
    return [seq for (seq,) in execute(url, "SELECT seq FROM blazen_journal ORDER BY run_no, seq")]


@_on_servers
@_append_and_more
async def test_a_deposed_holders_batch_waits_for_the_deposer_and_writes_nothing(
    url: str, status: RunStatus | None
) -> None:
    refused: list[str] = []
    async with _driving(url, "a", "b") as store:
        with an_engine(url) as engine, engine.connect() as deposer:
            begun = deposer.begin()
            deposer.execute(sa.text(_DEPOSE))

            async def commit(run_id: str) -> None:
                try:
                    await store.commit(Commit(run_id, [(2, b"late")], status=status))
                except StaleRunError:
                    refused.append(run_id)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(commit, "a")
                nursery.start_soon(commit, "b")
                await trio.sleep(0.3)
                # Nothing has been written since the runs were created.
                assert store.statistics().commits == 2
                assert refused == []
                await trio.to_thread.run_sync(begun.commit)
        assert sorted(refused) == ["a", "b"]
        assert _entries(url) == [1, 1]


@_on_servers
@_append_and_more
async def test_a_holders_batch_waits_for_a_deposer_that_gives_up(
    url: str, status: RunStatus | None
) -> None:
    async with _driving(url, "a") as store:
        with an_engine(url) as engine, engine.connect() as deposer:
            begun = deposer.begin()
            deposer.execute(sa.text(_DEPOSE))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.commit, Commit("a", [(2, b"2")], status=status))
                await trio.sleep(0.3)
                assert store.statistics().commits == 1
                await trio.to_thread.run_sync(begun.rollback)
        await store.commit(Commit("a", [(3, b"3")]))
        assert _entries(url) == [1, 2, 3]


@_on_servers
@_append_and_more
async def test_an_existing_entry_is_a_second_fence(url: str, status: RunStatus | None) -> None:
    async with _driving(url, "a", "b") as store:
        execute(url, _OF_ANOTHER)
        for _ in range(2):
            with pytest.raises(StaleRunError):
                await store.commit(Commit("a", [(2, b"2")], status=status))
        await store.commit(Commit("b", [(2, b"2")], status=status))
        assert _entries(url) == [1, 2, 1, 2]
        assert execute(url, "SELECT status FROM blazen_run WHERE run_id = 'a'") == [(2,)]


@_on_servers
async def test_an_append_waits_for_a_lock_for_a_bounded_time(url: str) -> None:
    async with _driving(url, "a", busy_timeout=0.2) as store:
        with an_engine(url) as engine, engine.connect() as other:
            begun = other.begin()
            other.execute(sa.text(_OF_ANOTHER))
            with trio.fail_after(120), pytest.raises(StoreError, match="locked"):
                await store.commit(Commit("a", [(2, b"2")]))
            begun.rollback()
        await store.claim("a")
        await store.commit(Commit("a", [(2, b"2")]))


@_on_servers
async def test_a_statement_that_arrives_after_its_successor_writes_nothing(
    kind: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """We have lost the connection, but the statement is still on its way to the server."""
    late: list[Any] = []
    real = BatchTransaction._write_whole

    def lose(self: BatchTransaction, whole: Any, rows: list[tuple[Any, ...]]) -> None:
        if late:
            real(self, whole, rows)
        else:
            late.extend((whole, self._renewal, rows))
            kill_backends(url)
            self._unfenced.execute("SELECT 1")

    def arrive() -> bool:
        with (
            an_engine(url, isolation_level="AUTOCOMMIT", **WRITER_ARGUMENTS[kind]) as engine,
            engine.connect() as slow,
        ):
            cursor: Any = slow.connection.cursor()
            return bool(late[0].execute(cursor, *late[1:]))

    monkeypatch.setattr(BatchTransaction, "_write_whole", lose)
    async with _driving(url, "a") as store:
        # It arrives after we have looked for it, and before its replacement.
        look = store._batches._look

        def look_and_arrive(lease_id: int) -> bool:
            found = look(lease_id)
            assert not arrive()
            return found

        monkeypatch.setattr(store._batches, "_look", look_and_arrive)
        await store.commit(Commit("a", [(2, b"2")]))
        # It arrives last of all.
        assert not arrive()
        await store.commit(Commit("a", [(3, b"3")]))
        assert _entries(url) == [1, 2, 3]


@_on_postgresql
async def test_a_writer_uses_transactions_again_after_a_statement_without_one(
    url: str,
) -> None:
    async with _driving(url, "a") as store:

        def autocommit() -> bool:
            connection = store._batches._connection
            assert connection is not None
            driver: Any = connection.connection.dbapi_connection
            return bool(driver.autocommit)

        await store.commit(Commit("a", [(2, b"2")]))
        assert not autocommit()
        execute(url, _OF_ANOTHER.replace("2,", "3,"))
        with pytest.raises(StaleRunError):
            await store.commit(Commit("a", [(3, b"3")]))
        await store.create(NewRun("w", "1", 1.0), Commit("b", [(1, b"1")]))
        assert not autocommit()


@_on_postgresql
@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_each_commit_is_a_transaction_at_stricter_isolation_levels(
    url: str, level: str, tmp_path: Path
) -> None:
    execute(
        url,
        f"ALTER DATABASE {sa.make_url(url).database} SET default_transaction_isolation = '{level}'",
    )
    with (
        an_engine(url, **WRITER_ARGUMENTS["postgresql"]) as engine,
        trace(engine, tmp_path) as statements,
    ):
        async with _driving(engine, "a") as store:
            statements()
            await store.commit(Commit("a", [(2, b"2")]))
            kinds = [statement.split()[0] for statement in statements()]
            assert kinds == ["BEGIN", "UPDATE", "INSERT", "COMMIT"]


@pytest.mark.parametrize("kind", ["mariadb"])
async def test_a_commit_larger_than_a_packet_is_written_whole_or_not_at_all(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "_PACKET", 1000)
    async with _driving(url, "a", "b") as store:
        entries = [(seq, bytes(100)) for seq in range(2, 52)]
        # A value that looks like a statement, and like a driver's placeholders.
        hostile = "%s %(me)s '; DROP TABLE blazen_run; -- \\' \""
        await store.commit(Commit("a", entries, status=RunStatus.FAILED, error=hostile))
        assert (await store.get_run("a")).error == hostile
        assert list((await store.load("a")).entries) == [(1, b"1"), *entries]
        execute(url, _OF_ANOTHER.replace("2,", "40,").replace("'a'", "'b'"))
        with pytest.raises(StaleRunError):
            await store.commit(Commit("b", entries))
        execute(url, _DEPOSE)
        with pytest.raises(StaleRunError):
            await store.commit(Commit("a", [(seq, bytes(100)) for seq in range(52, 92)]))
        assert _entries(url) == [*range(1, 52), 1, 40]
        # The connection can still be used.
        await store.create(NewRun("w", "1", 1.0), Commit("c", [(1, b"1")]))


@pytest.mark.parametrize("kind", ["mariadb"])
async def test_only_writers_of_our_own_engines_send_packets(url: str) -> None:
    async with _driving(url, "a") as store:
        await store.load("a")
        with store._engine.connect() as reader:
            assert not mysql.takes_packets(reader)
        connection = store._batches._connection
        assert connection is not None
        assert mysql.takes_packets(connection)
    with an_engine(url) as engine:
        async with _driving(engine, "b") as store:
            connection = store._batches._connection
            assert connection is not None
            assert not mysql.takes_packets(connection)
