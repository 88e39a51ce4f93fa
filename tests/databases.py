"""New empty databases of each kind that the store knows, for tests.

The servers' URLs are taken from `BLAZEN_TRIO_TEST_POSTGRESQL` and `BLAZEN_TRIO_TEST_MARIADB`. A
test whose server does not answer is skipped, or fails where `BLAZEN_TRIO_TEST_REQUIRE_SERVERS=1`.
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
_CLIENT_FLAGS = (
    0x10000 | 0x2
)  # several statements in one packet; rows are counted where they are found
_DROP = {"postgresql": "DROP DATABASE {} WITH (FORCE)", "mariadb": "DROP DATABASE {}"}
# One that the frontend sends, alone or with parameters; the first line of its text.
_STATEMENT = re.compile(r'\tF\t\d+\t(?:Query\t|Parse\t "") "(.*?)(?:" ?[\d ]*)?$')
LIKE_OURS: dict[str, dict[str, Any]] = {
    "sqlite": {},
    "postgresql": {"connect_args": {"prepare_threshold": None}},
    "mariadb": {"connect_args": {"client_flag": _CLIENT_FLAGS}},
}
"""What an engine is made with that sends what the writer's own connections do. (And whose
statements can be traced: those that psycopg has prepared are called by names.)
"""

_SILENT: dict[str, str] = {}  # servers that did not answer, and what was said of it


@contextmanager
def fresh_database(kind: str, folder: Path) -> Iterator[str]:
    """The URL of a new empty database, which is dropped afterwards."""
    name = f"blazen_{secrets.token_hex(8)}"
    if kind == "sqlite":
        yield f"sqlite:///{folder}/{name}.db"
        return
    _run(kind, f"CREATE DATABASE {name}")
    try:
        yield sa.make_url(_URLS[kind]).set(database=name).render_as_string(hide_password=False)
    finally:
        execute(_URLS[kind], _DROP[kind].format(name))


def _run(kind: str, statement: str) -> None:
    try:
        if kind not in _SILENT:
            execute(_URLS[kind], statement)
    except (sa.exc.OperationalError, ModuleNotFoundError) as error:
        _SILENT[kind] = str(getattr(error, "orig", None) or error)
    if kind in _SILENT:
        tell = (
            pytest.fail
            if os.environ.get("BLAZEN_TRIO_TEST_REQUIRE_SERVERS") == "1"
            else pytest.skip
        )
        tell(f"no {kind} server answers: {_SILENT[kind]}")


@contextmanager
def an_engine(url: str, **arguments: Any) -> Iterator[sa.Engine]:
    """An engine of the test's own, disposed of afterwards."""
    engine = sa.create_engine(url, **arguments)
    try:
        yield engine
    finally:
        engine.dispose()


def execute(url: str, statement: str, **parameters: Any) -> list[Any]:
    """What a statement returns, run on a connection of its own and committed at once."""
    with (
        an_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT") as engine,
        engine.connect() as connection,
    ):
        result = connection.execute(sa.text(statement), parameters)
        return list(result) if result.returns_rows else []


def kill_backends(url: str) -> int:
    """End all other connections to this database, on the server's side; how many there were."""
    name = sa.make_url(url).database
    if "postgresql" in url:
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name AND pid <> pg_backend_pid()"
        return len(execute(url, query, name=name))
    query = (
        "SELECT id FROM information_schema.processlist WHERE db = :name AND id <> connection_id()"
    )
    found = execute(url, query, name=name)
    for (number,) in found:
        with suppress(sa.exc.OperationalError):  # it has gone meanwhile
            execute(url, f"KILL {number}")
    return len(found)


@contextmanager
def trace(engine: sa.Engine, folder: Path) -> Iterator[Callable[..., list[str]]]:
    """What tells the statements that the database was given since it was last asked, one connection
    after the other: one is one round trip. `naming` leaves out connections none of whose statements
    has this in it.
    """
    told: list[list[str]] = []  # of each connection

    @sa.event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        told.append([])
        if engine.dialect.name == "sqlite":
            connection.set_trace_callback(told[-1].append)
        elif engine.dialect.driver == "pymysql":
            _trace_pymysql(connection, told[-1])
        else:
            traces.append((folder / f"{secrets.token_hex(8)}.trace").open("x"))
            connection.pgconn.trace(traces[-1].fileno())

    traces: list[Any] = []
    read: Counter[str] = Counter()  # lines of each file

    def statements(naming: str = "") -> list[str]:
        for number, file in enumerate(traces):
            lines = Path(file.name).read_text().splitlines()
            told[number].extend(
                found[1] for line in lines[read[file.name] :] if (found := _STATEMENT.search(line))
            )
            read[file.name] = len(lines)
        found = [each.copy() for each in told]
        for each in told:
            each.clear()
        return [one for each in found if naming in "\n".join(each) for one in each]

    try:
        yield statements
    finally:
        engine.dispose()
        for file in traces:
            file.close()


def _trace_pymysql(connection: Any, told: list[str]) -> None:
    send = connection._execute_command

    def execute_command(command: int, sql: Any) -> None:
        if command == 3:  # a statement; pings and the like are other commands
            told.append(sql if isinstance(sql, str) else bytes(sql).decode(errors="replace"))
        send(command, sql)

    connection._execute_command = execute_command


def end_holders(url: str) -> None:
    """As if all processes that hold leases had died on this host."""
    execute(url, "UPDATE blazen_lease SET pid = 4194305, started = 1")
