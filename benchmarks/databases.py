"""The databases to measure: SQLite, and the servers whose URLs are in the environment."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from rich.console import Console

SERVERS = {"postgresql": "BLAZEN_TRIO_TEST_POSTGRESQL", "mariadb": "BLAZEN_TRIO_TEST_MARIADB"}
"""Each server's environment variable: a URL of it whose user may create databases."""

KINDS = ("sqlite", *SERVERS)


def left_out() -> dict[str, str]:
    """Return the kinds of databases that can't be measured here, with the reasons."""
    reasons = {kind: _missing(name) for kind, name in SERVERS.items()}
    return {kind: reason for kind, reason in reasons.items() if reason}


def _missing(name: str) -> str:
    if not os.environ.get(name):
        return f"{name} is not set"
    try:
        sa.create_engine(os.environ[name])
    except ModuleNotFoundError as error:
        return f"the package {error.name} is not installed"
    return ""


def available() -> list[str]:
    """Return the kinds of databases that can be measured here."""
    return [kind for kind in KINDS if kind not in left_out()]


def print_left_out(console: Console) -> None:
    """Print which databases are left out, if any."""
    missing = left_out()
    if missing:
        reasons = "; ".join(f"{kind} ({reason})" for kind, reason in missing.items())
        console.print(f"left out: {reasons}", soft_wrap=True)


@contextmanager
def new_database(kind: str, folder: Path, server: str | None = None) -> Iterator[str]:
    """Yield the URL of an empty database, which is dropped afterwards.

    Args:
        kind: One of `available()`.
        folder: Where to create a folder for an SQLite file.
        server: The URL of a server. By default, the one in the environment.
    """
    name = f"blazen_bench_{secrets.token_hex(6)}"
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(dir=folder, prefix=".benchmark-") as empty:
            yield f"sqlite:///{Path(empty).resolve() / name}.db"
        return
    url = sa.make_url(server or os.environ[SERVERS[kind]])
    run_on(url, f"CREATE DATABASE {name}")
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        run_on(url, f"DROP DATABASE {name}" + (" WITH (FORCE)" if kind == "postgresql" else ""))


def run_on(url: str | sa.URL, statement: str) -> list[Any]:
    """Execute a statement on a connection of its own. Return its rows."""
    engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        result = connection.exec_driver_sql(statement)
        return list(result) if result.returns_rows else []


def version_of(url: str) -> str:
    """Return the version that the database reports."""
    function = (
        "sqlite_version()" if sa.make_url(url).get_backend_name() == "sqlite" else "version()"
    )
    return str(run_on(url, f"SELECT {function}")[0][0])


def size_of(url: str) -> int:
    """Return the size of the database on disk, in bytes.

    On a server, the log and MariaDB's undo log are not included, since all databases share them.
    MariaDB never shrinks the files of tables, and the others do so only now and then: they reuse
    the space of deleted rows.
    """
    parsed = sa.make_url(url)
    kind, name = parsed.get_backend_name(), parsed.database or ""
    if kind == "sqlite":
        return sum(
            Path(name + tail).stat().st_size for tail in ("", "-wal") if Path(name + tail).exists()
        )
    if kind == "postgresql":
        # As autovacuum does every minute. It makes the space of deleted rows reusable but does not
        # return it to the system.
        run_on(url, "VACUUM")
        return int(run_on(url, "SELECT pg_database_size(current_database())")[0][0])
    tables = (
        "SELECT SUM(FILE_SIZE) FROM information_schema.INNODB_SYS_TABLESPACES"
        " WHERE NAME LIKE CONCAT(DATABASE(), '/%%')"
    )
    return int(run_on(url, tables)[0][0])
