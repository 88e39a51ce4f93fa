"""Runs and messages in a caller's transaction are written with the caller's rows, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
import trio

from blazen_trio._stores.open_store import open_store
from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio.errors import RunExistsError, RunNotFoundError, StoreError
from tests.databases import SERVERS, an_engine, execute, fresh_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blazen_trio._stores.sql.store import SqlStore

_NEW = NewRun("w", "1", 1.0)


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    with an_engine(url, pool_size=20) as engine:
        yield engine


async def _create(store: SqlStore, run_id: str, connection: sa.Connection | None = None) -> None:
    await store.create(_NEW, Commit(run_id, [(1, b"1")], release=True), connection=connection)


def _clicks(url: str) -> list[str]:
    return [who for (who,) in execute(url, "SELECT who FROM clicks ORDER BY who")]


def _click(connection: sa.Connection, who: str) -> None:
    connection.execute(sa.text("INSERT INTO clicks VALUES (:who)"), {"who": who})


async def test_a_refused_call_leaves_the_callers_rows_alone(url: str, engine: sa.Engine) -> None:
    async with open_store(url, migrate=True) as store:
        execute(url, "CREATE TABLE clicks (who VARCHAR(10))")
        await _create(store, "there")
        with engine.connect() as connection, connection.begin():
            _click(connection, "ann")
            with pytest.raises(RunExistsError):
                await _create(store, "there", connection)
            with pytest.raises(RunNotFoundError):
                await store.post("nowhere", "event", b"x", connection=connection)
            await _create(store, "new", connection)
            _click(connection, "bob")
        assert _clicks(url) == ["ann", "bob"]
        assert (await store.get_run("new")).run_id == "new"


@pytest.mark.parametrize("kind", SERVERS)
async def test_losing_a_race_for_a_run_id_leaves_the_callers_rows_alone(
    url: str, engine: sa.Engine
) -> None:
    """The slower transaction's statement waits for the key, and fails when the faster commits."""
    async with open_store(url, migrate=True) as store:
        execute(url, "CREATE TABLE clicks (who VARCHAR(10))")

        async def slower() -> None:
            with engine.connect() as connection, connection.begin():
                _click(connection, "ann")
                with pytest.raises(RunExistsError):
                    await _create(store, "order", connection)

        with engine.connect() as first, first.begin():
            await _create(store, "order", first)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(slower)
                await trio.sleep(0.5)
                await trio.to_thread.run_sync(first.commit)
        assert _clicks(url) == ["ann"]


async def test_a_run_does_not_exist_if_the_caller_rolls_back(url: str, engine: sa.Engine) -> None:
    async with open_store(url, migrate=True) as store:
        with engine.connect() as connection:
            begun = connection.begin()
            await _create(store, "a", connection)
            begun.rollback()
        with pytest.raises(RunNotFoundError):
            await store.get_run("a")


@pytest.mark.parametrize("kind", SERVERS)
async def test_callers_that_wait_for_another_do_not_use_up_the_stores_threads(
    url: str, engine: sa.Engine
) -> None:
    refusals: list[str] = []

    async with open_store(url, migrate=True) as store:
        await _create(store, "there")

        async def again() -> None:
            with engine.connect() as connection, connection.begin():
                try:
                    await _create(store, "order", connection)
                except (RunExistsError, StoreError) as error:
                    refusals.append(type(error).__name__)

        with trio.fail_after(120), engine.connect() as first, first.begin():
            await _create(store, "order", first)
            async with trio.open_nursery() as nursery:
                for _ in range(6):
                    nursery.start_soon(again)
                await trio.sleep(0.5)
                await store.get_run("there")
                await store.post("order", "event", b"x", connection=first)
                await trio.to_thread.run_sync(first.commit)
        assert refusals == ["RunExistsError"] * 6


async def test_a_connection_with_autocommit_is_refused(url: str) -> None:
    async with open_store(url, migrate=True) as store:
        with an_engine(url, isolation_level="AUTOCOMMIT") as engine:
            given = engine.connect()
            with given, given.begin(), pytest.raises(ValueError, match="AUTOCOMMIT"):
                await _create(store, "a", given)
        with an_engine(url) as engine, engine.connect() as plain:
            connection = plain.execution_options(isolation_level="AUTOCOMMIT")
            with connection.begin(), pytest.raises(ValueError, match="AUTOCOMMIT"):
                await _create(store, "a", connection)
        with pytest.raises(RunNotFoundError):
            await store.get_run("a")


async def test_a_transaction_that_a_listener_starts_is_accepted(tmp_path: Path) -> None:
    """SQLAlchemy's recipe for SQLite: a listener starts transactions, the driver does not."""
    url = f"sqlite:///{tmp_path}/a.db"
    async with open_store(url) as store:
        with an_engine(url) as engine:
            sa.event.listen(engine, "connect", _without_level)
            sa.event.listen(engine, "begin", lambda given: given.exec_driver_sql("BEGIN"))
            with engine.connect() as connection, connection.begin():
                await _create(store, "a", connection)
        assert (await store.get_run("a")).run_id == "a"


def _without_level(connection: Any, _record: Any) -> None:
    connection.isolation_level = None


async def test_a_connection_to_another_database_is_refused(
    kind: str, url: str, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    with fresh_database(kind, tmp_path / "other") as other, an_engine(other) as engine:
        async with open_store(url, migrate=True) as store:
            given = engine.connect()
            with given, given.begin(), pytest.raises(ValueError, match="another database"):
                await _create(store, "a", given)


async def test_a_connection_to_the_same_database_by_another_name_is_accepted(
    kind: str, url: str, tmp_path: Path
) -> None:
    named = sa.make_url(url)
    if kind == "sqlite":
        again = named.set(database=f"{tmp_path}/./{Path(named.database or '').name}")
    else:
        again = named.set(host="localhost" if named.host == "127.0.0.1" else named.host)
    async with open_store(url, migrate=True) as store:
        with an_engine(again) as engine, engine.connect() as connection, connection.begin():
            await _create(store, "a", connection)
        assert (await store.get_run("a")).run_id == "a"


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_deadlock_of_callers_is_reported_as_a_deadlock(
    url: str, kind: str, engine: sa.Engine
) -> None:
    """Each of two has a row that the other waits for. One gets an error, the other continues."""
    errors: list[StoreError] = []
    async with open_store(url, migrate=True) as store:
        execute(url, "CREATE TABLE clicks (who VARCHAR(10))")
        await _create(store, "r")
        both = [trio.Event(), trio.Event()]

        async def post(me: int) -> None:
            with engine.connect() as connection, connection.begin() as transaction:
                _click(connection, f"{me} first")
                await store.post("r", "event", b"x", key=f"k{me}", connection=connection)
                both[me].set()
                await both[1 - me].wait()
                try:
                    await store.post("r", "event", b"x", key=f"k{1 - me}", connection=connection)
                except StoreError as error:
                    errors.append(error)
                    if kind == "mariadb":  # which has rolled back the whole transaction
                        assert not transaction.is_active
                        with pytest.raises(sa.exc.InvalidRequestError):
                            _click(connection, f"{me} after")
                    else:
                        transaction.rollback()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(post, 0)
            nursery.start_soon(post, 1)
    [error] = errors
    assert "deadlock" in str(error)
    assert "'r'" in str(error)
    assert len(_clicks(url)) == 1


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_callers_wait_for_the_only_writer_of_sqlite(url: str, engine: sa.Engine) -> None:
    async with open_store(url) as store:
        execute(url, "CREATE TABLE clicks (who VARCHAR(10))")

        async def request(number: int) -> None:
            with engine.begin() as connection:
                await _create(store, f"r{number}", connection)
                _click(connection, str(number))
                await store.post(f"r{number}", "event", b"x", connection=connection)

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(request, number)
        assert _clicks(url) == list("012345")


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_the_error_of_a_caller_that_read_before_others_wrote_says_what_to_do(
    url: str, engine: sa.Engine
) -> None:
    async with open_store(url) as store:
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            connection.exec_driver_sql("SELECT count(*) FROM blazen_run").all()
            await _create(store, "a")
            with pytest.raises(StoreError, match="with BEGIN IMMEDIATE"):
                await _create(store, "b", connection)
            connection.rollback()
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            await _create(store, "b", connection)
            connection.commit()
        assert len(await store.list_runs()) == 2
