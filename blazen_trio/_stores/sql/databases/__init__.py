"""The databases that a store can be in: one module for each, with the SQL that it is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from blazen_trio._stores.sql.databases.mysql import MySQL
from blazen_trio._stores.sql.databases.postgresql import PostgreSQL
from blazen_trio._stores.sql.databases.sqlite import SQLite

if TYPE_CHECKING:
    import sqlalchemy as sa

    from blazen_trio._stores.sql.databases.base import Database

__all__ = ["KINDS", "of"]

_ALL: Final[tuple[Database, ...]] = (SQLite(), PostgreSQL(), MySQL("mysql"), MySQL("mariadb"))

KINDS: Final = {each.name: each for each in _ALL}
"""Each database by the name of SQLAlchemy's dialect."""


def of(bind: sa.Engine | sa.Connection) -> Database:
    """Return the database that an engine or a connection is for."""
    return KINDS[bind.dialect.name]
