"""Migration steps that have no effect if they have already been done.

On databases where statements that change the schema commit by themselves, such as MySQL, a
migration that was killed is started again from its first step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alembic.operations import Operations

__all__ = ["Again"]


class Again:
    """The steps of one migration.

    Args:
        op: Alembic's operations. They are passed to each migration because `alembic.op` is a global
            of the process, and a migration of the application itself may be using it.
    """

    def __init__(self, op: Operations) -> None:
        self._op = op
        # A script for later use can't inspect the database, and assumes that nothing is done yet.
        self._offline = op.get_context().as_sql

    def create_table(self, name: str, *columns: Any, **options: Any) -> None:
        """Create a table."""
        if not self._has_table(name):
            self._op.create_table(name, *columns, **options)

    def drop_table(self, name: str) -> None:
        """Drop a table."""
        if self._offline or self._has_table(name):
            self._op.drop_table(name)

    def create_index(self, name: str, table: str, columns: Sequence[str]) -> None:
        """Create an index."""
        if name not in self._indexes(table):
            self._op.create_index(name, table, list(columns))

    def drop_index(self, name: str, table: str) -> None:
        """Drop an index."""
        if self._offline or name in self._indexes(table):
            self._op.drop_index(name, table_name=table)

    def add_columns(self, table: str, *columns: sa.Column[Any]) -> None:
        """Add columns to a table, one by one."""
        there = self._columns(table)
        for column in columns:
            if column.name not in there:
                self._op.add_column(table, column)

    def drop_columns(self, table: str, *names: str) -> None:
        """Drop columns of a table, one by one. Needs SQLite 3.35 or later."""
        there = set(names) if self._offline else self._columns(table)
        for name in names:
            if name in there:
                self._op.drop_column(table, name)

    def _has_table(self, name: str) -> bool:
        return not self._offline and self._inspector().has_table(name)

    def _columns(self, table: str) -> set[str]:
        if self._offline:
            return set()
        return {each["name"] for each in self._inspector().get_columns(table)}

    def _indexes(self, table: str) -> set[str | None]:
        if self._offline:
            return set()
        return {each["name"] for each in self._inspector().get_indexes(table)}

    def _inspector(self) -> sa.Inspector:
        # A new one each time: an inspector caches what it has seen.
        return sa.inspect(self._op.get_bind())
