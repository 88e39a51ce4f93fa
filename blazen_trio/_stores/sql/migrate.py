"""Upgrades of a database's schema by the Alembic migrations that the package ships."""

from __future__ import annotations

import shlex
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs
import sqlalchemy as sa

from blazen_trio._stores.sql import databases
from blazen_trio._stores.sql.admission import check_connection
from blazen_trio._stores.sql.engine import make_engine, make_looking_engine, shown, unusable
from blazen_trio._stores.sql.faults import translate
from blazen_trio._stores.sql.reading import Watch
from blazen_trio._stores.sql.schema import HEAD, VERSION_TABLE
from blazen_trio._stores.sql.sqlite_files import file_of, is_there
from blazen_trio._stores.sql.troubles import ANSWER_WITHIN
from blazen_trio.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from alembic.config import Config

__all__ = [
    "SchemaVersion",
    "migrations_config",
    "prepare_database",
    "read_schema",
    "read_schema_of",
    "upgrade_schema",
]

_DRIVERS_OWN: Final = (
    AttributeError,
    LookupError,
    OSError,
    TypeError,
    ValueError,
    sa.exc.ProgrammingError,
)
_MIGRATED_WITHIN: Final = 600.0
"""Seconds that a server may be silent while it changes a table of any size."""


@attrs.frozen
class SchemaVersion:
    """The version of a database's schema, compared with the one that this code needs.

    Attributes:
        where: The database's URL, without its password.
        revision: The version; `None` if the database has no schema of ours yet.
        head: The version that this code needs.
        standing: The result of the comparison.
    """

    where: str
    revision: str | None
    head: str
    standing: Literal["current", "missing", "behind", "ahead"]

    @property
    def problem(self) -> str | None:
        """The problem and what to do about it; `None` if there is none."""
        if self.standing == "current":
            return None
        if self.standing == "ahead":
            return (
                f"{self.where} was made by a newer version of blazen_trio (its schema is "
                f"{self.revision!r}, this version knows {self.head!r} and older): upgrade "
                "blazen_trio; the database can't be downgraded"
            )
        found = "missing" if self.revision is None else f"at {self.revision!r}"
        return (
            f"{self.where}: the schema is {found}, but {self.head!r} is needed. "
            f"Upgrade it with: blazen-trio db upgrade --db {shlex.quote(self.where)}"
        )


def read_schema(url: str) -> SchemaVersion:
    """Return the version of a database's schema. Changes nothing.

    This blocks: call it from a worker thread, or from a program without an event loop.

    Raises:
        ValueError: The URL names a database that can't be used.
        SchemaError: The file is not a database.
        StoreError: The database can't be opened.
    """
    engine, looker = make_looking_engine(url)
    with _watched(engine) as watch:
        return looker.steadily(lambda: read_schema_of(engine, watch))


def upgrade_schema(url: str) -> tuple[str | None, SchemaVersion]:
    """Create a database's schema, or upgrade it to the version that this code needs.

    Returns the version it had, and the one it has now. This blocks: call it from a worker thread,
    or from a program without an event loop.

    Raises:
        ValueError: The URL names a database that can't be used.
        SchemaError: The schema is of a newer version, or the file is not a database.
        StoreError: The database can't be opened or written.
    """
    engine, _ = make_engine(url)
    with _watched(engine) as watch:
        before = read_schema_of(engine, watch)
        prepare_database(engine, watch, migrate=True)
        return before.revision, read_schema_of(engine, watch)


@contextmanager
def _watched(engine: sa.Engine) -> Iterator[Watch]:
    """Run a watch for an engine of ours, and dispose of the engine at the end."""
    watch = Watch()
    thread = threading.Thread(target=watch.loop, name="blazen_trio watch")
    thread.start()
    try:
        yield watch
    finally:
        watch.close()
        thread.join()
        engine.dispose()


def read_schema_of(engine: sa.Engine, watch: Watch) -> SchemaVersion:
    """Return the version of the schema of an engine's database. Changes nothing. For a thread.

    Raises:
        ValueError: The URL names a database that can't be used.
        SchemaError: The file is not a database.
        StoreError: The database can't be opened.
    """
    where = shown(engine.url)
    database = databases.of(engine)
    if database.in_a_file and not is_there(file_of(engine.url)):
        return _version(where, None)  # connecting would create it
    with _connected(engine, watch) as connection, database.begin(connection):
        return _version(where, _stored_revision(connection))


@contextmanager
def _connected(
    engine: sa.Engine,
    watch: Watch,
    silence: float = ANSWER_WITHIN,
) -> Iterator[sa.Connection]:
    """Open a connection, bound its server's silence (in seconds), and translate its errors."""
    opened = False
    try:
        with watch.connected(engine, silence) as connection:
            opened = True
            yield connection
    except _DRIVERS_OWN as error:
        # Raised by a driver for options that it does not know, before it contacts a server.
        if opened:
            raise
        raise unusable(engine.url, error) from error
    except (sa.exc.SQLAlchemyError, engine.dialect.loaded_dbapi.Error) as error:
        raise translate(error, f"opening {shown(engine.url)}", writing=False) from error


def _version(where: str, revision: str | None) -> SchemaVersion:
    standing: Literal["current", "missing", "behind", "ahead"]
    if revision == HEAD:
        standing = "current"
    elif revision is None:
        standing = "missing"
    else:
        standing = "behind" if revision in _known_revisions() else "ahead"
    return SchemaVersion(where, revision, HEAD, standing)


def prepare_database(
    engine: sa.Engine,
    watch: Watch | None = None,
    *,
    migrate: bool,
    checkpoint: Callable[[], None] = lambda: None,
) -> None:
    """Make sure that the database has our tables, in the version of this code. For a thread.

    An SQLite file is created and upgraded automatically; a server's schema, only with `migrate`.

    Args:
        engine: Makes the connection.
        watch: Watches for a silent server.
        migrate: Whether a server's schema may be upgraded.
        checkpoint: Called while waiting for another process; raises to end the wait.

    Raises:
        SchemaError: The schema is not the one needed, and must not or can't be upgraded; or the
            database belongs to another program.
        StoreError: The database can't be opened or written, or another process has been upgrading
            it for too long.
    """
    watch = watch or Watch()
    database = databases.of(engine)
    with _connected(engine, watch) as connection:
        check_connection(connection)
        upgrade = _needs_upgrade(connection, shown(engine.url), migrate=migrate)
        database.prepare_database(connection)
    if upgrade:
        with _connected(engine, watch, _MIGRATED_WITHIN) as connection:
            _upgrade(database.as_writer(connection), checkpoint)


def _needs_upgrade(connection: sa.Connection, where: str, *, migrate: bool) -> bool:
    """Return whether the schema is behind this code; raise if it must not be upgraded."""
    database = databases.of(connection)
    with database.begin(connection):
        tables = sa.inspect(connection).get_table_names()
        schema = _version(where, _stored_revision(connection))
    if schema.standing == "current":
        return False
    if schema.standing == "ahead":
        raise SchemaError(str(schema.problem))
    if schema.standing == "missing" and database.in_a_file and tables and not migrate:
        raise SchemaError(
            f"{where} is a database of another program: it has tables "
            f"({', '.join(sorted(tables)[:3])}) but none of blazen_trio's. Use another file, or "
            "pass migrate=True to add the store's tables to this one"
        )
    if not database.in_a_file and not migrate:
        raise SchemaError(f"{schema.problem}, or open the store with migrate=True")
    return True


def _upgrade(connection: sa.Connection, checkpoint: Callable[[], None]) -> None:
    with databases.of(connection).schema_lock(connection, checkpoint):
        # Another process may have upgraded it while we waited for the lock.
        if _stored_revision(connection) == HEAD:
            return
        _migrate(connection)


def _migrate(connection: sa.Connection) -> None:
    """Run the missing migrations.

    This does not use `alembic.command`, which keeps its environment in globals of the process: the
    application may be running migrations of its own, in another thread or in this one.
    """
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext  # slow to import, and rarely needed
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(migrations_config())

    def missing(current: Any, _context: MigrationContext) -> Any:
        return scripts._upgrade_revs("head", current)  # noqa: SLF001  # as in Alembic's own docs

    options = {"version_table": VERSION_TABLE, "fn": missing}
    context = MigrationContext.configure(connection, opts=options)
    with context.begin_transaction():
        context.run_migrations(op=Operations(context))


def _stored_revision(connection: sa.Connection) -> str | None:
    """Return the schema version that is recorded in the database, or `None`."""
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    table = sa.table(VERSION_TABLE, sa.column("version_num"))
    return connection.execute(sa.select(table.c.version_num)).scalar()


def _known_revisions() -> set[str]:
    from alembic.script import ScriptDirectory  # slow to import, and rarely needed

    scripts = ScriptDirectory.from_config(migrations_config())
    return {script.revision for script in scripts.walk_revisions()}


def migrations_config() -> Config:
    """Return Alembic's configuration for the package's migrations.

    They are shipped with the package; in a checkout, they are in a folder next to it.
    """
    from alembic.config import Config  # slow to import, and rarely needed

    package = Path(__file__).parents[2]
    shipped = package / "_migrations"
    folder = shipped if shipped.is_dir() else package.parent / "migrations"
    config = Config()
    # A `%` would start an interpolation.
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
