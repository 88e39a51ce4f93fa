"""Databases that can't be used: each raises a clear error of the right class, and is not harmed."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
import trio
import trio.testing

from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio.errors import RunNotFoundError, SchemaError, StoreError
from tests.stores.by_id import open_by_id

if TYPE_CHECKING:
    from pathlib import Path

_NEW = NewRun("w", "1", 1.0)


async def _make(url: str) -> None:
    async with open_by_id(url) as store:
        await store.create(_NEW, Commit("a", [(1, b"")]))


@pytest.mark.parametrize(
    "content", [b"this is a text, and a long one at that. " * 100, bytes(range(256)) * 20]
)
async def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.db").write_bytes(content)
    with pytest.raises(SchemaError, match="not an SQLite database"):
        await _make(f"sqlite:///{tmp_path}/a.db")
    assert content == (tmp_path / "a.db").read_bytes()


async def test_a_database_of_another_program_is_left_alone_unless_requested(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    with closing(sqlite3.connect(tmp_path / "a.db")) as theirs:
        theirs.execute("CREATE TABLE customers (name)")
        theirs.execute("CREATE TABLE alembic_version (version_num)")
    before = (tmp_path / "a.db").read_bytes()
    with pytest.raises(SchemaError, match=r"customers.*migrate=True"):
        await _make(url)
    assert before == (tmp_path / "a.db").read_bytes()
    async with open_by_id(url, migrate=True) as store:
        await store.create(_NEW, Commit("a", [(1, b"")]))
    with closing(sqlite3.connect(tmp_path / "a.db")) as theirs:
        assert theirs.execute("SELECT * FROM customers").fetchall() == []


async def test_a_database_made_by_a_newer_version_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    await _make(url)
    with closing(sqlite3.connect(tmp_path / "a.db")) as database, database:
        database.execute("UPDATE blazen_version SET version_num = '9999'")
    for migrate in (False, True):
        with pytest.raises(SchemaError, match=r"newer version.*9999"):
            async with open_by_id(url, migrate=migrate):
                raise AssertionError


async def test_a_payload_packed_by_a_newer_version_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    async with open_by_id(url) as store:
        await store.create(_NEW, Commit("a", [(1, b"")], release=True))
        with closing(sqlite3.connect(tmp_path / "a.db")) as database, database:
            database.execute("UPDATE blazen_journal SET format = 7")
        for read in (store.load, store.claim):
            with pytest.raises(SchemaError, match="format 7"):
                await read("a")


async def test_a_read_only_database_can_be_read(tmp_path: Path) -> None:
    await _make(f"sqlite:///{tmp_path}/a.db")
    url = f"sqlite:///file:{tmp_path}/a.db?mode=ro&uri=true"
    async with open_by_id(url) as store:
        assert (await store.get_run("a")).workflow == "w"
        with pytest.raises(StoreError, match="read-only"):
            await store.post("a", "event", b"")


async def test_a_missing_directory_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="directory must exist"):
        await _make(f"sqlite:///{tmp_path}/missing/a.db")


async def test_a_full_disk_stops_the_run_and_leaves_it_resumable(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    engine = sa.create_engine(url)
    full = False

    @sa.event.listens_for(engine, "checkout")
    def bound(connection: sqlite3.Connection, _record: Any, _proxy: Any) -> None:
        if full:
            connection.execute("PRAGMA max_page_count = 40")

    await _make(url)
    full = True
    async with open_by_id(engine) as store:
        await store.claim("a")
        with pytest.raises(StoreError, match="no space left") as error:
            await store.commit(Commit("a", [(2, bytes(500_000))]))
        assert error.value.run_id == "a"
        assert not isinstance(error.value, SchemaError)
        with pytest.raises(StoreError, match="earlier commit"):
            await store.commit(Commit("a", [(3, b"")]))
        await store.claim("a")
        await store.commit(Commit("a", [(2, b"small")]))
        assert [seq for seq, _ in (await store.load("a")).entries] == [1, 2]
    engine.dispose()


async def test_a_commit_fails_if_another_program_keeps_the_database_locked(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    async with open_by_id(url, busy_timeout=0.01) as store:
        await store.create(_NEW, Commit("a", [(1, b"")]))
        with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as theirs:
            theirs.execute("BEGIN EXCLUSIVE")
            with pytest.raises(StoreError, match="locked"):
                await store.commit(Commit("a", [(2, b"")]))
            assert [seq for seq, _ in (await store.load("a")).entries] == [1]
            theirs.execute("ROLLBACK")
        await store.claim("a")
        await store.commit(Commit("a", [(2, b"")]))


async def test_a_commit_waits_for_a_short_lock(tmp_path: Path) -> None:
    async with open_by_id(f"sqlite:///{tmp_path}/a.db") as store:
        await store.create(_NEW, Commit("a", [(1, b"")]))
        theirs = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
        with closing(theirs):
            theirs.execute("BEGIN EXCLUSIVE")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.commit, Commit("a", [(2, b"")]))
                await trio.testing.wait_all_tasks_blocked()
                theirs.execute("ROLLBACK")
        assert len((await store.load("a")).entries) == 2


async def test_a_missing_table_is_reported(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    async with open_by_id(url) as store:
        await store.create(_NEW, Commit("a", [(1, b"")]))
        with closing(sqlite3.connect(tmp_path / "a.db")) as database, database:
            database.execute("DROP TABLE blazen_journal")
        with pytest.raises(SchemaError, match="table of the store is missing"):
            await store.commit(Commit("a", [(2, b"")]))
        with pytest.raises(SchemaError, match="table of the store is missing"):
            await store.load("a")


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"]
)
async def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="MemoryStore"):
        await _make(url)


async def test_a_lease_ttl_of_zero_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lease_ttl"):
        async with open_by_id(f"sqlite:///{tmp_path}/a.db", lease_ttl=0):
            raise AssertionError


async def test_listing_runs_after_an_unknown_run_is_refused(tmp_path: Path) -> None:
    async with open_by_id(f"sqlite:///{tmp_path}/a.db") as store:
        with pytest.raises(RunNotFoundError, match="'nothing'"):
            await store.list_runs(after="nothing")


def test_importing_the_package_loads_no_database_library() -> None:
    program = (
        "import sys, blazen_trio._stores.open_store, blazen_trio._stores.memory;"
        " assert 'sqlalchemy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
