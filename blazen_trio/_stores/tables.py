"""A filter for the engine's own tables, for tools that manage the other tables of a database."""

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
    """Return whether a name in a database is not one of the engine's own tables.

    Use it in the `env.py` of an application whose tables are in the same database. Then `alembic
    revision --autogenerate` does not drop the engine's tables, and `alembic check` does not report
    them:

    ```python
    context.configure(..., include_name=include_name)
    ```

    Args:
        name: The name of a table or of another object.
        type_: The kind of object. Anything but a `"table"` belongs to the application.
        parent_names: The names of the objects that contain it; not used.
    """
    from blazen_trio._stores.sql.schema import OUR_TABLES  # imports a database library

    return type_ != "table" or name not in OUR_TABLES
