"""Bringing a database's schema to what this code needs, by the Alembic migrations that the package
ships.
"""

from __future__ import annotations

import shlex
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs
import sqlalchemy as sa

from blazen_trio._stores.sql import dialects
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
"""Seconds for which a server may be silent while it changes a table, whatever that holds."""


@attrs.frozen
class SchemaVersion:
    """Which version a database's schema has.

    Attributes:
        where: The database's URL, without its password.
        revision: The version; `None` where there is no schema of ours yet.
        head: The one that this code needs.
        standing: The former beside the latter.
    """

    where: str
    revision: str | None
    head: str
    standing: Literal["current", "missing", "behind", "ahead"]

    @property
    def problem(self) -> str | None:
        """What is wrong with it and what to do; `None` where nothing is."""
        if self.standing == "current":
            return None
        if self.standing == "ahead":
            return (
                f"{self.where} was made by a newer version of blazen_trio (its schema is "
                f"{self.revision!r}, this version knows {self.head!r} and older): upgrade "
                "blazen_trio, the database can't be taken back"
            )
        found = "missing" if self.revision is None else f"at {self.revision!r}"
        return (
            f"{self.where}: the schema is {found}, {self.head!r} is needed. "
            f"Upgrade it with: blazen-trio db upgrade --db {shlex.quote(self.where)}"
        )


def read_schema(url: str) -> SchemaVersion:
    """Look at a database's schema, and change nothing. Blocks: for a worker thread, or a program
    without a loop.

    Raises:
        ValueError: The URL names a database that can't be used.
        SchemaError: The file is no database.
        StoreError: The database can't be opened.
    """
    engine, looker = make_looking_engine(url)
    with _watched(engine) as watch:
        return looker.steadily(lambda: read_schema_of(engine, watch))


def upgrade_schema(url: str) -> tuple[str | None, SchemaVersion]:
    """Bring a database's schema to what this code needs, from nothing too. Returns the version it
    had, and what it has now. Blocks: for a worker thread, or a program without a loop.

    Raises:
        ValueError: The URL names a database that can't be used.
        SchemaError: The schema is of a newer version, or the file is no database.
        StoreError: The database can't be opened or written.
    """
    engine, _ = make_engine(url)
    with _watched(engine) as watch:
        before = read_schema_of(engine, watch)
        prepare_database(engine, watch, migrate=True)
        return before.revision, read_schema_of(engine, watch)


@contextmanager
def _watched(engine: sa.Engine) -> Iterator[Watch]:
    """Have a watch look after an engine of ours, which is disposed of at the end."""
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
    """Look at the schema of an engine's database, and change nothing. For a thread.

    Raises:
        ValueError: The URL names a database that can't be used.
        SchemaError: The file is no database.
        StoreError: The database can't be opened.
    """
    where = shown(engine.url)
    if engine.dialect.name == "sqlite" and not is_there(file_of(engine.url)):
        return _version(where, None)  # to connect would create it
    with _connected(engine, watch) as connection, dialects.begin(connection):
        return _version(where, _stored_revision(connection))


@contextmanager
def _connected(
    engine: sa.Engine,
    watch: Watch,
    silence: float = ANSWER_WITHIN,
) -> Iterator[sa.Connection]:
    """Open a connection, whose server may be silent for a while only, and translate its errors."""
    opened = False
    try:
        with watch.connected(engine, silence) as connection:
            opened = True
            yield connection
    except _DRIVERS_OWN as error:
        # What a driver raises that was given what it does not know; no server was asked.
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
    """See to it that the database has our tables, in the version of this code. For a thread.

    An SQLite file is created and upgraded; a server's schema only where `migrate` says so.

    Args:
        engine: Makes the connection.
        watch: Has an eye on its server.
        migrate: Whether a server's schema may be upgraded.
        checkpoint: Is called while another process is waited for; it raises where this is to end.

    Raises:
        SchemaError: It has not, and they must not or can't be brought there; or this is no database
            of ours.
        StoreError: The database can't be opened or written, or another process has been upgrading
            it for too long.
    """
    watch = watch or Watch()
    with _connected(engine, watch) as connection:
        check_connection(connection)
        upgrade = _needs_upgrade(connection, shown(engine.url), migrate=migrate)
        dialects.prepare_database(connection)
    if upgrade:
        with _connected(engine, watch, _MIGRATED_WITHIN) as connection:
            _upgrade(dialects.as_writer(connection), checkpoint)


def _needs_upgrade(connection: sa.Connection, where: str, *, migrate: bool) -> bool:
    """Whether the database is behind this code, and may be upgraded."""
    with dialects.begin(connection):
        tables = sa.inspect(connection).get_table_names()
        schema = _version(where, _stored_revision(connection))
    if schema.standing == "current":
        return False
    if schema.standing == "ahead":
        raise SchemaError(str(schema.problem))
    sqlite = connection.dialect.name == "sqlite"
    if schema.standing == "missing" and sqlite and tables and not migrate:
        raise SchemaError(
            f"{where} is a database of another program: it has tables "
            f"({', '.join(sorted(tables)[:3])}) and none of blazen_trio's. Name another file, or "
            "pass migrate=True to add the store's tables to this one"
        )
    if not sqlite and not migrate:
        raise SchemaError(f"{schema.problem}, or open the store with migrate=True")
    return True


def _upgrade(connection: sa.Connection, checkpoint: Callable[[], None]) -> None:
    with dialects.schema_lock(connection, checkpoint):
        # Another process may have done it while we waited for the lock.
        if _stored_revision(connection) == HEAD:
            return
        _migrate(connection)


def _migrate(connection: sa.Connection) -> None:
    """Run what is missing of the migrations.

    Not by `alembic.command`: that keeps the environment it runs in globals of the process, and the
    application may be in the middle of migrations of its own, in another thread, or in this one.
    """
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext  # slow to import, and rarely needed
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(migrations_config())

    def missing(current: Any, _context: MigrationContext) -> Any:
        return scripts._upgrade_revs("head", current)  # noqa: SLF001  # as Alembic's own docs have it

    options = {"version_table": VERSION_TABLE, "fn": missing}
    context = MigrationContext.configure(connection, opts=options)
    with context.begin_transaction():
        context.run_migrations(op=Operations(context))


def _stored_revision(connection: sa.Connection) -> str | None:
    """The schema version that the database says it has, `None` where it says none."""
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    table = sa.table(VERSION_TABLE, sa.column("version_num"))
    return connection.execute(sa.select(table.c.version_num)).scalar()


def _known_revisions() -> set[str]:
    from alembic.script import ScriptDirectory  # slow to import, and rarely needed

    scripts = ScriptDirectory.from_config(migrations_config())
    return {script.revision for script in scripts.walk_revisions()}


def migrations_config() -> Config:
    """Alembic's configuration for the migrations shipped with the package, or, in a checkout,
    beside it.
    """
    from alembic.config import Config  # slow to import, and rarely needed

    package = Path(__file__).parents[2]
    shipped = package / "_migrations"
    folder = shipped if shipped.is_dir() else package.parent / "migrations"
    config = Config()
    # `%` begins an interpolation there.
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
