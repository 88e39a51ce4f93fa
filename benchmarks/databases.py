"""The databases that are measured: SQLite always, the servers whose URLs are in the environment."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

SERVERS = {"postgresql": "BLAZEN_TRIO_TEST_POSTGRESQL", "mariadb": "BLAZEN_TRIO_TEST_MARIADB"}
"""Each server's environment variable: the URL of a database in which others may be created."""


def available() -> list[str]:
    """The kinds of databases that can be measured here."""
    return ["sqlite", *(kind for kind, name in SERVERS.items() if os.environ.get(name))]


@contextmanager
def new_database(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database, dropped afterwards; an SQLite file is in a new folder of this one."""
    name = f"blazen_bench_{secrets.token_hex(6)}"
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(dir=folder, prefix=".benchmark-") as empty:
            yield f"sqlite:///{Path(empty).resolve() / name}.db"
        return
    url = sa.make_url(os.environ[SERVERS[kind]])
    run_on(url, f"CREATE DATABASE {name}")
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        run_on(url, f"DROP DATABASE {name}" + (" WITH (FORCE)" if kind == "postgresql" else ""))


def run_on(url: str | sa.URL, statement: str) -> list[Any]:
    """What a statement gives, on a connection of its own."""
    engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        result = connection.exec_driver_sql(statement)
        return list(result) if result.returns_rows else []


def size_of(url: str) -> int:
    """How many bytes the database takes on disk."""
    parsed = sa.make_url(url)
    kind, name = parsed.get_backend_name(), parsed.database or ""
    if kind == "sqlite":
        return sum(Path(name + tail).stat().st_size for tail in ("", "-wal") if Path(name + tail).exists())
    if kind == "postgresql":
        # As autovacuum does every minute: space of what was deleted can be used again, and is not given back.
        run_on(url, "VACUUM")
        return int(run_on(url, "SELECT pg_database_size(current_database())")[0][0])
    tables = (
        "SELECT SUM(FILE_SIZE) FROM information_schema.INNODB_SYS_TABLESPACES WHERE NAME LIKE CONCAT(DATABASE(), '/%%')"
    )
    return int(run_on(url, tables)[0][0])
