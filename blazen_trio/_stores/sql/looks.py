"""The read-only queries of an SQL store."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from blazen_trio._concurrency import protected_methods
from blazen_trio._stores import store_rules
from blazen_trio._stores.base import StoreQueries
from blazen_trio._stores.sql import queries

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    import sqlalchemy as sa

    from blazen_trio._state.status import RunStatus
    from blazen_trio._stores.protocol import RunInfo, StoredRun
    from blazen_trio._stores.sql.reading import Readers

__all__ = ["SqlLooks", "raise_fault"]

T = TypeVar("T")


@protected_methods
class SqlLooks(StoreQueries):
    """Read-only access to the runs of a database.

    Args:
        readers: Threads that run the queries.
    """

    def __init__(self, readers: Readers) -> None:
        self._readers = readers

    async def load(self, run_id: str, *, connection: Any = None) -> StoredRun:
        """See `CheckpointStore.load`. A `connection` can't be given for read-only access."""
        assert connection is None
        [stored] = found = await self._read(
            lambda connection: queries.load_runs(connection, [queries.find_run(connection, run_id)])
        )
        raise_fault(found)
        return stored

    async def list_runs(
        self,
        *,
        status: RunStatus | str | Sequence[RunStatus | str] | None = None,
        workflow: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[RunInfo]:
        """See `CheckpointStore.list_runs`."""
        store_rules.check_limit(limit)
        wanted = store_rules.parse_statuses(status, store_rules.ALL)
        return await self._read(
            lambda connection: queries.list_runs(connection, wanted, workflow, limit, after)
        )

    async def get_run(self, run_id: str) -> RunInfo:
        """See `CheckpointStore.get_run`."""
        return await self._read(lambda connection: queries.get_run(connection, run_id))

    async def _read(self, query: Callable[[sa.Connection], T]) -> T:
        """Run a query in a thread, in one transaction that reads as of one moment."""
        return await self._readers.read(query)


def raise_fault(found: Sequence[StoredRun]) -> None:
    """Raise the first fault of these runs, if the data of any of them could not be read."""
    for stored in found:
        if stored.fault is not None:
            raise stored.fault
