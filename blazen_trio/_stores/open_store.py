"""Opening a store, without loading a database library before one is opened."""

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
"""Seconds, 11 days: what every database takes as a limit, in its own unit."""


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

    An SQLite file is created and its schema upgraded by itself; its directory has to exist. Leaving
    the block writes what was handed over, and gives back the runs that this opening drives.

    Args:
        url_or_engine: `"sqlite:///runs.db"` or another of SQLAlchemy's URLs, or an engine of
            yours, which stays yours. Set on that how long to wait for a connection, as the store
            can't: `pool_timeout`, the driver's `connect_timeout`, and PyMySQL's `read_timeout`.
            Its listeners are heard. Its pool has to have two connections or more.
        lease_ttl: After how many seconds without a sign of life a vanished machine's runs may be
            taken over. A process that died on the same machine is known to be dead at once; one
            that is seen to run there is given twenty times as long.
        busy_timeout: For how many seconds a commit waits for a lock that another program holds,
            before it is tried again.
        migrate: Whether to create or upgrade a server's schema too, and to add the tables to a file
            that has others.

    Raises:
        ValueError: The URL names a database that can't be used.
        SchemaError: The schema is not the one needed, or this is no database of ours.
        StoreError: The database can't be opened; or the engine, or what is set there, would spoil
            what is stored.
    """
    if not is_positive_seconds(lease_ttl, _LONGEST):
        msg = f"lease_ttl={lease_ttl!r:.80}: a lease lasts some seconds, more than 0 and up to 1e6"
        raise ValueError(msg)
    if not is_seconds(busy_timeout, _LONGEST):
        msg = f"busy_timeout={busy_timeout!r:.80}: a number of seconds from 0 to 1e6"
        raise ValueError(msg)
    # Here and not above: `import blazen_trio` needs no database library.
    from blazen_trio._stores.sql.opening import open_sql_store

    limits = {"lease_ttl": lease_ttl, "busy_timeout": busy_timeout}
    opened = open_sql_store(url_or_engine, **limits, migrate=migrate)
    async with opened as store:
        yield store
