"""A database's errors, told as ours: what happened, and what to do about it."""

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
    "this file is no SQLite database (or an encrypted one); name another file",
)
_READ_ONLY: _Told = (StoreError, "the database is read-only; a store has to write to it")
_FULL: _Told = (
    StoreError,
    "there is no room left for the database; make room and resume the runs by their ids",
)
_CHANGED: _Told = (
    SchemaError,
    "a table of the store is missing: the database was changed while it was in use",
)
_UNREACHABLE: _Told = (
    StoreError,
    "no server answers there; see that it runs, and that the URL's host and port are right",
)
_UNKNOWN_HOST: _Told = (StoreError, "the URL's host is not known; see that it is spelled right")
_REFUSED: _Told = (
    StoreError,
    "the server refuses this user; see that the URL's user and password are right",
)
_NO_DATABASE: _Told = (
    StoreError,
    "the server has no such database; create it first (CREATE DATABASE), its tables not",
)
_NOT_ALLOWED: _Told = (
    StoreError,
    "the user may not do this; grant them all rights on the store's tables",
)
_CROWDED: _Told = (
    StoreError,
    "the server has no connection left for us; raise its limit, or use a pooler",
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
        "the database has ended this transaction to resolve a deadlock with others, each time that "
        "it was tried. Nothing was written; do it again"
    ),
)
# In a transaction of the caller's.
_THEIRS_DEADLOCKED: _Told = (
    StoreError,
    (
        "the database has ended your transaction to resolve a deadlock with another. Roll it back, "
        "and do the whole transaction again"
    ),
)
_THEIRS_LOCKED: _Told = (
    StoreError,
    (
        "another transaction keeps locked what this needs. Nothing of this was written; go on "
        "without it, or roll back and do the whole transaction again"
    ),
)
_THEIRS_LATE: _Told = (
    StoreError,
    (
        "another connection writes to the file, or has written since your transaction began to "
        "read. Roll back and do the whole transaction again; let one that reads before it writes "
        "begin with BEGIN IMMEDIATE, which waits"
    ),
)
_LOST: _Told = (
    StoreError,
    f"the connection was lost, and it was not back after {RECONNECT_FOR:g} s",
)
_POOL: _Told = (
    StoreError,
    (
        "the engine's pool has no connection left: others keep them all. Give the engine a larger "
        "pool_size= (the store takes up to five), or a longer pool_timeout="
    ),
)
_TOO_LONG: _Told = (
    StoreError,
    "the server has ended a statement that took too long. Give open_store a longer busy_timeout=",
)
_UNCLEAR: _Told = (
    StoreError,
    (
        "the connection was lost in the middle of the commit, and whether that was carried out "
        "could not be found out: look before you do it again"
    ),
)
_UNKNOWN: _Told = (StoreError, "nothing is known to be written; the run can be resumed by its id")
_UNKNOWN_IN_A_LOOK: _Told = (StoreError, "the database failed in a way that nobody expected")

# What servers call it; PostgreSQL by SQLSTATE, MySQL and MariaDB by number.
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
            "a payload is larger than the server takes; raise its max_allowed_packet to twice the "
            "payload or more, and 16 MB at least"
        ),
    ),
}
# What is told without a code, by SQLite and by who fails to connect; the first that fits.
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
        (StoreError, "the database is read-only; a store has to write its file and its directory"),
    ),
    ("read-only", _READ_ONLY),
    ("is full", _FULL),
    (
        "unable to open",
        (
            StoreError,
            "the database file can't be opened; its directory has to exist and be writable",
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
    """The `StoreError` that tells of a database's error, with it as its cause.

    Args:
        error: What the driver or SQLAlchemy raised; a `StoreError` is returned as it is.
        doing: What was being done, to begin the message with.
        run_id: The run concerned.
        writing: Whether anything was to be written.
    """
    if isinstance(error, StoreError):
        return error
    known = _told(error, _text(error).lower())
    unknown = _UNKNOWN if writing else _UNKNOWN_IN_A_LOOK
    return _made(error, doing, run_id, known or unknown)


def translate_in_callers(error: BaseException, run_id: str | None = None) -> StoreError:
    """The same of a lock, or a deadlock, in a transaction of the caller's own."""
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
