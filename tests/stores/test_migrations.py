"""The migrations make the schema that the code has, in any order of opening."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from blazen_trio._stores.open import open_store
from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio._stores.sql.migrate import migrations_config
from blazen_trio._stores.sql.schema import HEAD, VERSION_TABLE, metadata

_OPENER = """
import sys, trio
from blazen_trio._stores.open import open_store

async def main():
    sys.stdin.readline()
    async with open_store(sys.argv[1]) as store:
        print(len(await store.list_runs()), flush=True)

trio.run(main)
"""


def _migrate(engine: sa.Engine, to: str, how: str) -> None:
    config = migrations_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        getattr(command, how)(config, to)


@pytest.fixture
def engine(tmp_path: Path) -> sa.Engine:
    return sa.create_engine(f"sqlite:///{tmp_path}/a.db", poolclass=sa.NullPool)


def test_the_newest_migration_is_the_one_that_the_code_needs() -> None:
    assert ScriptDirectory.from_config(migrations_config()).get_current_head() == HEAD


def test_upgrading_makes_the_tables_of_the_code(engine: sa.Engine) -> None:
    _migrate(engine, "head", "upgrade")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, metadata) == []
    made = sa.MetaData()
    made.reflect(engine)
    for table in metadata.sorted_tables:
        there = made.tables[table.name]
        assert [column.name for column in table.columns] == [column.name for column in there.columns]
        assert [column.nullable for column in table.columns] == [column.nullable for column in there.columns]
        assert list(table.primary_key.columns.keys()) == list(there.primary_key.columns.keys())
        assert {index.name for index in table.indexes} == {index.name for index in there.indexes}


def test_downgrading_leaves_nothing(engine: sa.Engine) -> None:
    _migrate(engine, "head", "upgrade")
    _migrate(engine, "base", "downgrade")
    assert [name for name in sa.inspect(engine).get_table_names() if name != "sqlite_sequence"] == [VERSION_TABLE]


def test_the_alembic_command_upgrades_a_database(tmp_path: Path, engine: sa.Engine) -> None:
    program = (
        "from alembic import command; from blazen_trio._stores.sql.migrate import migrations_config; import argparse, sys;"
        "config = migrations_config(); config.cmd_opts = argparse.Namespace(x=['url=' + sys.argv[1]]);"
        "command.upgrade(config, 'head')"
    )
    subprocess.run([sys.executable, "-c", program, f"sqlite:///{tmp_path}/a.db"], check=True)
    assert sa.inspect(engine).has_table("blazen_run")


def test_processes_that_open_a_new_file_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    openers = [
        subprocess.Popen([sys.executable, "-c", _OPENER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("\n")
        opener.stdin.flush()
    assert [opener.communicate(timeout=60)[0] for opener in openers] == ["0\n"] * 4
    assert [opener.returncode for opener in openers] == [0] * 4


async def test_what_is_stored_is_there_when_opened_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    async with open_store(url) as store:
        await store.create(NewRun("w", "1", 1.0), Commit("a", [(1, b"x")]))
    async with open_store(sa.make_url(url)) as store:
        assert list((await store.claim("a")).entries) == [(1, b"x")]
