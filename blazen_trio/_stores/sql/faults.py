"""Translation of database errors into `StoreError`: what happened, and what to do about it."""

from __future__ import annotations

from blazen_trio._stores.sql.troubles import (
    RECONNECT_FOR,
    OutOfReachError,
    UnclearCommitError,
    code_of,
    is_busy,
    is_crowded,
    is_deadlock,
    is_lost,
)
from blazen_trio.errors import SchemaError, StoreError

__all__ = ["translate", "translate_in_callers"]

_Told = tuple[type[StoreError], str]

_NO_SQLITE: _Told = (
    SchemaError,
    "the file is not an SQLite database, or is an encrypted one; use another file",
)
_READ_ONLY: _Told = (StoreError, "the database is read-only, but a store has to write to it")
_FULL: _Told = (
    StoreError,
    "the database has no space left; free some and resume the runs by their ids",
)
_CHANGED: _Told = (
    SchemaError,
    "a table of the store is missing: the database was changed while it was in use",
)
_UNREACHABLE: _Told = (
    StoreError,
    "no server answers there; check that it runs, and that the URL's host and port are right",
)
_UNKNOWN_HOST: _Told = (StoreError, "the URL's host is unknown; check its spelling")
_REFUSED: _Told = (
    StoreError,
    "the server refuses this user; check the URL's user and password",
)
_NO_DATABASE: _Told = (
    StoreError,
    "the server has no such database; create it first (CREATE DATABASE), without its tables",
)
_NOT_ALLOWED: _Told = (
    StoreError,
    "the user lacks a privilege; grant them all privileges on the store's tables",
)
_CROWDED: _Told = (
    StoreError,
    "the server has no connection left; raise its limit, or use a pooler",
)
_LOCKED: _Told = (
    StoreError,
    (
        "another program keeps the database locked. Nothing was written. Let it finish, "
        "or give open_store a longer busy_timeout="
    ),
)
_DEADLOCKED: _Told = (
    StoreError,
    (
        "the database ended this transaction to resolve a deadlock, each time that it was tried. "
        "Nothing was written; do it again"
    ),
)
# In a transaction of the caller's.
_THEIRS_DEADLOCKED: _Told = (
    StoreError,
    (
        "the database ended your transaction to resolve a deadlock with another. Roll it back, and "
        "do the whole transaction again"
    ),
)
_THEIRS_LOCKED: _Told = (
    StoreError,
    (
        "another transaction holds a lock that this needs. Nothing of this was written; continue "
        "without it, or roll back and do the whole transaction again"
    ),
)
_THEIRS_LATE: _Told = (
    StoreError,
    (
        "another connection is writing to the file, or has written since your transaction started "
        "to read. Roll back and do the whole transaction again; start a transaction that reads "
        "before it writes with BEGIN IMMEDIATE, which waits"
    ),
)
_LOST: _Told = (
    StoreError,
    f"the connection was lost, and could not be restored within {RECONNECT_FOR:g} s",
)
_POOL: _Told = (
    StoreError,
    (
        "the engine's pool has no connection left: all are in use. Give the engine a larger "
        "pool_size= (the store uses up to five), or a longer pool_timeout="
    ),
)
_TOO_LONG: _Told = (
    StoreError,
    "the server ended a statement that took too long. Give open_store a longer busy_timeout=",
)
_UNCLEAR: _Told = (
    StoreError,
    (
        "the connection was lost during the commit, and it is not known whether the commit was "
        "carried out: check before you do it again"
    ),
)
_UNKNOWN: _Told = (
    StoreError,
    "it is not known whether anything was written; the run can be resumed by its id",
)
_UNKNOWN_IN_A_LOOK: _Told = (StoreError, "the database failed unexpectedly")

# Errors of servers: PostgreSQL by SQLSTATE, MySQL and MariaDB by number.
_BY_CODE: dict[str | int | None, _Told] = {
    **dict.fromkeys(("28P01", "28000", 1045, 1698), _REFUSED),
    **dict.fromkeys(("3D000", 1049), _NO_DATABASE),
    **dict.fromkeys(("42501", 1044, 1142, 1143), _NOT_ALLOWED),
    **dict.fromkeys(("42P01", "42703", 1054, 1146), _CHANGED),
    **dict.fromkeys(("53300", 1040, 1203), _CROWDED),
    **dict.fromkeys(("53100", 1021, 1114), _FULL),
    **dict.fromkeys(("25006", 1290, 1792, 1836), _READ_ONLY),
    **dict.fromkeys(("57014", 1969, 3024), _TOO_LONG),
    1153: (
        StoreError,
        (
            "a payload is larger than the server accepts; raise its max_allowed_packet to at least "
            "twice the payload, and at least 16 MB"
        ),
    ),
}
# Errors without a code, of SQLite and of failed connections; the first text that fits counts.
_BY_TEXT: tuple[tuple[str, _Told], ...] = (
    ("file is not a database", _NO_SQLITE),
    ("file is encrypted", _NO_SQLITE),
    (
        "malformed",
        (
            StoreError,
            "the database file is damaged; restore it from a backup, or try sqlite3's .recover",
        ),
    ),
    (
        "readonly database",
        (
            StoreError,
            "the database is read-only, but a store has to write to its file and its directory",
        ),
    ),
    ("read-only", _READ_ONLY),
    ("is full", _FULL),
    (
        "unable to open",
        (
            StoreError,
            "the database file can't be opened; its directory must exist and be writable",
        ),
    ),
    ("disk i/o error", (StoreError, "the disk that holds the database failed")),
    ("no such table", _CHANGED),
    ("authentication failed", _REFUSED),
    ("no password supplied", _REFUSED),
    ("no pg_hba.conf entry", _REFUSED),
    ("fatal:  role ", _REFUSED),
    ("fatal:  database ", _NO_DATABASE),
    ("too many clients", _CROWDED),
    ("too many connections", _CROWDED),
    ("resolve host", _UNKNOWN_HOST),
    ("name or service not known", _UNKNOWN_HOST),
    ("connection refused", _UNREACHABLE),
    ("can't connect", _UNREACHABLE),
    ("no such file or directory", _UNREACHABLE),  # a server's socket
    ("connection timeout expired", _UNREACHABLE),
)


def translate(
    error: BaseException, doing: str, run_id: str | None = None, *, writing: bool = True
) -> StoreError:
    """Return a `StoreError` for a database's error, with that error as its cause.

    Args:
        error: The error of the driver or SQLAlchemy; a `StoreError` is returned as it is.
        doing: The start of the message: what was being done.
        run_id: The run concerned.
        writing: Whether the operation was to write anything.
    """
    if isinstance(error, StoreError):
        return error
    known = _told(error, _text(error).lower())
    unknown = _UNKNOWN if writing else _UNKNOWN_IN_A_LOOK
    return _made(error, doing, run_id, known or unknown)


def translate_in_callers(error: BaseException, run_id: str | None = None) -> StoreError:
    """Return a `StoreError` for a lock or a deadlock in a transaction of the caller's own."""
    if is_deadlock(error):
        told = _THEIRS_DEADLOCKED
    else:
        told = _THEIRS_LATE if code_of(error) is None else _THEIRS_LOCKED
    return _made(error, f"nothing of run {run_id!r} was written", run_id, told)


def _text(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error)


def _made(error: BaseException, doing: str, run_id: str | None, what: _Told) -> StoreError:
    kind, advice = what
    text = _text(error)
    told = kind(f"{doing}: {advice} (the database says: {' '.join(text.split())})", run_id=run_id)
    told.__cause__ = error
    return told


def _told(error: BaseException, text: str) -> _Told | None:
    if isinstance(error, UnclearCommitError):
        return _UNCLEAR
    if isinstance(error, OutOfReachError):
        return _LOST
    if is_crowded(error):
        return _POOL
    if is_busy(error):
        return _DEADLOCKED if is_deadlock(error) else _LOCKED
    by_code = _BY_CODE.get(code_of(error))
    if by_code is not None:
        return by_code
    fitting = (told for part, told in _BY_TEXT if part in text)
    return next(fitting, _LOST if is_lost(error) else None)
