"""Opening a database: which URLs are accepted, and what is set on an engine before it is used."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from blazen_trio._stores.sql import dialects, packets
from blazen_trio.errors import StoreError

__all__ = ["for_writing", "make_engine", "shown"]

_SUPPORTED = ("sqlite", "postgresql", "mysql", "mariadb")
# The drivers that are used where the URL names none, and what to install for them.
_DRIVERS = {"postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}
_EXTRAS = {"postgresql": "postgresql", "mysql": "mysql", "mariadb": "mysql"}
_CONNECT_TIMEOUT = 10  # seconds


def make_engine(url_or_engine: str | sa.URL | sa.Engine) -> tuple[sa.Engine, bool]:
    """The engine to use, and whether it is ours to dispose of.

    A given engine's pool is used, and nothing is set on the engine itself: it stays as its owner made it.

    Raises:
        ValueError: The URL names a database that can't be used.
        StoreError: Its driver is not installed.
    """
    if isinstance(url_or_engine, sa.Engine):
        _check(url_or_engine.url)
        engine = url_or_engine
    else:
        engine = _create(url_or_engine)
    # An engine of our own over the same pool, so that how we begin transactions is nobody else's business.
    ours = engine is not url_or_engine
    options = dialects.reads_as_of_one_moment(engine, ours=ours)
    own = engine.execution_options(blazen_trio_role="reader", **options)
    sa.event.listen(own, "begin", dialects.begin)
    return own, ours


def for_writing(engine: sa.Engine, *, ours: bool) -> sa.Engine:
    """The engine that makes the writer's connections; they are used for nothing else and are never given back to a pool.

    Only they may send several statements at once, and only where the engine is ours.
    """
    if not ours or engine.dialect.driver != "pymysql":
        return engine
    flag = int(str(engine.url.query.get("client_flag", 0))) | packets.MULTI_STATEMENTS
    return sa.create_engine(engine.url.update_query_dict({"client_flag": str(flag)}), poolclass=sa.NullPool)


def shown(url: sa.URL) -> str:
    """A URL as people may see it: without its password, also where that is in its query."""
    secret = [name for name in url.query if "passw" in name.lower()]
    return url.difference_update_query(secret).render_as_string(hide_password=True)


def _create(given: str | sa.URL) -> sa.Engine:
    try:
        url = sa.make_url(given)
    except (sa.exc.ArgumentError, ValueError):
        # Where no URL is made of it nobody knows which part is the password, and the cause may tell it.
        user, _, rest = str(given).rpartition("@")
        msg = f"{'***@' if user else ''}{rest:.80} is no database URL; sqlite:///runs.db is one"
        raise ValueError(msg) from None
    name = url.get_backend_name()
    if name in _DRIVERS and "+" not in url.drivername:
        url = url.set(drivername=f"{url.drivername}+{_DRIVERS[name]}")
    _check(url)
    try:
        return sa.create_engine(url, **_arguments(url))
    except ImportError as error:
        missing = f"the package {error.name!r}, which is not installed" if error.name else f"what is missing ({error})"
        msg = f"{shown(url)} needs {missing}"
        if name in _DRIVERS:
            msg += f': pip install "blazen-trio[{_EXTRAS[name]}]"'
            if _DRIVERS[name] != url.get_driver_name():
                msg += f", and let the URL begin with {url.get_backend_name()}+{_DRIVERS[name]}://"
        raise StoreError(msg) from error


def _arguments(url: sa.URL) -> dict[str, Any]:
    """What an engine of our own is made with, besides its URL."""
    if url.get_backend_name() in ("mysql", "mariadb"):
        # For readers; the writer's connection is set otherwise.
        return {"isolation_level": "REPEATABLE READ"}
    if url.drivername == "postgresql+psycopg":
        # Prepared statements belong to a session, and a pooler may give each transaction another one.
        timeout = {} if "connect_timeout" in url.query else {"connect_timeout": _CONNECT_TIMEOUT}
        return {"connect_args": {"prepare_threshold": None, **timeout}}
    return {}


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
            f"{shown(url)} names an asyncio driver, which does not run under Trio; name a synchronous one, e.g. "
            "sqlite:///runs.db or postgresql+psycopg://..."
        )
        raise ValueError(msg)
    if name == "sqlite" and _in_memory(url):
        msg = (
            f"{shown(url)} is a database in memory, which each thread sees a different one of; use MemoryStore() "
            "for runs that need not outlive the process, or name a file: sqlite:///runs.db"
        )
        raise ValueError(msg)


def _in_memory(url: sa.URL) -> bool:
    database = url.database or ""
    return database in ("", ":memory:") or "mode=memory" in database or url.query.get("mode") == "memory"
