"""An application's own Alembic next to ours, in one process and in one database."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
import trio
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from blazen_trio import open_store
from blazen_trio.stores import include_name
from tests.databases import an_engine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_ENV = """
import sqlalchemy as sa
from alembic import context
url = context.config.get_main_option("sqlalchemy.url")
# A pool would leave its connection to the garbage collector, which Python 3.13 warns of.
with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""
_FIRST = """
import sys
import sqlalchemy as sa
from alembic import context, op
revision, down_revision = "a1", None
def upgrade():
    op.create_table("before", sa.Column("id", sa.Integer))
    sys.modules["tests of other migrations"].in_the_middle()
    op.create_table("after", sa.Column("id", sa.Integer))
    assert not context.is_offline_mode()
"""


def upgrade_with(in_the_middle: Callable[[], None], folder: Path) -> list[str]:
    """Run an application's migration with a call in its middle. Return its tables."""
    (folder / "theirs" / "versions").mkdir(parents=True)
    (folder / "theirs" / "env.py").write_text(_ENV)
    (folder / "theirs" / "versions" / "a1.py").write_text(_FIRST)
    config, url = Config(), f"sqlite:///{folder}/theirs.db"
    config.set_main_option("script_location", str(folder / "theirs"))
    config.set_main_option("path_separator", "os")
    config.set_main_option("sqlalchemy.url", url)
    module = type(sys)("tests of other migrations")
    module.in_the_middle = in_the_middle
    sys.modules[module.__name__] = module
    try:
        command.upgrade(config, "head")
    finally:
        del sys.modules[module.__name__]
    with an_engine(url) as engine:
        return sorted(sa.inspect(engine).get_table_names())


def open_a_new_store(folder: Path) -> None:
    async def main() -> None:
        async with open_store(f"sqlite:///{folder}/runs.db") as store:
            assert await store.list_runs() == []

    trio.run(main)


@pytest.mark.parametrize("where", ["in the same thread", "in another thread"])
def test_a_store_can_be_created_in_the_middle_of_an_applications_migration(where, tmp_path):
    def in_the_middle() -> None:
        if where == "in the same thread":
            open_a_new_store(tmp_path)
            return
        thread = threading.Thread(target=open_a_new_store, args=[tmp_path])
        thread.start()
        thread.join()

    # Their migration continues in their database, and ours runs in ours.
    assert upgrade_with(in_the_middle, tmp_path) == ["after", "alembic_version", "before"]
    with an_engine(f"sqlite:///{tmp_path}/runs.db") as engine:
        assert not sa.inspect(engine).has_table("before")


async def test_autogenerate_leaves_our_tables_alone(url):
    theirs = sa.MetaData()
    sa.Table("shop_order", theirs, sa.Column("id", sa.Integer, primary_key=True))
    sa.Table("blazen_plan", theirs, sa.Column("id", sa.Integer, primary_key=True))
    with an_engine(url) as engine:
        theirs.create_all(engine)
        async with open_store(url, migrate=True):
            pass
        with engine.connect() as connection:
            options = {"include_name": include_name}
            assert (
                compare_metadata(MigrationContext.configure(connection, opts=options), theirs) == []
            )
            # It sees all of their tables, even one that is named like ours.
            found = compare_metadata(
                MigrationContext.configure(connection, opts=options), sa.MetaData()
            )
            removed = sorted(change[1].name for change in found if change[0] == "remove_table")
            assert removed == ["blazen_plan", "shop_order"]
