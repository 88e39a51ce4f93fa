"""Opening a database: which URLs are accepted, and what is set on an engine before it is used."""

from __future__ import annotations

import sqlalchemy as sa

from blazen_trio._stores.sql import dialects

__all__ = ["make_engine"]

_SUPPORTED = ("sqlite", "postgresql", "mysql", "mariadb")


def make_engine(url_or_engine: str | sa.URL | sa.Engine) -> tuple[sa.Engine, bool]:
    """The engine to use, and whether it is ours to dispose of.

    A given engine's pool is used, and nothing is set on the engine itself: it stays as its owner made it.

    Raises:
        ValueError: The URL names a database that can't be used.
    """
    if isinstance(url_or_engine, sa.Engine):
        _check(url_or_engine.url)
        engine = url_or_engine
    else:
        try:
            url = sa.make_url(url_or_engine)
        except sa.exc.ArgumentError as error:
            msg = f"{url_or_engine!r:.80} is no database URL; sqlite:///runs.db is one"
            raise ValueError(msg) from error
        _check(url)
        engine = sa.create_engine(url_or_engine)
    # An engine of our own over the same pool, so that how we begin transactions is nobody else's business.
    own = engine.execution_options(blazen_trio_role="reader")
    sa.event.listen(own, "begin", dialects.begin)
    return own, engine is not url_or_engine


def _check(url: sa.URL) -> None:
    name = url.get_backend_name()
    if name not in _SUPPORTED:
        msg = f"{url!r}: runs are stored in {', '.join(_SUPPORTED)}, and not in {name}"
        raise ValueError(msg)
    if url.get_dialect().is_async:
        msg = (
            f"{url!r} names an asyncio driver, which does not run under Trio; name a synchronous one, e.g. "
            "sqlite:///runs.db or postgresql+psycopg://..."
        )
        raise ValueError(msg)
    if name == "sqlite" and _in_memory(url):
        msg = (
            f"{url!r} is a database in memory, which each thread sees a different one of; use MemoryStore() "
            "for runs that need not outlive the process, or name a file: sqlite:///runs.db"
        )
        raise ValueError(msg)


def _in_memory(url: sa.URL) -> bool:
    database = url.database or ""
    return database in ("", ":memory:") or "mode=memory" in database or url.query.get("mode") == "memory"
