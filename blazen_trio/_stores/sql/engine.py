"""Opening a database: which URLs are accepted, and what is set on an engine before it is used."""

from __future__ import annotations

import socket
from typing import Any, Final

import sqlalchemy as sa

from blazen_trio._stores.sql import dialects, round_trips
from blazen_trio._stores.sql.sqlite_files import Looker, at_its_place
from blazen_trio._stores.sql.troubles import CONNECT_WITHIN
from blazen_trio.errors import StoreError

__all__ = ["for_writing", "make_engine", "make_looking_engine", "shown", "unusable"]

_SUPPORTED = ("sqlite", "postgresql", "mysql", "mariadb")
# The drivers that are used where the URL names none, and what to install for them.
_DRIVERS = {"postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}
_EXTRAS = {"postgresql": "postgresql", "mysql": "mysql", "mariadb": "mysql"}

# Linux's own look at connections on which nothing moves: after 10 s idle, three times 5 s apart.
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
    """The engine to use, and whether it is ours to dispose of.

    A given engine's pool is used, and nothing is set on the engine itself: it stays as its owner
    made it.

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
    options = dialects.reads_as_of_one_moment(engine, ours=ours)
    options["blazen_trio_begins_otherwise"] = dialects.begins_otherwise(engine)
    # An engine of our own over the same pool.
    return engine.execution_options(**options), ours


def make_looking_engine(url: str | sa.URL) -> tuple[sa.Engine, Looker]:
    """Return an engine of ours for whoever only looks at a database, and what its reads go by.

    Raises:
        ValueError: As of `make_engine`.
        StoreError: The same.
    """
    engine = _create(url, for_looks=True)
    looker = Looker(engine)
    return engine.execution_options(**dialects.reads_as_of_one_moment(engine, ours=True)), looker


def for_writing(engine: sa.Engine, *, ours: bool) -> sa.Engine:
    """The engine that makes the writer's connections; they are used for nothing else and are never
    given back to a pool.

    Only they may send several statements at once, and only where the engine is ours.
    """
    if not ours or engine.dialect.driver != "pymysql":
        return engine
    flag = int(str(engine.url.query.get("client_flag", 0))) | round_trips.MULTI_STATEMENTS
    url = engine.url.update_query_dict({"client_flag": str(flag)})
    return _bounded(sa.create_engine(url, poolclass=sa.NullPool, connect_args=_connecting(url)))


def shown(url: sa.URL) -> str:
    """A URL as people may see it: without its password, also where that is in its query."""
    secret = [name for name in url.query if "passw" in name.lower()]
    return url.difference_update_query(secret).render_as_string(hide_password=True)


def unusable(url: sa.URL, error: Exception) -> ValueError:
    """There is an option in a URL, or a value of one, that its driver can't be given."""
    said = " ".join(str(getattr(error, "orig", None) or error).split())
    return ValueError(
        f"{shown(url)}: the driver {url.get_driver_name()!r} can't connect with what the URL says; "
        f"see that its options are the driver's own ({type(error).__name__}: {said})"
    )


def _create(given: str | sa.URL, *, for_looks: bool = False) -> sa.Engine:
    try:
        url = sa.make_url(given)
    except (sa.exc.ArgumentError, ValueError):
        # Where no URL is made of it nobody knows which part is the password, and the cause may tell
        # it.
        user, _, rest = str(given).rpartition("@")
        msg = f"{'***@' if user else ''}{rest:.80} is no database URL; sqlite:///runs.db is one"
        raise ValueError(msg) from None
    name = url.get_backend_name()
    if name in _DRIVERS and "+" not in url.drivername:
        url = url.set(drivername=f"{url.drivername}+{_DRIVERS[name]}")
    _check(url)
    url = at_its_place(url) if name == "sqlite" else url
    try:
        # How a file is opened is decided each time, so a connection serves one look.
        once = {"poolclass": sa.NullPool} if for_looks and name == "sqlite" else {}
        return _bounded(sa.create_engine(url, **_arguments(url), **once))
    except (TypeError, ValueError, LookupError) as error:
        raise unusable(url, error) from error
    except ImportError as error:
        missing = f"what is missing ({error})"
        if error.name:
            missing = f"the package {error.name!r}, which is not installed"
        msg = f"{shown(url)} needs {missing}"
        if name in _DRIVERS:
            msg += f': pip install "blazen-trio[{_EXTRAS[name]}]"'
            if _DRIVERS[name] != url.get_driver_name():
                msg += f", and let the URL begin with {url.get_backend_name()}+{_DRIVERS[name]}://"
        raise StoreError(msg) from error


def _arguments(url: sa.URL) -> dict[str, Any]:
    """What an engine of our own is made with, besides its URL."""
    arguments: dict[str, Any] = {"connect_args": _connecting(url)}
    if url.get_backend_name() in ("mysql", "mariadb"):
        # For readers; the writer's connection is set otherwise.
        arguments["isolation_level"] = "REPEATABLE READ"
    return arguments


def _connecting(url: sa.URL) -> dict[str, Any]:
    """What a driver is given, so that a server is connected to in a bounded time or not at all.

    What the URL says counts.
    """
    given: dict[str, Any] = {}
    if url.get_driver_name() in ("psycopg", "psycopg2"):
        # By default it is the database's, which may be none at all; then texts come as bytes.
        given = {"connect_timeout": CONNECT_WITHIN, "client_encoding": "utf8", **_KEEPALIVES}
    elif url.get_driver_name() == "pymysql":
        # The first is for TCP only; what the server has to say then is waited for with the others.
        given = dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), CONNECT_WITHIN)
    arguments = {name: value for name, value in given.items() if name not in url.query}
    if url.get_driver_name() == "psycopg":
        # Prepared statements belong to a session, and a pooler may give each transaction another.
        arguments["prepare_threshold"] = None
    return arguments


def _bounded(engine: sa.Engine) -> sa.Engine:
    """Set on an engine of our own what its driver can't be given when it connects."""
    if engine.dialect.driver != "pymysql":
        return engine

    def connected(connection: Any, _record: Any) -> None:
        # PyMySQL has no other name for these. Ours were for connecting: an answer may take longer,
        # and who waits for one says how long.
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
        msg = f"{shown(url)}: runs are stored in {', '.join(_SUPPORTED)}, and not in {name}"
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
            f"{shown(url)} is a database in memory, which each thread sees a different one of; use "
            "MemoryStore() for runs that need not outlive the process, or name a file: "
            "sqlite:///runs.db"
        )
        raise ValueError(msg)


def _in_memory(url: sa.URL) -> bool:
    database = url.database or ""
    if database in ("", ":memory:") or "mode=memory" in database:
        return True
    return url.query.get("mode") == "memory"
