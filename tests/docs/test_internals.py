"""The pages about the internals agree with the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import sqlalchemy as sa

from blazen_trio._codec.codec import LARGE
from blazen_trio._dispatch.journal import _BYTES_BEHIND, _ENTRIES_BEHIND, _FOLD_AT_LEAST
from blazen_trio._stores.sql import databases
from blazen_trio._stores.sql.schema import PART_SIZE, STATUS_CODES, VERSION_TABLE, metadata
from blazen_trio._stores.sql.writer import _BATCH_BYTES

PAGES = Path(__file__).parents[2] / "docs" / "internals"
SCHEMA = (PAGES / "schema.md").read_text("utf-8")


def words(text: str) -> str:
    """Return a statement without its layout."""
    return re.sub(r"\s+", " ", re.sub(r"--.*", "", text)).replace("( ", "(").strip()


@pytest.mark.parametrize("table", metadata.sorted_tables, ids=lambda table: table.name)
def test_the_schema_page_has_every_column_and_index_and_no_other(table):
    section = re.search(rf"^## `{table.name}`\n(.*?)(?=^## |\Z)", SCHEMA, re.DOTALL | re.MULTILINE)
    assert section is not None
    rows = re.findall(r"^\| `(\w+)` \|", section[1], re.MULTILINE)
    assert rows == [*table.columns.keys(), *[name for name in rows if name.startswith("ix_")]]
    assert {name for name in rows if name.startswith("ix_")} == {
        index.name for index in table.indexes
    }
    key = ", ".join(f"`{column.name}`" for column in table.primary_key)
    assert f"Key: {key}" in section[1]


def test_the_schema_page_names_every_status_and_only_tables_that_exist():
    codes = ", ".join(
        f"{code} {status.value.replace('_', ' ')}" for status, code in STATUS_CODES.items()
    )
    assert codes in SCHEMA
    assert set(re.findall(r"`(blazen_[a-z_]+)`", SCHEMA)) == {*metadata.tables, VERSION_TABLE}


def test_the_fence_page_has_the_statements_that_are_run():
    page = (PAGES / "fence.md").read_text("utf-8")
    shown = [
        words(block) for block in re.findall(r"^```sql\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    ]
    run: list[str] = []
    whole: list[str] = []
    for url in (
        "sqlite:///runs.db",
        "postgresql+psycopg://host/name",
        "mariadb+pymysql://host/name",
    ):
        dialect = sa.create_engine(url).dialect
        dialect.default_isolation_level = "READ COMMITTED"  # as a server reports
        database = databases.KINDS[dialect.name]
        statements = database.statements(dialect, busy_timeout=5.0, lease_ttl=15.0)
        run.append(words(statements.renew.sql))
        checked, at_once = statements.append_checked, statements.append_whole
        whole.extend(words(each.statement.sql) for each in (checked,) if each is not None)
        whole.extend(words(each.one) for each in (at_once,) if each is not None)
    assert shown == run + whole


def test_the_pages_have_the_numbers_of_the_code():
    commits = (PAGES / "commits.md").read_text("utf-8")
    assert (_ENTRIES_BEHIND, _BYTES_BEHIND) == (256, 4 * 2**20)
    assert "256 entries or 4 MiB" in commits
    assert "last 256 entries or 4 MiB" in (PAGES / "crashes.md").read_text("utf-8")
    assert (LARGE, _FOLD_AT_LEAST) == (32 * 2**10, 64 * 2**10)
    assert "32 KiB or more" in commits
    assert "has reached 64 KiB" in commits
    assert PART_SIZE == _BATCH_BYTES == 4 * 2**20
    assert "at most 4 MiB" in (PAGES / "writer.md").read_text("utf-8")
