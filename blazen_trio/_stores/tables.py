"""Which tables of a database are the engine's, for tools that look after all the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["include_name"]


def include_name(
    name: str | None,
    type_: str,
    parent_names: Mapping[str, str | None],  # noqa: ARG001  # as Alembic calls it
) -> bool:
    """Return whether a name in a database is none of the engine's own tables.

    For the `env.py` of an application whose tables are in the same database, so that
    `alembic revision --autogenerate` does not drop the engine's, and `alembic check` is content:

    ```python
    context.configure(..., include_name=include_name)
    ```

    Args:
        name: A table's, or that of something else.
        type_: What it names: all but a `"table"` is the application's.
        parent_names: What it is in.
    """
    from blazen_trio._stores.sql.schema import OUR_TABLES  # a database library

    return type_ != "table" or name not in OUR_TABLES
