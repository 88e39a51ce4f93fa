"""What a database's error means: a lock that passes, a connection that is lost, a record that is at
fault.

Servers name their errors by codes (PostgreSQL by SQLSTATE, MySQL by number), SQLite and broken
connections only by texts.
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
"""Seconds within which a server takes a connection, or is out of reach."""

ANSWER_WITHIN: Final = 5.0
"""For how many seconds a server may be silent over a question, besides the time for which it may
wait for locks. After that its connection is shut.
"""

RECONNECT_FOR = 10.0
"""For how many seconds a database that is out of reach is tried again, from when it was asked what
it did not answer.
"""

_REST: Final = 1.0
"""Seconds after a silence was given up, in which nothing is tried: it would be silence again."""
_SILENCE: Final = 1.0
"""Seconds from which on an attempt that has failed was silence, rather than a refusal."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_LOCKS_WAITED_FOR = 3  # times, each as long as the database waits by itself

_DEADLOCKS_RESOLVED = 20  # times: each ends at once, for one of those who are in it
_LONGEST_PAUSE_OF_A_DEADLOCK = 0.05

_DEADLOCKS = frozenset({"40001", "40P01", 1213})
_BUSY = _DEADLOCKS | {"55P03", 1205}
# Besides 08xxx (connections) and 57Pxx (the server is stopped, or has ended our session): 25P03,
# the session's transaction was idle for too long. Then MySQL's: unreachable, gone, shutting down,
# killed, idle for too long.
_LOST_NUMBERS = (2002, 2003, 2006, 2013, 2055, 1053, 1080, 1152, *range(1158, 1162), 1927, 4031)
_LOST = frozenset({"25P03", *_LOST_NUMBERS})
_LOST_CLASSES = ("08", "57P")


class OutOfReachError(Exception):
    """The database was out of reach a moment ago, for too long, and was not tried again since."""


class UnclearCommitError(Exception):
    """A COMMIT was sent, and it can't be told whether it was carried out: so nothing of it may be
    done again.
    """


def code_of(error: BaseException) -> str | int | None:
    """What the server calls this error: a number or an SQLSTATE; `None` where it was not the server
    who raised it.
    """
    error = getattr(error, "orig", None) or error
    number = error.args[0] if error.args else None
    if isinstance(number, int) and not isinstance(error, OSError):
        return number
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return state if isinstance(state, str) else None


def is_busy(error: BaseException) -> bool:
    """Whether this is likely to pass: another connection holds a lock, or this one was chosen to
    end a deadlock.
    """
    text = str(error)
    if "database is locked" in text or "database table is locked" in text:
        return True
    return code_of(error) in _BUSY


def is_deadlock(error: BaseException) -> bool:
    """Whether the database has rolled the whole transaction back, so that others can go on with
    theirs: it can be done again at once.
    """
    return code_of(error) in _DEADLOCKS


def is_lost(error: BaseException) -> bool:
    """Whether the connection is lost, or could not be made. What was not committed is rolled back
    then.
    """
    if getattr(error, "connection_invalidated", False) or is_crowded(error):
        return True
    code = code_of(error)
    if code in _LOST or (isinstance(code, str) and code.startswith(_LOST_CLASSES)):
        return True
    raised = getattr(error, "orig", None) or error
    bases = type(raised).__mro__
    kinds = {f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in bases}
    # psycopg has no code for what it notices itself, and PyMySQL calls a connection that it has
    # closed an interface.
    unnamed = kinds & {"psycopg.OperationalError", "psycopg2.OperationalError"} and code is None
    return bool(unnamed or "pymysql.InterfaceError" in kinds)


def is_crowded(error: BaseException) -> bool:
    """Whether an engine's pool had no connection left, for as long as it is set to wait for one."""
    return type(error).__name__ == "TimeoutError" and type(error).__module__ == "sqlalchemy.exc"


def is_duplicate(error: BaseException) -> bool:
    """Whether a row with this key is there already."""
    return "IntegrityError" in _kinds(error)


def is_record_fault(error: BaseException) -> bool:
    """Whether one of the records is at fault, so that the others can be written without it."""
    kinds = ("IntegrityError", "DataError", "ProgrammingError", "InterfaceError", "OverflowError")
    return not (is_lost(error) or _kinds(error).isdisjoint(kinds))


def _kinds(error: BaseException) -> set[str]:
    """The names of its classes, which the drivers have in common."""
    return {kind.__name__ for kind in type(error).__mro__}


class Reach:
    """Tells since when one opening's database has been out of reach.

    An outage is waited out once, and not by each batch anew: where it has lasted for too long, each
    batch tries once, and right after a silence none does. So what is owed to many waiters, one
    after the other, and to the end of the store's block, takes about as long as one of them.

    Attributes:
        since: When it was asked first what it did not answer; `None` where it answers.
    """

    def __init__(self) -> None:
        self.since: float | None = None
        self._told: float | None = None
        self._silent: float | None = None

    def answered(self) -> None:
        """There it is."""
        self.since = self._told = self._silent = None

    def give_up(self, *, told: bool) -> None:
        """Its silence has been waited out for long enough; maybe somebody is told."""
        self._silent = time.monotonic()
        if told:
            self._told = self._silent

    def check(self) -> None:
        """Refuse to wait for a silence again that was waited for until a moment ago.

        Raises:
            OutOfReachError: It was.
        """
        if self._told is not None and time.monotonic() - self._told < _REST:
            raise OutOfReachError("it did not answer a moment ago, and was not asked again since")

    @property
    def silent(self) -> bool:
        """Whether it was last heard of by its silence, and that not long ago."""
        return self._silent is not None and time.monotonic() - self._silent < RECONNECT_FOR


class Patience:
    """How long to try something again, from now on.

    For a bounded time where the database is out of reach; a few times where locks are held, each of
    which the database has waited for; more often where it has resolved a deadlock at our cost,
    which it does without a wait.

    Args:
        reach: What the opening knows of its database: an outage that others have waited for is not
            waited for anew.
        locks: How often to try, where locks are held.
        waited_for: Whether somebody waits for this, and is told what is known of a silence.
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
        """For how many seconds to wait before the next attempt; `None` if none is worth it."""
        if is_deadlock(error):
            self._deadlocks -= 1
            # Of a random length: two that meet each other again and again go on apart.
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
        """Whether that has lasted for too long."""
        reach, now = self._reach, time.monotonic()
        if reach.since is None:
            # It is tried once again in any case: a new connection ends the silence at once where
            # something on the way there has forgotten the old one.
            reach.since = self._began
            return False
        if now < reach.since + RECONNECT_FOR:
            return False
        if now - self._tried >= _SILENCE:
            reach.give_up(told=self._waited_for)
        return True

    def wait(self, error: Any) -> bool:
        """Wait in this thread before the next attempt; whether there is to be one."""
        pause = self.pause(error)
        if pause is not None:
            time.sleep(pause)
        return pause is not None
