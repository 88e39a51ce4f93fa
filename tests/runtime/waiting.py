"""Insert many waiting runs into a database in bulk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from blazen_trio._state.status import RunStatus
from blazen_trio._stores.sql.schema import STATUS_CODES, runs

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["add_waiting_runs"]

_AT_ONCE = 5_000
_FAR = 4_000_000_000_000_000  # microseconds since the epoch: in 2096


def add_waiting_runs(engine: sa.Engine, count: int, workflow: str) -> None:
    """Insert runs, of which half wait for a distant time and half for an event."""
    with engine.begin() as connection:
        for start in range(0, count, _AT_ONCE):
            connection.execute(
                sa.insert(runs), list(_rows(start, min(count, start + _AT_ONCE), workflow))
            )
        if engine.dialect.name != "mysql":
            connection.execute(sa.text("ANALYZE"))


def _rows(start: int, end: int, workflow: str) -> Iterator[dict[str, object]]:
    for number in range(start, end):
        yield {
            "run_id": f"waiting {number}",
            "workflow": workflow,
            "version": "1",
            "status": STATUS_CODES[RunStatus.WAITING],
            "created": number,
            "updated": number,
            "wake": _FAR + number if number % 2 else None,
        }
