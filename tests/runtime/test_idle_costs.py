"""Waiting runs cost a worker nothing but a poll, and a poll reads only through an index."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from blazen_trio import open_store
from tests.databases import KINDS, an_engine, fresh_database
from tests.runtime.waiting import add_waiting_runs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_EXPLAIN = {"sqlite": "EXPLAIN QUERY PLAN ", "postgresql": "EXPLAIN ", "mysql": "EXPLAIN "}


@contextmanager
def listened_to(engine: sa.Engine) -> Iterator[list[tuple[str, Any]]]:
    """Collect the statements that run inside the block."""
    heard: list[tuple[str, Any]] = []

    def hear(
        _conn: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool
    ) -> None:
        heard.append((statement, parameters))

    sa.event.listen(engine, "before_cursor_execute", hear)
    yield heard
    sa.event.remove(engine, "before_cursor_execute", hear)


def plans(engine: sa.Engine, statements: list[tuple[str, Any]]) -> str:
    """Return the database's plans for these statements, one line each."""
    lines = []
    with engine.connect() as connection:
        for statement, parameters in statements:
            if statement.startswith("SELECT"):
                rows = connection.exec_driver_sql(
                    _EXPLAIN[engine.dialect.name] + statement, parameters
                )
                lines += [" ".join(str(cell) for cell in row) for row in rows]
    return "\n".join(lines)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_poll_reads_only_through_an_index(kind: str, tmp_path: Path) -> None:
    with fresh_database(kind, tmp_path) as url, an_engine(url) as engine:
        async with open_store(engine, migrate=True) as store:
            add_waiting_runs(engine, 3_000, "flow")
            with listened_to(engine) as heard:
                found = await store.poll(["flow", "other"], ["waiting 1", "waiting 2"])
                assert (found.ready, len(found.watched)) == (False, 2)
                assert len(heard) <= 5
                assert await store.take(["flow", "other"], 10) == []
            plan = plans(engine, heard)
    assert "blazen_run" in plan or "ix_blazen_run" in plan
    for whole in (
        "SCAN blazen_run",
        "Seq Scan on blazen_run",
        "blazen_run ALL",
        "blazen_run index",
    ):
        assert whole not in plan, plan
