"""Engines: which database URLs are accepted, and the settings of the engines made from them."""

from __future__ import annotations

import socket
from typing import Any, Final

import sqlalchemy as sa

from blazen_trio._stores.sql import databases
from blazen_trio._stores.sql.databases.mysql import MULTI_STATEMENTS
from blazen_trio._stores.sql.sqlite_files import Looker, at_its_place
from blazen_trio._stores.sql.troubles import CONNECT_WITHIN
from blazen_trio.errors import StoreError

__all__ = ["for_writing", "make_engine", "make_looking_engine", "shown", "unusable"]

_SUPPORTED = ("sqlite", "postgresql", "mysql", "mariadb")
# The default drivers, and the extras that install them.
_DRIVERS = {"postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}
_EXTRAS = {"postgresql": "postgresql", "mysql": "mysql", "mariadb": "mysql"}

# TCP keep-alives on Linux: after 10 s idle, three probes 5 s apart.
_KEEPALIVES: Final = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
_KEEPALIVES_OF_SOCKETS: Final = {
    "TCP_KEEPIDLE": 10,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 15_000,
}


def make_engine(url_or_engine: str | sa.URL | sa.Engine) -> tuple[sa.Engine, bool]:
    """Return the engine to use, and whether it is ours to dispose of.

    If an engine is given, its pool is used, but nothing is set on the engine itself.

    Raises:
        ValueError: The URL names a database that can't be used.
        StoreError: Its driver is not installed.
    """
    if isinstance(url_or_engine, sa.Engine):
        _check(url_or_engine.url)
        engine = url_or_engine
    else:
        engine = _create(url_or_engine)
    ours = engine is not url_or_engine
    database = databases.of(engine)
    options = database.reads_as_of_one_moment(ours=ours)
    options["blazen_trio_begins_otherwise"] = database.begins_otherwise(engine)
    # Returns a copy that shares the pool.
    return engine.execution_options(**options), ours


def make_looking_engine(url: str | sa.URL) -> tuple[sa.Engine, Looker]:
    """Return an engine of ours that only reads a database, and the looker that its reads go
    through.

    Raises:
        ValueError: As in `make_engine`.
        StoreError: As in `make_engine`.
    """
    engine = _create(url, for_looks=True)
    looker = Looker(engine)
    options = databases.of(engine).reads_as_of_one_moment(ours=True)
    return engine.execution_options(**options), looker


def for_writing(engine: sa.Engine, *, ours: bool) -> sa.Engine:
    """Return the engine that makes the writer's connections.

    They are used for nothing else and never returned to a pool. Only they may send several
    statements at once, and only if the engine is ours.
    """
    if not ours or engine.dialect.driver != "pymysql":
        return engine
    flag = int(str(engine.url.query.get("client_flag", 0))) | MULTI_STATEMENTS
    url = engine.url.update_query_dict({"client_flag": str(flag)})
    return _bounded(sa.create_engine(url, poolclass=sa.NullPool, connect_args=_connecting(url)))


def shown(url: sa.URL) -> str:
    """Return a URL for display: without its password, even if that is in the query."""
    secret = [name for name in url.query if "passw" in name.lower()]
    return url.difference_update_query(secret).render_as_string(hide_password=True)


def unusable(url: sa.URL, error: Exception) -> ValueError:
    """Return the error for a URL with an option that its driver does not accept."""
    said = " ".join(str(getattr(error, "orig", None) or error).split())
    return ValueError(
        f"{shown(url)}: the driver {url.get_driver_name()!r} can't connect with the URL's options; "
        f"use only options that the driver knows ({type(error).__name__}: {said})"
    )


def _create(given: str | sa.URL, *, for_looks: bool = False) -> sa.Engine:
    try:
        url = sa.make_url(given)
    except (sa.exc.ArgumentError, ValueError):
        # Text that is not a URL may contain a password anywhere before the "@", and so may the
        # cause: show neither.
        user, _, rest = str(given).rpartition("@")
        msg = (
            f"invalid database URL '{'***@' if user else ''}{rest:.80}'; "
            "an example is sqlite:///runs.db"
        )
        raise ValueError(msg) from None
    name = url.get_backend_name()
    if name in _DRIVERS and "+" not in url.drivername:
        url = url.set(drivername=f"{url.drivername}+{_DRIVERS[name]}")
    _check(url)
    url = at_its_place(url) if name == "sqlite" else url
    try:
        # How to open a file is decided each time, so a connection serves one read.
        once = {"poolclass": sa.NullPool} if for_looks and name == "sqlite" else {}
        return _bounded(sa.create_engine(url, **_arguments(url), **once))
    except (TypeError, ValueError, LookupError) as error:
        raise unusable(url, error) from error
    except ImportError as error:
        missing = f"a missing package ({error})"
        if error.name:
            missing = f"the package {error.name!r}, which is not installed"
        msg = f"{shown(url)} needs {missing}"
        if name in _DRIVERS:
            msg += f': pip install "blazen-trio[{_EXTRAS[name]}]"'
            if _DRIVERS[name] != url.get_driver_name():
                msg += f", and start the URL with {url.get_backend_name()}+{_DRIVERS[name]}://"
        raise StoreError(msg) from error


def _arguments(url: sa.URL) -> dict[str, Any]:
    """Return the arguments for an engine of our own, besides its URL."""
    arguments: dict[str, Any] = {"connect_args": _connecting(url)}
    if url.get_backend_name() in ("mysql", "mariadb"):
        # For readers; the writer's connection gets another level.
        arguments["isolation_level"] = "REPEATABLE READ"
    return arguments


def _connecting(url: sa.URL) -> dict[str, Any]:
    """Return a driver's arguments, which bound the time that connecting may take.

    Options in the URL take precedence.
    """
    given: dict[str, Any] = {}
    if url.get_driver_name() in ("psycopg", "psycopg2"):
        # The default encoding is the database's, which may be SQL_ASCII; texts would then be bytes.
        given = {"connect_timeout": CONNECT_WITHIN, "client_encoding": "utf8", **_KEEPALIVES}
    elif url.get_driver_name() == "pymysql":
        # The first covers the TCP connection only; the others, the server's greeting.
        given = dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), CONNECT_WITHIN)
    arguments = {name: value for name, value in given.items() if name not in url.query}
    if url.get_driver_name() == "psycopg":
        # Prepared statements belong to a session, and a pooler may use another for each
        # transaction.
        arguments["prepare_threshold"] = None
    return arguments


def _bounded(engine: sa.Engine) -> sa.Engine:
    """Set options on an engine of our own that its driver does not accept when connecting."""
    if engine.dialect.driver != "pymysql":
        return engine

    def connected(connection: Any, _record: Any) -> None:
        # PyMySQL has no public names for these. Our timeouts were for connecting: an answer may
        # take longer, and each caller sets its own limit (`Watch`).
        for name in {"read_timeout", "write_timeout"} - set(engine.url.query):
            setattr(connection, f"_{name}", None)
        sock = connection._sock  # noqa: SLF001
        if sock.family != getattr(socket, "AF_UNIX", None):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEPALIVES_OF_SOCKETS.items():
                if hasattr(socket, name):  # not every system has all of them
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    sa.event.listen(engine, "connect", connected)
    return engine


def _check(url: sa.URL) -> None:
    name = url.get_backend_name()
    if name not in _SUPPORTED:
        msg = f"{shown(url)}: {name} is not supported; use one of {', '.join(_SUPPORTED)}"
        raise ValueError(msg)
    try:
        is_async = url.get_dialect().is_async
    except sa.exc.NoSuchModuleError as error:
        msg = f"{shown(url)} names a driver that SQLAlchemy does not know"
        raise ValueError(msg) from error
    if is_async:
        msg = (
            f"{shown(url)} names an asyncio driver, which does not run under Trio; name a "
            "synchronous one, e.g. sqlite:///runs.db or postgresql+psycopg://..."
        )
        raise ValueError(msg)
    if name == "sqlite" and _in_memory(url):
        msg = (
            f"{shown(url)} is an in-memory database, of which each thread would see another; use "
            "MemoryStore() for runs that need not outlive the process, or name a file: "
            "sqlite:///runs.db"
        )
        raise ValueError(msg)


def _in_memory(url: sa.URL) -> bool:
    database = url.database or ""
    if database in ("", ":memory:") or "mode=memory" in database:
        return True
    return url.query.get("mode") == "memory"
