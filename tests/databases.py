"""Fresh, empty databases of each kind that the store supports, for tests.

`BLAZEN_TRIO_TEST_POSTGRESQL` and `BLAZEN_TRIO_TEST_MARIADB` are the servers' URLs. A test whose
server does not answer is skipped. With `BLAZEN_TRIO_TEST_REQUIRE_SERVERS=1` it fails instead.
"""

from __future__ import annotations

import os
import re
import secrets
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KINDS = ("sqlite", "postgresql", "mariadb")
SERVERS = ("postgresql", "mariadb")

_URLS = {
    "postgresql": os.environ.get(
        "BLAZEN_TRIO_TEST_POSTGRESQL", "postgresql+psycopg://postgres@127.0.0.1:5432/test"
    ),
    "mariadb": os.environ.get(
        "BLAZEN_TRIO_TEST_MARIADB",
        # PyMySQL reads the system's certificates for each connection: 20 ms, which the tests of
        # this database would spend half of their time on.
        "mysql+pymysql://root@127.0.0.1:3306/test?ssl_disabled=true",
    ),
}
# Allow several statements in one packet, and count the rows found instead of those changed.
_CLIENT_FLAGS = 0x10000 | 0x2
_DROP = {"postgresql": "DROP DATABASE IF EXISTS {} WITH (FORCE)", "mariadb": "DROP DATABASE {}"}
# A statement that the frontend sends, with or without parameters. Matches its first line.
_STATEMENT = re.compile(r'\tF\t\d+\t(?:Query\t|Parse\t "") "(.*?)(?:" ?[\d ]*)?$')
WRITER_ARGUMENTS: dict[str, dict[str, Any]] = {
    "sqlite": {},
    "postgresql": {"connect_args": {"prepare_threshold": None}},
    "mariadb": {"connect_args": {"client_flag": _CLIENT_FLAGS}},
}
"""Arguments for an engine whose connections send what the writer's own connections send.

They also make its statements traceable: a trace shows only the name of a statement that psycopg has
prepared.
"""

_SILENT: dict[str, str] = {}  # the servers that did not answer, and their errors


@contextmanager
def fresh_database(kind: str, folder: Path) -> Iterator[str]:
    """Yield the URL of a new empty database, which is dropped afterwards."""
    name = f"blazen_{secrets.token_hex(8)}"
    if kind == "sqlite":
        yield f"sqlite:///{folder}/{name}.db"
        return
    if kind == "postgresql" and _SPARE:
        name = _SPARE.pop()
    else:
        _run(kind, f"CREATE DATABASE {name}")
    url = sa.make_url(_URLS[kind]).set(database=name).render_as_string(hide_password=False)
    try:
        yield url
    finally:
        if kind == "postgresql" and _is_empty_again(url):
            _SPARE.append(name)
        else:
            execute(_URLS[kind], _DROP[kind].format(name))


_SPARE: list[str] = []
"""PostgreSQL databases of this process that no test uses now.

Creating one copies a thousand files, and dropping it makes the server write a checkpoint.
"""


def _is_empty_again(url: str) -> bool:
    """Empty a PostgreSQL database. Return `False` if the test has dropped it."""
    empty = """
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid();
        DROP SCHEMA public CASCADE;
        CREATE SCHEMA public AUTHORIZATION pg_database_owner;
        GRANT USAGE ON SCHEMA public TO PUBLIC;
    """
    try:
        execute(url, f"{empty} ALTER DATABASE {sa.make_url(url).database} RESET ALL")
    except sa.exc.DBAPIError:
        return False
    return True


def drop_spare_databases() -> None:
    """Drop the databases that were kept for other tests of this process."""
    while _SPARE:
        execute(_URLS["postgresql"], _DROP["postgresql"].format(_SPARE.pop()))


def _run(kind: str, statement: str) -> None:
    try:
        if kind not in _SILENT:
            execute(_URLS[kind], statement)
    except (sa.exc.OperationalError, ModuleNotFoundError) as error:
        _SILENT[kind] = str(getattr(error, "orig", None) or error)
    if kind in _SILENT:
        required = os.environ.get("BLAZEN_TRIO_TEST_REQUIRE_SERVERS") == "1"
        give_up = pytest.fail if required else pytest.skip
        give_up(f"no {kind} server answers: {_SILENT[kind]}")


@contextmanager
def an_engine(url: str, **arguments: Any) -> Iterator[sa.Engine]:
    """Yield an engine for this test alone, which is disposed of afterwards."""
    engine = sa.create_engine(url, **arguments)
    try:
        yield engine
    finally:
        engine.dispose()


def execute(url: str, statement: str, **parameters: Any) -> list[Any]:
    """Execute and commit a statement on a connection of its own. Return its rows."""
    with (
        an_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT") as engine,
        engine.connect() as connection,
    ):
        result = connection.execute(sa.text(statement), parameters)
        return list(result) if result.returns_rows else []


def kill_backends(url: str) -> int:
    """Close all other connections to this database on the server. Return how many there were."""
    name = sa.make_url(url).database
    if "postgresql" in url:
        query = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = :name AND pid <> pg_backend_pid()"
        )
        return len(execute(url, query, name=name))
    query = (
        "SELECT id FROM information_schema.processlist WHERE db = :name AND id <> connection_id()"
    )
    found = execute(url, query, name=name)
    for (number,) in found:
        with suppress(sa.exc.OperationalError):  # it has ended in the meantime
            execute(url, f"KILL {number}")
    return len(found)


@contextmanager
def trace(engine: sa.Engine, folder: Path) -> Iterator[Callable[..., list[str]]]:
    """Yield a function that returns the statements sent since its last call.

    Each statement is one round trip. They are ordered by connection. With `naming`, the function
    leaves out connections that sent no statement containing that text.
    """
    sent: list[list[str]] = []  # by connection

    @sa.event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        sent.append([])
        if engine.dialect.name == "sqlite":
            connection.set_trace_callback(sent[-1].append)
        elif engine.dialect.driver == "pymysql":
            _trace_pymysql(connection, sent[-1])
        else:
            traces.append((folder / f"{secrets.token_hex(8)}.trace").open("x"))
            connection.pgconn.trace(traces[-1].fileno())

    traces: list[Any] = []
    read: Counter[str] = Counter()  # lines read so far, by file

    def statements(naming: str = "") -> list[str]:
        for number, file in enumerate(traces):
            lines = Path(file.name).read_text().splitlines()
            sent[number].extend(
                found[1] for line in lines[read[file.name] :] if (found := _STATEMENT.search(line))
            )
            read[file.name] = len(lines)
        found = [each.copy() for each in sent]
        for each in sent:
            each.clear()
        return [one for each in found if naming in "\n".join(each) for one in each]

    try:
        yield statements
    finally:
        engine.dispose()
        for file in traces:
            file.close()


def _trace_pymysql(connection: Any, sent: list[str]) -> None:
    send = connection._execute_command

    def execute_command(command: int, sql: Any) -> None:
        if command == 3:  # a statement; pings and the like are other commands
            sent.append(sql if isinstance(sql, str) else bytes(sql).decode(errors="replace"))
        send(command, sql)

    connection._execute_command = execute_command


def mark_holders_dead(url: str) -> None:
    """Make all processes that hold leases look as if they had died on this host."""
    execute(url, "UPDATE blazen_lease SET pid = 4194305, started = 1")
