"""What a database's error means: a lock that passes, a connection that is lost, a record that is at fault.

Servers name their errors by codes (PostgreSQL by SQLSTATE, MySQL by number), SQLite and broken connections only by texts.
"""

from __future__ import annotations

import time
from typing import Any

__all__ = [
    "RECONNECT_FOR",
    "Patience",
    "UnclearCommitError",
    "code_of",
    "is_busy",
    "is_duplicate",
    "is_lost",
    "is_record_fault",
]

RECONNECT_FOR = 10.0
"""For how many seconds a lost connection is tried again, from its loss on."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_LOCKS_WAITED_FOR = 3  # times, each as long as the database waits by itself

_BUSY = frozenset({"40001", "40P01", "55P03", 1205, 1213})
# Besides 08xxx (connections) and 57Pxx (the server is stopped, or has ended our session): 25P03, the session's
# transaction was idle for too long. Then MySQL's: unreachable, gone, shutting down, killed, idle for too long.
_LOST = frozenset({"25P03", 2002, 2003, 2006, 2013, 2055, 1053, 1080, 1152, *range(1158, 1162), 1927, 4031})
_LOST_CLASSES = ("08", "57P")


class UnclearCommitError(Exception):
    """A COMMIT was sent, and it can't be told whether it was carried out: so nothing of it may be done again."""


def code_of(error: BaseException) -> str | int | None:
    """What the server calls this error: a number or an SQLSTATE; `None` where it was not the server who raised it."""
    error = getattr(error, "orig", None) or error
    number = error.args[0] if error.args else None
    if isinstance(number, int) and not isinstance(error, OSError):
        return number
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return state if isinstance(state, str) else None


def is_busy(error: BaseException) -> bool:
    """Whether this is likely to pass: another connection holds a lock, or this one was chosen to end a deadlock."""
    text = str(error)
    return code_of(error) in _BUSY or "database is locked" in text or "database table is locked" in text


def is_lost(error: BaseException) -> bool:
    """Whether the connection is lost, or could not be made. What was not committed is rolled back then."""
    if getattr(error, "connection_invalidated", False):
        return True
    code = code_of(error)
    if code in _LOST or (isinstance(code, str) and code.startswith(_LOST_CLASSES)):
        return True
    raised = getattr(error, "orig", None) or error
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(raised).__mro__}
    # psycopg has no code for what it notices itself, and PyMySQL calls a connection that it has closed an interface.
    unnamed = kinds & {"psycopg.OperationalError", "psycopg2.OperationalError"} and code is None
    return bool(unnamed or "pymysql.InterfaceError" in kinds)


def is_duplicate(error: BaseException) -> bool:
    """Whether a row with this key is there already."""
    return "IntegrityError" in _kinds(error)


def is_record_fault(error: BaseException) -> bool:
    """Whether the fault lies in one of the records, so that the others can be written without it."""
    kinds = ("IntegrityError", "DataError", "ProgrammingError", "InterfaceError", "OverflowError")
    return not (is_lost(error) or _kinds(error).isdisjoint(kinds))


def _kinds(error: BaseException) -> set[str]:
    """The names of its classes, which the drivers have in common."""
    return {kind.__name__ for kind in type(error).__mro__}


class Patience:
    """How long to try something again: for a bounded time where connections are lost, a few times where locks are held."""

    def __init__(self, *, locks: int = _LOCKS_WAITED_FOR) -> None:
        self._locks = locks
        self._pause = _FIRST_PAUSE
        self._until: float | None = None

    def pause(self, error: BaseException) -> float | None:
        """For how many seconds to wait before the next attempt; `None` if this error is not worth one."""
        if is_busy(error):
            self._locks -= 1
            if self._locks <= 0:
                return None
        elif is_lost(error):
            now = time.monotonic()
            self._until = self._until or now + RECONNECT_FOR
            if now >= self._until:
                return None
        else:
            return None
        pause, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
        return pause

    def wait(self, error: Any) -> bool:
        """Wait in this thread before the next attempt; whether there is to be one."""
        pause = self.pause(error)
        if pause is not None:
            time.sleep(pause)
        return pause is not None
