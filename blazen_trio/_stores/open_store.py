"""`open_store`, which imports no database library before a store is opened."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from blazen_trio._concurrency import protected
from blazen_trio._definitions.names import is_positive_seconds, is_seconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import sqlalchemy as sa

    from blazen_trio._stores.sql.store import SqlStore

__all__ = ["open_store"]

_LONGEST: Final = 1e6
"""Seconds (11 days): the most that every database accepts as a limit, in its own unit."""


@protected
@asynccontextmanager
async def open_store(
    url_or_engine: str | sa.URL | sa.Engine,
    *,
    lease_ttl: float = 15.0,
    busy_timeout: float = 5.0,
    migrate: bool = False,
) -> AsyncIterator[SqlStore]:
    """Open a store in a database, for as long as the block lasts.

    An SQLite file is created, and its schema upgraded, automatically; its directory must exist.
    Leaving the block writes everything that was handed over, and releases the runs that this
    opening drives.

    Args:
        url_or_engine: A SQLAlchemy URL such as `"sqlite:///runs.db"`, or an engine of yours, which
            stays yours. Set the time to wait for a connection on the engine, since the store can't:
            `pool_timeout`, the driver's `connect_timeout`, and PyMySQL's `read_timeout`. Its event
            listeners are called. Its pool needs at least two connections.
        lease_ttl: Seconds without a sign of life after which this opening's lease expires. Its runs
            may be taken over once another process has seen the expired lease unchanged for as long
            again: up to twice `lease_ttl` after a machine vanished. The death of a process on the
            same machine is known at once; a silent process that is seen running there gets twenty
            times as long.
        busy_timeout: Seconds that a commit waits for a lock that another program holds, before it
            is tried again.
        migrate: Whether to create or upgrade a server's schema too, and to add the tables to an
            SQLite file that has other tables.

    Raises:
        ValueError: The URL names a database that can't be used.
        SchemaError: The schema is not the one needed, or the database belongs to another program.
        StoreError: The database can't be opened; or the engine or the database has settings with
            which data could not be stored faithfully.
    """
    if not is_positive_seconds(lease_ttl, _LONGEST):
        msg = f"lease_ttl={lease_ttl!r:.80}: expected seconds, more than 0 and up to 1e6"
        raise ValueError(msg)
    if not is_seconds(busy_timeout, _LONGEST):
        msg = f"busy_timeout={busy_timeout!r:.80}: expected a number of seconds from 0 to 1e6"
        raise ValueError(msg)
    # Imported late: `import blazen_trio` must not need a database library.
    from blazen_trio._stores.sql.opening import open_sql_store

    limits = {"lease_ttl": lease_ttl, "busy_timeout": busy_timeout}
    opened = open_sql_store(url_or_engine, **limits, migrate=migrate)
    async with opened as store:
        yield store
