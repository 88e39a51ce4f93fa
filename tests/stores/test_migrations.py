"""The migrations make the schema that the code has.

That holds in any order of opening, and wherever they were interrupted.
"""

from __future__ import annotations

import random
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio._stores.sql import databases, migrate
from blazen_trio._stores.sql.databases import base
from blazen_trio._stores.sql.migrate import migrations_config
from blazen_trio._stores.sql.schema import HEAD, VERSION_TABLE, metadata
from blazen_trio.errors import SchemaError, StoreError
from tests.databases import SERVERS, an_engine, execute, fresh_database
from tests.stores.by_id import open_by_id
from tests.thorough import try_many

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_OPENER = """
import sys, trio
from tests.stores.by_id import open_by_id

async def main():
    sys.stdin.readline()
    async with open_by_id(sys.argv[1], migrate=True) as store:
        print(len(await store.list_runs()), flush=True)

trio.run(main)
"""


def _migrate(engine: sa.Engine, to: str, how: str) -> None:
    config = migrations_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        getattr(command, how)(config, to)


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    with an_engine(url, poolclass=sa.NullPool) as engine:
        yield engine


def _check_schema(engine: sa.Engine) -> None:
    """Check that the schema is that of the code."""
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, metadata) == []
    made = sa.MetaData()
    made.reflect(engine)
    for table in metadata.sorted_tables:
        there = made.tables[table.name]
        assert [column.name for column in table.columns] == [
            column.name for column in there.columns
        ]
        assert [column.nullable for column in table.columns] == [
            column.nullable for column in there.columns
        ]
        assert list(table.primary_key.columns.keys()) == list(there.primary_key.columns.keys())
        assert {index.name for index in table.indexes} == {
            index.name for index in there.indexes if not index.unique
        }


def _our_tables(engine: sa.Engine) -> list[str]:
    return [name for name in sa.inspect(engine).get_table_names() if name != "sqlite_sequence"]


def test_the_newest_migration_is_the_one_that_the_code_needs() -> None:
    assert ScriptDirectory.from_config(migrations_config()).get_current_head() == HEAD


def test_upgrading_creates_the_tables_of_the_code(engine: sa.Engine) -> None:
    _migrate(engine, "head", "upgrade")
    _check_schema(engine)


def test_each_migration_can_be_reverted_and_repeated(engine: sa.Engine) -> None:
    for to in ("0001", "base"):
        _migrate(engine, "head", "upgrade")
        _migrate(engine, to, "downgrade")
    assert _our_tables(engine) == [VERSION_TABLE]
    _migrate(engine, "0001", "upgrade")
    _migrate(engine, "head", "upgrade")
    _check_schema(engine)


def test_an_upgrade_keeps_stored_runs(engine: sa.Engine, url: str) -> None:
    _migrate(engine, "0001", "upgrade")
    for number, status, owner in ((1, 2, "NULL"), (2, 2, "7"), (3, 5, "NULL")):
        values = f"'r{number}', 'w', '1', {status}, {owner}, 1, 2"
        names = "run_id, workflow, version, status, owner, created, updated"
        execute(url, f"INSERT INTO blazen_run ({names}) VALUES ({values})")
    _migrate(engine, "head", "upgrade")
    rows = execute(url, "SELECT run_id, wake, hold, crashes FROM blazen_run ORDER BY run_id")
    assert [tuple(row) for row in rows] == [("r1", 2, 0, 0), ("r2", None, 0, 0), ("r3", None, 0, 0)]
    _migrate(engine, "0001", "downgrade")
    assert len(execute(url, "SELECT run_id FROM blazen_run")) == 3


class _KilledError(Exception):
    pass


@pytest.mark.parametrize("kind", ["sqlite", "mariadb"])  # PostgreSQL rolls back all of it
@pytest.mark.parametrize("how", ["upgrade", "downgrade"])
def test_a_migration_that_was_killed_anywhere_can_be_repeated(
    kind: str, how: str, tmp_path: Path
) -> None:
    number, reached = random.randrange(EVERY), True
    while reached:
        number += EVERY
        with fresh_database(kind, tmp_path) as url, an_engine(url, poolclass=sa.NullPool) as engine:
            if how == "downgrade":
                _migrate(engine, "head", "upgrade")
            reached = _interrupt(engine, number, how)
            if how == "downgrade":
                _migrate(engine, "base", "downgrade")
                assert _our_tables(engine) == [VERSION_TABLE]
            else:
                _migrate(engine, "head", "upgrade")
                _check_schema(engine)
    assert number > 10


EVERY = try_many(3, 1)
"""The number of statements from one kill to the next."""


def _interrupt(engine: sa.Engine, number: int, how: str) -> bool:
    """Migrate, but get killed before the `number`-th statement that changes the schema.

    Return whether there was such a statement.
    """
    left = number

    def count(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        nonlocal left
        left -= statement.split(maxsplit=1)[0] in (
            "CREATE",
            "ALTER",
            "DROP",
            "UPDATE",
            "INSERT",
            "DELETE",
        )
        if left == 0:
            left = -1
            raise _KilledError

    sa.event.listen(engine, "before_cursor_execute", count)
    try:
        _migrate(engine, "head" if how == "upgrade" else "base", how)
    except _KilledError:
        return True
    finally:
        sa.event.remove(engine, "before_cursor_execute", count)
    return False


def test_the_alembic_command_upgrades_a_database(url: str, engine: sa.Engine) -> None:
    program = (
        "import argparse, sys; from alembic import command;"
        "from blazen_trio._stores.sql.migrate import migrations_config;"
        "config = migrations_config();"
        "config.cmd_opts = argparse.Namespace(x=['url=' + sys.argv[1]]);"
        "command.upgrade(config, 'head')"
    )
    subprocess.run([sys.executable, "-c", program, url], check=True)
    assert sa.inspect(engine).has_table("blazen_run")


def test_processes_can_open_a_new_database_at_the_same_time(url: str) -> None:
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", _OPENER, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("\n")
        opener.stdin.flush()
    assert [opener.communicate(timeout=60)[0] for opener in openers] == ["0\n"] * 4
    assert [opener.returncode for opener in openers] == [0] * 4


@pytest.mark.parametrize("kind", ["mariadb"])
async def test_the_wait_for_another_processs_migration_is_bounded(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "SCHEMA_LOCK_WAIT", 0)
    with (
        an_engine(url) as engine,
        engine.connect() as connection,
        databases.of(engine).schema_lock(connection),
    ):
        refused = pytest.raises(StoreError, match="another process")
        with refused:
            async with open_by_id(url, migrate=True):
                raise AssertionError
    async with open_by_id(url, migrate=True):
        pass


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_servers_schema_is_changed_only_on_request(url: str, engine: sa.Engine) -> None:
    secret = sa.make_url(url).set(password="a-secret").render_as_string(hide_password=False)
    for state in ("missing", "at '0001'"):
        with pytest.raises(
            SchemaError, match=rf"{state}.*blazen-trio db upgrade --db .*migrate=True"
        ) as error:
            async with open_by_id(secret if _trusts(secret) else url):
                raise AssertionError
        assert "a-secret" not in str(error.value)
        _migrate(engine, "0001", "upgrade")
    async with open_by_id(url, migrate=True):
        pass
    async with open_by_id(url):
        pass
    execute(url, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(SchemaError, match=r"newer version.*9999"):
        async with open_by_id(url, migrate=True):
            raise AssertionError


def _trusts(url: str) -> bool:
    """Return whether the server lets this user in with any password."""
    with an_engine(url, poolclass=sa.NullPool) as engine:
        try:
            with closing(engine.connect()):
                return True
        except sa.exc.OperationalError:
            return False


async def test_stored_runs_are_there_after_reopening(url: str) -> None:
    async with open_by_id(url, migrate=True) as store:
        await store.create(NewRun("w", "1", 1.0), Commit("a", [(1, b"x")]))
    async with open_by_id(sa.make_url(url)) as store:
        assert list((await store.claim("a")).entries) == [(1, b"x")]


def test_the_migrations_can_be_written_as_an_sql_script(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = migrations_config()
    url = {
        "sqlite": "sqlite:///a.db",
        "postgresql": "postgresql+psycopg://a/b",
        "mariadb": "mariadb+pymysql://a/b",
    }[kind]
    config.set_main_option("sqlalchemy.url", url)
    command.upgrade(config, "head", sql=True)
    written = capsys.readouterr().out
    assert written.count("CREATE TABLE") == len(metadata.tables) + 1
    assert "ADD COLUMN" in written or "ADD crashes" in written
    assert migrate.HEAD in written
