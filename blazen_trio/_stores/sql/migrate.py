"""Bringing a database's schema to what this code needs, by the Alembic migrations that the package ships."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from blazen_trio._stores.sql import dialects
from blazen_trio._stores.sql.faults import translate
from blazen_trio._stores.sql.schema import HEAD, VERSION_TABLE
from blazen_trio.errors import SchemaError

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["migrations_config", "prepare_database"]

# Alembic keeps the environment it runs in a global of the process.
_alembic_lock = threading.Lock()


def prepare_database(engine: sa.Engine, *, migrate: bool) -> None:
    """See to it that the database has our tables, in the version of this code. For a worker thread.

    An SQLite file is created and upgraded; a server's schema only where `migrate` says so.

    Raises:
        SchemaError: It has not, and they must not or can't be brought there; or this is no database of ours.
        StoreError: The database can't be opened or written.
    """
    where = engine.url.render_as_string(hide_password=True)
    try:
        with engine.connect() as connection:
            if _needs_upgrade(connection, where, migrate=migrate):
                dialects.prepare_database(connection)
                _upgrade(dialects.as_writer(connection))
            else:
                dialects.prepare_database(connection)
    except sa.exc.DBAPIError as error:
        raise translate(error, f"opening {where}") from error


def _needs_upgrade(connection: sa.Connection, where: str, *, migrate: bool) -> bool:
    """Whether the database is behind this code, and may be upgraded."""
    with connection.begin():
        tables = set(sa.inspect(connection).get_table_names())
        revision = _revision(connection) if VERSION_TABLE in tables else None
    if revision == HEAD:
        return False
    if revision is not None and revision not in _known_revisions():
        raise SchemaError(
            f"{where} was made by a newer version of blazen_trio (its schema is {revision!r}, this version knows "
            f"{HEAD!r} and older): upgrade blazen_trio, the database can't be taken back"
        )
    sqlite = connection.dialect.name == "sqlite"
    if revision is None and sqlite and tables and not migrate:
        raise SchemaError(
            f"{where} is a database of another program: it has tables ({', '.join(sorted(tables)[:3])}) and none of "
            "blazen_trio's. Name another file, or pass migrate=True to add the store's tables to this one"
        )
    if not sqlite and not migrate:
        raise SchemaError(
            f"{where}: the schema is {'missing' if revision is None else f'at {revision!r}'}, {HEAD!r} is needed. "
            f"Upgrade it with: blazen-trio db upgrade --db {where}, or open the store with migrate=True"
        )
    return True


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command  # slow to import, and rarely needed

    with dialects.schema_lock(connection):
        # Another process may have done it while we waited for the lock.
        if sa.inspect(connection).has_table(VERSION_TABLE) and _revision(connection) == HEAD:
            return
        config = migrations_config()
        config.attributes["connection"] = connection
        with _alembic_lock:
            command.upgrade(config, "head")


def _revision(connection: sa.Connection) -> str | None:
    """The schema version that the database says it has, `None` where it says none."""
    table = sa.table(VERSION_TABLE, sa.column("version_num"))
    return connection.execute(sa.select(table.c.version_num)).scalar()


def _known_revisions() -> set[str]:
    from alembic.script import ScriptDirectory  # slow to import, and rarely needed

    return {script.revision for script in ScriptDirectory.from_config(migrations_config()).walk_revisions()}


def migrations_config() -> Config:
    """Alembic's configuration for the migrations shipped with the package, or, in a checkout, beside it."""
    from alembic.config import Config  # slow to import, and rarely needed

    package = Path(__file__).parents[2]
    shipped = package / "_migrations"
    folder = shipped if shipped.is_dir() else package.parent / "migrations"
    config = Config()
    # `%` begins an interpolation there.
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
