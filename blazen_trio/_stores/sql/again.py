"""Steps of migrations that do nothing where they are done already.

Where the statements that change a schema commit by themselves, as on MySQL, a migration that was killed is begun anew from
its first step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic import context, op

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "add_columns",
    "create_index",
    "create_table",
    "drop_columns",
    "drop_index",
    "drop_table",
]


def create_table(name: str, *columns: Any, **options: Any) -> None:
    """Create a table."""
    if not _has_table(name):
        op.create_table(name, *columns, **options)


def drop_table(name: str) -> None:
    """Drop a table."""
    if context.is_offline_mode() or _has_table(name):
        op.drop_table(name)


def create_index(name: str, table: str, columns: Sequence[str]) -> None:
    """Create an index."""
    if name not in _indexes(table):
        op.create_index(name, table, list(columns))


def drop_index(name: str, table: str) -> None:
    """Drop an index."""
    if context.is_offline_mode() or name in _indexes(table):
        op.drop_index(name, table_name=table)


def add_columns(table: str, *columns: sa.Column[Any]) -> None:
    """Add columns to a table, each by itself."""
    there = _columns(table)
    for column in columns:
        if column.name not in there:
            op.add_column(table, column)


def drop_columns(table: str, *names: str) -> None:
    """Drop columns of a table, each by itself. On SQLite from 3.35 on."""
    there = set(names) if context.is_offline_mode() else _columns(table)
    for name in names:
        if name in there:
            op.drop_column(table, name)


# A script that is written for later knows nothing of the database: there nothing is done yet.


def _has_table(name: str) -> bool:
    return not context.is_offline_mode() and sa.inspect(op.get_bind()).has_table(name)


def _columns(table: str) -> set[str]:
    return (
        set()
        if context.is_offline_mode()
        else {each["name"] for each in sa.inspect(op.get_bind()).get_columns(table)}
    )


def _indexes(table: str) -> set[str | None]:
    return (
        set()
        if context.is_offline_mode()
        else {each["name"] for each in sa.inspect(op.get_bind()).get_indexes(table)}
    )
