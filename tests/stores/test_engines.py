"""Engines, connections and URLs that a store is opened with, and what of them it leaves alone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
import trio

from blazen_trio._state.status import RunStatus
from blazen_trio._stores.protocol import Commit, NewRun, SnapshotRow
from blazen_trio._stores.sql.engine import make_engine
from blazen_trio.errors import RunExistsError, RunNotFoundError, StaleRunError, StoreError
from tests.databases import SERVERS, an_engine, execute
from tests.stores.by_id import ById, open_by_id

if TYPE_CHECKING:
    from pathlib import Path


_NEW = NewRun("w", "1", 1.0)


async def _create(store: ById, run_id: str, **more: Any) -> None:
    await store.create(_NEW, Commit(run_id, [(1, b"")], **more))


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize(
    "level", ["AUTOCOMMIT", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
)
async def test_an_engine_may_have_any_isolation_level_and_keeps_it(url: str, level: str) -> None:
    with an_engine(url, isolation_level=level, pool_size=1) as engine:
        before = _isolation(engine)
        async with open_by_id(engine, migrate=True) as store, open_by_id(engine) as other:
            await _create(store, "a")
            for seq in range(2, 12):
                await store.commit(Commit("a", [(seq, b"")]))
            await store.release("a")
            assert [seq for seq, _ in (await other.take(["w"], 5))[0].entries] == list(range(1, 12))
            # Each read is of one moment, and a failed commit is rolled back as a whole.
            assert [run.run_id for run in await store.list_runs()] == ["a"]
            execute(url, "INSERT INTO blazen_journal SELECT run_no, 13, 0, 1, 'x' FROM blazen_run")
            with pytest.raises(StaleRunError):
                await other.commit(Commit("a", [(12, b""), (13, b"")]))
            assert [seq for seq, _ in (await store.load("a")).entries] == [*range(1, 12), 13]
        assert _isolation(engine) == before


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="sqlite3 has no such mode before Python 3.12"
)
@pytest.mark.parametrize("autocommit", [False, True])
async def test_sqlite_connections_with_autocommit_set_are_refused(
    autocommit: bool, tmp_path: Path
) -> None:
    with (
        an_engine(f"sqlite:///{tmp_path}/a.db", connect_args={"autocommit": autocommit}) as engine,
        pytest.raises(StoreError, match=f"autocommit={autocommit}"),
    ):
        async with open_by_id(engine, migrate=True):
            raise AssertionError


def _isolation(engine: sa.Engine) -> tuple[str, bool]:
    """Return a pooled connection's isolation level, and whether it commits each statement."""
    with engine.connect() as connection:
        driver = connection.connection.dbapi_connection
        commits = (
            driver.autocommit if engine.dialect.driver == "psycopg" else driver.get_autocommit()
        )
        return connection.get_isolation_level(), commits


async def test_a_run_is_read_as_of_one_moment_while_it_is_folded(url: str) -> None:
    async with open_by_id(url, migrate=True) as store, open_by_id(url) as reader:
        await _create(store, "a")
        reading = True

        async def read() -> None:
            while reading:
                stored = await reader.load("a")
                first = 1 if stored.snapshot is None else stored.snapshot[0] + 1
                assert [seq for seq, _ in stored.entries] == list(
                    range(first, first + len(stored.entries))
                )
                assert stored.last == int(
                    (stored.entries[-1][1] if stored.entries else stored.snapshot[1]) or b"1"
                )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(read)
            for seq in range(2, 80):
                data = b"%d" % seq
                snapshot = SnapshotRow(seq, data, frozenset()) if seq % 3 == 0 else None
                await store.commit(Commit("a", [(seq, data)], snapshot=snapshot))
            reading = False


async def test_writes_in_a_callers_transaction_exist_once_it_commits(url: str) -> None:
    async with open_by_id(url, migrate=True) as store:
        await _create(store, "a", release=True)
        with an_engine(url) as engine:
            with engine.begin() as theirs:
                theirs.execute(sa.text("CREATE TABLE orders (number INTEGER)"))
            for commits in (False, True):
                with engine.connect() as theirs:
                    transaction = theirs.begin()
                    theirs.execute(sa.text("INSERT INTO orders VALUES (1)"))
                    first = Commit("b", [(1, b"first")], status=RunStatus.QUEUED, release=True)
                    await store.create(_NEW, first, connection=theirs)
                    mail = await store.post("a", "event", b"x", key="k", connection=theirs)
                    assert mail is not None
                    assert await store.post("a", "event", b"x", key="k", connection=theirs) is None
                    with pytest.raises(RunExistsError):
                        await store.create(_NEW, first, connection=theirs)
                    with pytest.raises(RunNotFoundError):
                        await store.post("unknown", "event", b"x", connection=theirs)
                    (transaction.commit if commits else transaction.rollback)()
                assert execute(url, "SELECT count(*) FROM orders") == [(int(commits),)]
                assert len((await store.load("a")).inbox) == int(commits)
                assert len(await store.list_runs()) == 1 + commits
        assert (await store.claim("b")).entries == ((1, b"first"),)


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_callers_transaction_must_be_in_the_same_database(url: str) -> None:
    async with open_by_id(url, migrate=True) as store:
        await _create(store, "a", release=True)
        with an_engine(url) as engine, engine.connect() as theirs:
            refused = pytest.raises(ValueError, match="no transaction")
            with refused:
                await store.post("a", "event", b"", connection=theirs)
        elsewhere = sa.make_url(url).set(database="test")
        with (
            an_engine(elsewhere.render_as_string(hide_password=False)) as engine,
            engine.begin() as theirs,
        ):
            refused = pytest.raises(ValueError, match="this store is in")
            with refused:
                await store.post("a", "event", b"", connection=theirs)


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"port": 1}, "no server answers"),
        ({"host": "nowhere.invalid"}, "host is unknown"),
        ({"database": "blazen_nothing"}, "no such database"),
        ({"username": "blazen_nobody", "password": "a-secret"}, "refuses this user"),
    ],
)
async def test_a_server_that_can_not_be_used_is_reported(
    url: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(StoreError, match=message) as error:
        async with open_by_id(sa.make_url(url).set(**changes)):
            raise AssertionError
    assert "a-secret" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "package", "message"),
    [
        ("postgresql://a/b", "psycopg", r'pip install "blazen-trio\[postgresql\]"$'),
        ("mysql://a/b", "pymysql", r'pip install "blazen-trio\[mysql\]"$'),
        (
            "mariadb+mysqldb://a/b",
            "MySQLdb",
            r'"blazen-trio\[mysql\]", and start the URL with mariadb\+pymysql://',
        ),
    ],
)
def test_a_driver_that_is_not_installed_is_reported(
    monkeypatch: pytest.MonkeyPatch, url: str, package: str, message: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(StoreError, match=message):
        make_engine(url)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "invalid database URL"),
        ("oracle://a/b", "oracle is not supported"),
        ("postgresql+nonsense://a/b", "driver that SQLAlchemy does not know"),
        ("postgresql+asyncpg://a/b", "asyncio driver"),
    ],
)
def test_an_unsupported_url_is_refused(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_engine(url)


@pytest.mark.parametrize("kind", ["postgresql"])
def test_connections_of_our_own_engines_prepare_no_statements(url: str) -> None:
    engine, ours = make_engine(url.replace("+psycopg", ""))
    with engine.connect() as connection:
        assert ours
        assert connection.connection.dbapi_connection.prepare_threshold is None
    engine.dispose()


@pytest.mark.parametrize(
    "url",
    ["oracle://u:hidden@h/d", "oracle://h/d?password=hidden", "oracle://h/d?sslpassword=hidden"],
)
async def test_errors_do_not_show_passwords(url: str) -> None:
    with pytest.raises(ValueError, match="is not supported") as caught:
        async with open_by_id(url):
            pass
    assert "hidden" not in str(caught.value)
