"""What can be asked of an SQL store without writing anything."""

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
    """The runs of a database, for whoever only looks.

    Args:
        readers: Read them.
    """

    def __init__(self, readers: Readers) -> None:
        self._readers = readers

    async def load(self, run_id: str, *, connection: Any = None) -> StoredRun:
        """See `CheckpointStore.load`. Whoever only looks has no transaction of theirs."""
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
    """Raise why what is stored of one of these could not be read, if it could not."""
    for stored in found:
        if stored.fault is not None:
            raise stored.fault
