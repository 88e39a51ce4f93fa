"""Runs and events in the caller's own SQL transaction exist once it commits, or not at all."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
import trio

from blazen_trio import RunExistsError, RunNotFoundError, open_runtime, open_store
from tests.databases import KINDS, an_engine, fresh_database
from tests.runtime.flows import Approved, serving, ticks

if TYPE_CHECKING:
    from pathlib import Path

FAST: Any = {"poll_interval": 0.05}


def sql(connection: sa.Connection, text: str) -> Any:
    return connection.execute(sa.text(text))


def engine_of(file: Path) -> sa.Engine:
    return sa.create_engine(f"sqlite:///{file}")


@pytest.fixture
def engine(opened_in_sqlite: Any) -> Any:
    engine = sa.create_engine(opened_in_sqlite.url)
    yield engine
    engine.dispose()


async def test_a_run_is_created_with_its_order(opened_in_sqlite: Any, engine: Any) -> None:
    async with (
        opened_in_sqlite() as store,
        serving(store, **FAST) as worker,
        open_runtime(store) as front,
    ):
        with engine.begin() as connection:
            sql(connection, "CREATE TABLE orders (number INTEGER)")
        with engine.connect() as connection:
            sql(connection, "INSERT INTO orders VALUES (7)")
            await front.submit("ticks", 2, run_id="rolled back", connection=connection)
            with pytest.raises(RunNotFoundError):
                await store.get_run("rolled back")
            connection.rollback()
        with engine.begin() as connection:
            sql(connection, "INSERT INTO orders VALUES (8)")
            await front.submit(ticks, 2, run_id="run", connection=connection)
            with pytest.raises(RunExistsError):
                await front.submit(ticks, 2, run_id="run", connection=connection)
        assert await worker.result("run") == 3
        with pytest.raises(RunNotFoundError):
            await store.get_run("rolled back")
        with engine.connect() as connection:
            assert sql(connection, "SELECT number FROM orders").scalars().all() == [8]


async def test_an_event_is_sent_only_if_the_transaction_commits(
    opened_in_sqlite: Any, engine: Any
) -> None:
    async with opened_in_sqlite() as store, open_runtime(store) as front:
        run_id = await front.submit("approvals", 2)
        with engine.connect() as connection, connection.begin() as transaction:
            assert await front.send(run_id, Approved("rolled back"), key="k", connection=connection)
            transaction.rollback()
        with engine.begin() as connection:
            assert await front.send(run_id, Approved("ann"), key="k", connection=connection)
            assert not await front.send(run_id, Approved("twice"), key="k", connection=connection)
            with pytest.raises(RunNotFoundError):
                await front.send("unknown", Approved("x"), connection=connection)
        async with serving(store, **FAST):
            await front.send(run_id, Approved("bob"))
            assert sorted(await front.result(run_id)) == ["ann", "bob"]


async def test_one_transaction_creates_a_run_and_sends_its_first_event(
    opened_in_sqlite: Any, engine: Any
) -> None:
    async with opened_in_sqlite() as store, serving(store, **FAST) as worker:
        with engine.begin() as connection:
            await worker.submit("approvals", 1, run_id="run", connection=connection)
            await worker.send("run", Approved("ann"), connection=connection)
        assert await worker.result("run") == ["ann"]


async def test_unusable_connections_are_refused(
    opened_in_sqlite: Any, engine: Any, tmp_path: Any
) -> None:
    async with opened_in_sqlite() as store, open_runtime(store) as front:
        with pytest.raises(TypeError, match=r"sqlalchemy\.Connection"):
            await front.submit("ticks", 1, connection=engine)
        with engine.connect() as connection, pytest.raises(ValueError, match="no transaction"):
            await front.submit("ticks", 1, connection=connection)
        elsewhere = engine_of(tmp_path / "other.db")
        with elsewhere.begin() as connection, pytest.raises(ValueError, match=r"other\.db"):
            await front.submit("ticks", 1, connection=connection)
        elsewhere.dispose()


@pytest.mark.parametrize("kind", KINDS)
async def test_transactions_in_threads_block_neither_the_event_loop_nor_each_other(
    kind: str, tmp_path: Path
) -> None:
    outcomes: Counter[str] = Counter()
    turns = 0
    with fresh_database(kind, tmp_path) as url, an_engine(url, pool_timeout=60) as engine:
        # Both use one engine, whose pool the requests exhaust.
        async with open_store(engine, migrate=True) as store, open_runtime(store) as front:
            with engine.begin() as connection:
                sql(connection, "CREATE TABLE purchase (number VARCHAR(50) PRIMARY KEY)")

            def place(number: str) -> None:
                with engine.begin() as connection:
                    insert = sa.text("INSERT INTO purchase VALUES (:number)")
                    connection.execute(insert, {"number": number})
                    submit = partial(front.submit, "orders", run_id=number, connection=connection)
                    trio.from_thread.run(submit)

            async def request(number: str) -> None:
                try:
                    await trio.to_thread.run_sync(place, number)
                    outcomes["placed"] += 1
                except sa.exc.IntegrityError:
                    outcomes["placed before"] += 1

            async def count_turns() -> None:
                nonlocal turns
                while True:
                    await trio.sleep(0.001)
                    turns += 1

            with trio.fail_after(120):
                async with trio.open_nursery() as counting:
                    counting.start_soon(count_turns)
                    async with trio.open_nursery() as nursery:
                        for index in range(30):
                            nursery.start_soon(request, f"order-{index // 3}")
                    counting.cancel_scope.cancel()
            assert len(await store.list_runs()) == 10
            with engine.connect() as connection:
                assert sql(connection, "SELECT count(*) FROM purchase").scalar() == 10
    assert outcomes == {"placed": 10, "placed before": 20}
    assert turns > 3
