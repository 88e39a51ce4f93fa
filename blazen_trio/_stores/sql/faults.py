"""A database's errors, told as ours: what happened, and what to do about it."""

from __future__ import annotations

from blazen_trio.errors import SchemaError, StoreError

__all__ = ["translate"]

# What the databases say, and what to tell of it; the first that fits. Drivers have no common codes, so their texts count.
_LOCKED = (
    "another program keeps the database locked. Nothing was written. Let it finish, "
    "or give open_store a longer busy_timeout="
)
_TOLD: tuple[tuple[str, type[StoreError], str], ...] = (
    ("file is not a database", SchemaError, "this file is no SQLite database (or an encrypted one); name another file"),
    ("file is encrypted", SchemaError, "this file is no SQLite database (or an encrypted one); name another file"),
    ("malformed", StoreError, "the database file is damaged; restore it from a backup, or try sqlite3's .recover"),
    ("readonly database", StoreError, "the database is read-only; a store has to write its file and its directory"),
    ("read-only", StoreError, "the database is read-only; a store has to write to it"),
    ("is full", StoreError, "there is no room left for the database; make room and resume the runs by their ids"),
    ("unable to open", StoreError, "the database file can't be opened; its directory has to exist and be writable"),
    ("disk i/o error", StoreError, "the disk that holds the database failed"),
    ("is locked", StoreError, _LOCKED),
    ("no such table", SchemaError, "a table of the store is missing: the database was changed while it was in use"),
)
_UNKNOWN = ("", StoreError, "nothing is known to be written; the run can be resumed by its id")


def translate(error: BaseException, doing: str, run_id: str | None = None) -> StoreError:
    """The `StoreError` that tells of a database's error, with it as its cause.

    Args:
        error: What the driver or SQLAlchemy raised; a `StoreError` is returned as it is.
        doing: What was being done, to begin the message with.
        run_id: The run concerned.
    """
    if isinstance(error, StoreError):
        return error
    text = str(getattr(error, "orig", None) or error)
    fitting = (each for each in _TOLD if each[0] in text.lower())
    _, kind, advice = next(fitting, _UNKNOWN)
    told = kind(f"{doing}: {advice} (the database says: {text})", run_id=run_id)
    told.__cause__ = error
    return told
