"""Classification of database errors, and how long to retry after them.

An error may be a lock that passes, a lost connection, or a record at fault. Servers identify their
errors by codes (PostgreSQL by SQLSTATE, MySQL by number), SQLite and broken connections only by
texts.
"""

from __future__ import annotations

import random
import time
from typing import Any, Final

__all__ = [
    "ANSWER_WITHIN",
    "CONNECT_WITHIN",
    "RECONNECT_FOR",
    "OutOfReachError",
    "Patience",
    "Reach",
    "UnclearCommitError",
    "code_of",
    "is_busy",
    "is_crowded",
    "is_deadlock",
    "is_duplicate",
    "is_lost",
    "is_record_fault",
]

CONNECT_WITHIN: Final = 5
"""Seconds within which a server must accept a connection; otherwise it is out of reach."""

ANSWER_WITHIN: Final = 5.0
"""For how many seconds a server may be silent during a query, plus the time it may wait for locks.

After that, its connection is shut.
"""

RECONNECT_FOR = 10.0
"""For how many seconds an unreachable database is tried again, from the first unanswered query."""

_REST: Final = 1.0
"""Seconds without attempts after waiting for a silent database ended: it is probably still silent.
"""
_SILENCE: Final = 1.0
"""A failed attempt that took at least this many seconds was silence, not a refusal."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_LOCKS_WAITED_FOR = 3  # attempts, in each of which the database itself waits

_DEADLOCKS_RESOLVED = 20  # attempts: a deadlock ends at once for one of its transactions
_LONGEST_PAUSE_OF_A_DEADLOCK = 0.05

_DEADLOCKS = frozenset({"40001", "40P01", 1213})
_BUSY = _DEADLOCKS | {"55P03", 1205}
# In addition to 08xxx (connections) and 57Pxx (the server is stopped, or ended our session): 25P03,
# the session's transaction was idle for too long. Then the codes of MySQL: unreachable, gone,
# shutting down, killed, idle for too long.
_LOST_NUMBERS = (2002, 2003, 2006, 2013, 2055, 1053, 1080, 1152, *range(1158, 1162), 1927, 4031)
_LOST = frozenset({"25P03", *_LOST_NUMBERS})
_LOST_CLASSES = ("08", "57P")


class OutOfReachError(Exception):
    """The database was out of reach for too long a moment ago, and was not tried again."""


class UnclearCommitError(Exception):
    """A COMMIT has an unknown outcome, so its transaction must not be repeated."""


def code_of(error: BaseException) -> str | int | None:
    """Return the server's code for this error, a number or an SQLSTATE.

    `None` if the error did not come from a server.
    """
    error = getattr(error, "orig", None) or error
    number = error.args[0] if error.args else None
    if isinstance(number, int) and not isinstance(error, OSError):
        return number
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return state if isinstance(state, str) else None


def is_busy(error: BaseException) -> bool:
    """Return whether the error is likely to pass: a lock of another connection, or a deadlock."""
    text = str(error)
    if "database is locked" in text or "database table is locked" in text:
        return True
    return code_of(error) in _BUSY


def is_deadlock(error: BaseException) -> bool:
    """Return whether the database rolled back the whole transaction to end a deadlock.

    It can be done again at once.
    """
    return code_of(error) in _DEADLOCKS


def is_lost(error: BaseException) -> bool:
    """Return whether the connection is lost, or could not be made.

    Anything that was not committed is then rolled back.
    """
    if getattr(error, "connection_invalidated", False) or is_crowded(error):
        return True
    code = code_of(error)
    if code in _LOST or (isinstance(code, str) and code.startswith(_LOST_CLASSES)):
        return True
    raised = getattr(error, "orig", None) or error
    bases = type(raised).__mro__
    kinds = {f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in bases}
    # psycopg has no code for errors that it detects itself, and PyMySQL raises InterfaceError for a
    # connection that it has closed.
    unnamed = kinds & {"psycopg.OperationalError", "psycopg2.OperationalError"} and code is None
    return bool(unnamed or "pymysql.InterfaceError" in kinds)


def is_crowded(error: BaseException) -> bool:
    """Return whether an engine's pool had no connection left within its timeout."""
    return type(error).__name__ == "TimeoutError" and type(error).__module__ == "sqlalchemy.exc"


def is_duplicate(error: BaseException) -> bool:
    """Return whether a row with this key already exists."""
    return "IntegrityError" in _kinds(error)


def is_record_fault(error: BaseException) -> bool:
    """Return whether one record is at fault, so that the others can be written without it."""
    kinds = ("IntegrityError", "DataError", "ProgrammingError", "InterfaceError", "OverflowError")
    return not (is_lost(error) or _kinds(error).isdisjoint(kinds))


def _kinds(error: BaseException) -> set[str]:
    """Return the names of the error's classes, which are the same in all drivers."""
    return {kind.__name__ for kind in type(error).__mro__}


class Reach:
    """Records since when the database has been out of reach of an opening.

    An outage is waited for once, not by each batch anew: once it has lasted too long, each batch
    makes one attempt, and right after a silence none does. So answering many waiters one after the
    other, and leaving the store's block, takes about as long as answering one of them.

    Attributes:
        since: When the first query was sent that got no answer; `None` while the database answers.
    """

    def __init__(self) -> None:
        self.since: float | None = None
        self._told: float | None = None
        self._silent: float | None = None

    def answered(self) -> None:
        """Note that the database has answered."""
        self.since = self._told = self._silent = None

    def give_up(self, *, told: bool) -> None:
        """Note that waiting for a silent database ended, and whether a waiter was told."""
        self._silent = time.monotonic()
        if told:
            self._told = self._silent

    def check(self) -> None:
        """Refuse to wait again for a database that was silent until a moment ago.

        Raises:
            OutOfReachError: It was silent, and a waiter was told so a moment ago.
        """
        if self._told is not None and time.monotonic() - self._told < _REST:
            raise OutOfReachError("it did not answer a moment ago, and was not tried again")

    @property
    def silent(self) -> bool:
        """Indicates that waiting for the silent database ended recently, with no answer since."""
        return self._silent is not None and time.monotonic() - self._silent < RECONNECT_FOR


class Patience:
    """Decides how long to retry an operation, starting now.

    If the database is out of reach, for a bounded time. If a lock is held, a few times, in each of
    which the database waits. After a deadlock, more often, since the database ends one without a
    wait.

    Args:
        reach: The opening's record of outages: an outage that others have waited for is not waited
            for again.
        locks: How often to try if locks are held.
        waited_for: Whether a caller waits for this, and will be told about a silence.
    """

    def __init__(
        self,
        reach: Reach | None = None,
        *,
        locks: int = _LOCKS_WAITED_FOR,
        waited_for: bool = True,
    ) -> None:
        self._reach = Reach() if reach is None else reach
        self._locks = locks
        self._deadlocks = _DEADLOCKS_RESOLVED
        self._waited_for = waited_for
        self._began = self._tried = time.monotonic()
        self._pause = _FIRST_PAUSE

    def pause(self, error: BaseException) -> float | None:
        """Return the seconds to wait before the next attempt; `None`: don't retry."""
        if is_deadlock(error):
            self._deadlocks -= 1
            # A random length separates two transactions that would meet again and again.
            pause = random.random() * _LONGEST_PAUSE_OF_A_DEADLOCK
            return pause if self._deadlocks > 0 else None
        if is_busy(error):
            self._locks -= 1
            if self._locks <= 0:
                return None
        elif not is_lost(error) or self._is_out_of_reach():
            return None
        pause, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
        self._tried = time.monotonic() + pause
        return pause

    def _is_out_of_reach(self) -> bool:
        """Return whether the outage has lasted for too long."""
        reach, now = self._reach, time.monotonic()
        if reach.since is None:
            # Always make a second attempt: if something on the network has forgotten the old
            # connection, a new one ends the silence at once.
            reach.since = self._began
            return False
        if now < reach.since + RECONNECT_FOR:
            return False
        if now - self._tried >= _SILENCE:
            reach.give_up(told=self._waited_for)
        return True

    def wait(self, error: Any) -> bool:
        """Wait in this thread before the next attempt. Returns whether to make one."""
        pause = self.pause(error)
        if pause is not None:
            time.sleep(pause)
        return pause is not None
