"""The databases that a store can be in: one module for each, with the SQL that it is sent."""

from __future__ import annotations

from blazen_trio._stores.sql.databases.base import KINDS, of
from blazen_trio._stores.sql.databases.mysql import MySQL
from blazen_trio._stores.sql.databases.postgresql import PostgreSQL
from blazen_trio._stores.sql.databases.sqlite import SQLite

__all__ = ["KINDS", "of"]

for _kind in (SQLite(), PostgreSQL(), MySQL("mysql"), MySQL("mariadb")):
    KINDS[_kind.name] = _kind
