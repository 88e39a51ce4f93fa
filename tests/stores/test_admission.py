"""Engines with listeners, pools and schemas of their own, and sessions with settings of their own.

Each of these is supported, or refused by name when the store is opened.
"""

from __future__ import annotations

import gc
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
import trio

from blazen_trio._state.status import RunStatus
from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio.errors import StoreError
from tests.databases import SERVERS, an_engine, execute
from tests.stores.by_id import open_by_id

if TYPE_CHECKING:
    from pathlib import Path

_NEW = NewRun("w", "1", 1.0)
_EVERY_BYTE = bytes(range(256)) * 20


async def _use(given: Any) -> None:
    """Do all that a store does: alone and in batches, in its own and a caller's transactions."""
    engine = given if isinstance(given, sa.Engine) else sa.create_engine(given)
    queued = Commit("q", [(1, _EVERY_BYTE)], status=RunStatus.QUEUED, release=True)
    async with open_by_id(given, migrate=True) as store:
        async with trio.open_nursery() as nursery:
            for number in range(8):
                first = Commit(f"r{number}", [(1, _EVERY_BYTE)])
                nursery.start_soon(store.create, _NEW, first)
        for seq in range(2, 5):
            async with trio.open_nursery() as nursery:
                for number in range(8):
                    next_ = Commit(f"r{number}", [(seq, _EVERY_BYTE)])
                    nursery.start_soon(store.commit, next_)
        await store.commit(Commit("r0", [(5, b"alone")]))
        with engine.begin() as theirs, theirs.begin_nested():
            await store.create(_NEW, queued, connection=theirs)
            await store.post("q", "event", _EVERY_BYTE, connection=theirs)
        [taken] = await store.take(["w"], 5)
        assert (taken.info.run_id, taken.inbox[0].data) == ("q", _EVERY_BYTE)
        assert [data for _, data in (await store.load("r7")).entries] == [_EVERY_BYTE] * 4
        assert len(await store.list_runs()) == 9
    if engine is not given:
        engine.dispose()


@pytest.mark.parametrize("how", ["BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
async def test_sqlite_works_with_transactions_started_by_listeners(
    how: str, tmp_path: Path
) -> None:
    with an_engine(f"sqlite:///{tmp_path}/runs.db") as engine:

        @sa.event.listens_for(engine, "connect")
        def connected(connection: Any, _record: Any) -> None:
            connection.isolation_level = None

        @sa.event.listens_for(engine, "begin")
        def begun(connection: sa.Connection) -> None:
            connection.exec_driver_sql(how)

        await _use(engine)


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_listeners_for_the_start_of_a_transaction_run_for_each_of_ours(
    url: str,
) -> None:
    execute(url, "CREATE SCHEMA tenant")
    with an_engine(url) as engine:

        @sa.event.listens_for(engine, "begin")
        def begun(connection: sa.Connection) -> None:
            connection.exec_driver_sql("SET LOCAL search_path = tenant")

        await _use(engine)
    assert execute(url, "SELECT count(*) FROM tenant.blazen_run") == [(9,)]


@pytest.mark.parametrize(
    "pool", [sa.pool.StaticPool, sa.pool.SingletonThreadPool, sa.AssertionPool]
)
async def test_pools_that_share_one_connection_are_refused(
    url: str, kind: str, pool: type[sa.Pool]
) -> None:
    more = {"connect_args": {"check_same_thread": False}} if kind == "sqlite" else {}
    with (
        an_engine(url, poolclass=pool, **more) as engine,
        pytest.raises(StoreError, match=f"its pool is a {pool.__name__}"),
    ):
        async with open_by_id(engine, migrate=True):
            raise AssertionError


@pytest.mark.parametrize("pool", [sa.NullPool, sa.QueuePool])
async def test_pools_with_several_connections_work(url: str, pool: type[sa.Pool]) -> None:
    with an_engine(url, poolclass=pool) as engine:
        await _use(engine)


async def test_a_pool_of_one_connection_is_refused(url: str) -> None:
    with (
        an_engine(
            url, poolclass=sa.QueuePool, pool_size=1, max_overflow=0, pool_timeout=0.1
        ) as engine,
        pytest.raises(StoreError, match="pool has no connection left"),
    ):
        async with open_by_id(engine, migrate=True):
            raise AssertionError


async def test_an_engine_that_translates_our_schema_is_refused(url: str) -> None:
    for translated in ({None: "tenant"}, {None: "tenant", "other": "x"}):
        options = {"schema_translate_map": translated}
        with (
            an_engine(url, execution_options=options) as engine,
            pytest.raises(StoreError, match="search_path=tenant"),
        ):
            async with open_by_id(engine, migrate=True):
                raise AssertionError
    with an_engine(url, execution_options={"schema_translate_map": {"theirs": "x"}}) as engine:
        await _use(engine)


async def test_sqlite_with_another_text_factory_is_refused(tmp_path: Path) -> None:
    with an_engine(f"sqlite:///{tmp_path}/runs.db") as engine:

        @sa.event.listens_for(engine, "connect")
        def connected(connection: Any, _record: Any) -> None:
            connection.text_factory = bytes

        with pytest.raises(StoreError, match="text_factory"):
            async with open_by_id(engine):
                raise AssertionError


def _with(url: str, **options: str) -> sa.URL:
    return sa.make_url(url).update_query_dict(options)


@pytest.mark.parametrize("kind", ["mariadb"])
@pytest.mark.parametrize("charset", ["sjis", "cp932", "gbk", "big5", "latin1", "utf8mb3"])
async def test_a_client_with_an_unsupported_character_set_is_refused(
    url: str, charset: str
) -> None:
    with pytest.raises(StoreError, match="charset=utf8mb4"):
        async with open_by_id(_with(url, charset=charset), migrate=True):
            raise AssertionError


@pytest.mark.parametrize("kind", ["mariadb"])
@pytest.mark.parametrize("mode", ["NO_BACKSLASH_ESCAPES", "ANSI", "TRADITIONAL", "ORACLE", ""])
async def test_sql_modes_do_not_change_what_is_stored(url: str, mode: str) -> None:
    await _use(_with(url, init_command=f"SET SESSION sql_mode='{mode}'"))


@pytest.mark.parametrize("kind", ["postgresql"])
@pytest.mark.parametrize(
    "setting",
    [
        "standard_conforming_strings=off",
        "bytea_output=escape",
        "backslash_quote=on",
        "DateStyle=German",
    ],
)
async def test_session_settings_do_not_change_what_is_stored(url: str, setting: str) -> None:
    await _use(_with(url, options=f"-c {setting}"))


@pytest.mark.parametrize("kind", ["postgresql"])
@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_a_database_with_another_encoding_is_read_and_written(
    url: str, encoding: str
) -> None:
    name = f"{sa.make_url(url).database}_other"
    how = f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    execute(url, f"CREATE DATABASE {name} {how}")
    there = sa.make_url(url).set(database=name)
    try:
        await _use(there.update_query_dict({"client_encoding": "utf8"}))
        async with open_by_id(there) as store:
            assert len(await store.list_runs()) == 9
        if encoding == "SQL_ASCII":
            with an_engine(there) as engine, pytest.raises(StoreError, match="SQL_ASCII"):
                async with open_by_id(engine):
                    raise AssertionError
            # SQLAlchemy 2.0.30 leaves the connection that it could not set up to the collector.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()
    finally:
        execute(url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("kind", SERVERS)
async def test_connections_are_reused(url: str) -> None:
    """Connecting is expensive: PyMySQL reads all of the system's certificates each time."""
    made = 0
    with an_engine(url) as engine:

        @sa.event.listens_for(engine.pool, "connect")
        def connected(_connection: Any, _record: Any) -> None:
            nonlocal made
            made += 1

        async with open_by_id(engine, migrate=True) as store:
            await store.create(_NEW, Commit("a", [(1, b"")]))
            for seq in range(2, 30):
                await store.commit(Commit("a", [(seq, b"")]))
                await store.load("a")
                await store.poll(["w"])
    assert made <= 4
