"""Alembic's environment for the `alembic` command in a checkout. `open_store` does not use it.

alembic -x url=sqlite:///runs.db upgrade head
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context
from alembic.operations import Operations

from blazen_trio._stores.sql import databases
from blazen_trio._stores.sql.schema import OUR_TABLES, VERSION_TABLE, metadata


def _is_ours(name: str | None, kind: str, _parents: object) -> bool:
    """Return whether a table belongs to this store, which may share the database with others."""
    return kind != "table" or name in OUR_TABLES


def _run(connection: sa.Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        include_name=_is_ours,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations(op=Operations(context.get_context()))


def _url() -> str:
    url = context.get_x_argument(as_dictionary=True).get("url") or context.config.get_main_option(
        "sqlalchemy.url"
    )
    if not url:
        raise SystemExit(
            "no database URL: pass one, as in alembic -x url=sqlite:///runs.db upgrade head"
        )
    return url


if context.is_offline_mode():
    context.configure(
        url=_url(), target_metadata=metadata, version_table=VERSION_TABLE, literal_binds=True
    )
    with context.begin_transaction():
        context.run_migrations(op=Operations(context.get_context()))
elif context.config.attributes.get("connection") is not None:
    _run(context.config.attributes["connection"])
else:
    engine = sa.create_engine(_url(), poolclass=sa.pool.NullPool)
    with engine.connect() as connection, databases.of(connection).schema_lock(connection):
        _run(connection)
