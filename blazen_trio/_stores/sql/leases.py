"""Leases: who holds one, a process, told so exactly that its host knows at once that it has died; when
a run is looked at that nobody drives; and by whom it is taken.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import sqlalchemy as sa

from blazen_trio._state.status import RunStatus
from blazen_trio._stores.protocol import SUSPECT
from blazen_trio._stores.sql import dialects
from blazen_trio._stores.sql.schema import STATUS_CODES, lease, runs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

__all__ = [
    "NEVER",
    "Holder",
    "Sights",
    "can_go_on",
    "is_due",
    "may_be_taken",
    "of_the_lease",
    "other_leases",
    "wake_when_given_back",
]


_DEAD_STATES: Final = ("Z", "X", "x")
_STOPPED_STATES: Final = ("T", "t")
_LONGEST_BLINK: Final = 1.0
"""Seconds."""
_PATIENCE_WITH_THE_LIVING: Final = 20
"""Times the lease's, for which a process may be silent that is seen alive on this host."""


@attrs.frozen
class Holder:
    """A process. What is not known of it is empty or 0; where anything is not, only the lease's
    time tells of its death.

    Attributes:
        host: The host's name, for people.
        boot: The id of the host's present boot.
        pid_namespace: The namespace in which `pid` counts.
        pid: Its process id.
        started: When it was started, in clock ticks since the boot; tells it from a later process
            with its `pid`.
    """

    host: str
    boot: str
    pid_namespace: str
    pid: int
    started: int

    @classmethod
    def this_process(cls) -> Holder:
        """This process."""
        pid = os.getpid()
        found = _look(pid)
        return cls(
            host=socket.gethostname()[:255],
            boot=_boot(),
            pid_namespace=_pid_namespace(),
            pid=pid,
            started=found[1] if found else 0,
        )

    @classmethod
    def of_row(cls, row: Mapping[Any, Any]) -> Holder:
        """The one named by a lease's row."""
        return cls(**{field.name: row[field.name] for field in attrs.fields(cls)})

    def known_dead(self) -> bool:
        """Whether it is certain that this process has ended. `False` where that can't be told from
        here.
        """
        return self._state() in _DEAD_STATES

    def known_to_run(self) -> bool:
        """Whether it is certain that this process is alive, and was not stopped; and it is another
        one. `False` where that can't be told from here.

        An opening of this very process has no excuse: whoever asks has the GIL, and so could it.
        """
        if self.pid == os.getpid():
            return False
        state = self._state()
        return bool(state) and state not in (*_DEAD_STATES, *_STOPPED_STATES)

    def _state(self) -> str:
        """Its state, as proc(5) calls it; X where it has ended, nothing where that can't be told.

        Its number tells little: it counts in its namespace, is another's in another boot, and is
        given again.
        """
        if not (self.boot and self.pid_namespace and self.started):
            return ""
        if (self.boot, self.pid_namespace) != (_boot(), _pid_namespace()):
            return ""
        if not _sees_processes():
            return ""
        found = _look(self.pid)
        return "X" if found is None or found[1] != self.started else found[0]

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@attrs.define
class _Sight:
    """An expired lease that stays as it is. `seen` and `last`: seconds, of this opening's own
    clock.
    """

    mark: tuple[int, int]
    last: float
    seen: float = 0.0


class Sights:
    """Who among the others may be declared dead, as one opening knows it. Used by any thread.

    That a lease has expired by the database's clock says little: the clock may have jumped, or the
    database was away, and nobody could renew anything. So an opening declares a lease dead only if
    it has itself seen it expired and unchanged for a whole lease's time. Whoever lives has renewed
    it by then. Between two sights no more counts than a part of that time, since the database may
    have been away between them.

    A process that is seen alive on this host is given more time, as there is a better explanation
    for its silence than its death: a step that keeps the GIL, so that its writer can't renew
    anything. Another process that took the run over would do the same step, and fall silent too.

    Args:
        lease_ttl: How long a lease lasts, in seconds.
        clock: Seconds that pass in this process, whatever is done to the host's clock.
    """

    def __init__(self, lease_ttl: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease_ttl = lease_ttl
        self._longest = max(lease_ttl / 3, _LONGEST_BLINK)
        self._clock = clock
        self._seen: dict[int, _Sight] = {}
        self._lock = threading.Lock()

    def judge(self, row: Mapping[Any, Any]) -> float:
        """In how many seconds this lease may be declared dead, if nothing is heard of its holder
        until then: 0.0 is now, and infinity tells that its holder lives.

        Args:
            row: The lease's, with whether it has `expired`.
        """
        holder = Holder.of_row(row)
        if holder.known_dead():
            return 0.0
        lease_id, mark = row["lease_id"], (row["expires"], row["batch"])
        with self._lock:
            if not row["expired"]:
                self._seen.pop(lease_id, None)
                return float("inf")
            now = self._clock()
            sight = self._seen.get(lease_id)
            if sight is None or sight.mark != mark:
                sight = self._seen[lease_id] = _Sight(mark, now)
            sight.seen += min(now - sight.last, self._longest)
            sight.last = now
            if sight.seen < self._lease_ttl * _PATIENCE_WITH_THE_LIVING and holder.known_to_run():
                return float("inf")
            return max(0.0, self._lease_ttl - sight.seen)

    def keep(self, lease_ids: Collection[int]) -> None:
        """Forget all leases but these, which are all that there are."""
        with self._lock:
            for gone in self._seen.keys() - lease_ids:
                del self._seen[gone]


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _boot() -> str:
    return _read("/proc/sys/kernel/random/boot_id")[:64]


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())[:64]
    except OSError:
        return ""


def _look(pid: int) -> tuple[str, int] | None:
    """The state and the start of a process (in ticks since the boot), or `None` where there is
    none.
    """
    text = _read(f"/proc/{pid}/stat")
    # Its second field is the program's name in brackets, which may hold anything.
    fields = text[text.rfind(")") + 1 :].split()
    return (fields[0], int(fields[19])) if len(fields) > 19 else None  # proc(5) counts the fields


def _sees_processes() -> bool:
    """Whether `/proc` shows the processes of other users too: mounted with `hidepid` it would show
    them as missing.
    """
    return _look(1) is not None


# Written out, since statements that are compiled once have no parameters but those of each use.
_RUNNABLE: list[sa.ColumnElement[Any]] = [
    sa.literal_column(str(STATUS_CODES[status])) for status in (RunStatus.QUEUED, RunStatus.RUNNING)
]
_WAITING: sa.ColumnElement[Any] = sa.literal_column(str(STATUS_CODES[RunStatus.WAITING]))
_TAKEN_BY_WORKERS = [*_RUNNABLE, _WAITING]
_INSTANT = sa.BigInteger()

NEVER = -1
"""The instant at which no worker looks at a run by itself."""


def wake_when_given_back(dialect: str, wake: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """The `wake` of a run that is given back as it should be: the one given, at once where that is
    NULL, and NULL where it is `NEVER`; in any case at some time where the run is runnable, and
    never where it is paused or has ended.
    """
    given, now = sa.cast(wake, _INSTANT), dialects.now(dialect)
    never: sa.ColumnElement[int] = sa.literal_column(str(NEVER))
    return sa.case(
        (runs.c.status.in_(_RUNNABLE), sa.func.coalesce(sa.func.nullif(given, never), now)),
        (runs.c.status == _WAITING, sa.func.nullif(sa.func.coalesce(given, now), never)),
        else_=sa.null(),
    )


def of_the_lease(dialect: str, lease_id: int, *, crashed: bool) -> sa.Update:
    """Give all runs of a lease back; a worker is to look what they wait for: nobody here knows."""
    now = dialects.now(dialect)
    wake = sa.case((runs.c.status.in_(_TAKEN_BY_WORKERS), now), else_=sa.null())
    values: dict[str, Any] = {"owner": None, "wake": wake}
    if crashed:
        values["crashes"] = runs.c.crashes + sa.case((runs.c.status.in_(_RUNNABLE), 1), else_=0)
    return sa.update(runs).where(runs.c.owner == lease_id).values(values)


def is_due(dialect: str, workflow: str) -> sa.ColumnElement[bool]:
    """A run whose time has come, and whose status is one that workers take."""
    status = runs.c.status + sa.literal_column(
        "0"
    )  # found by its time: no planner is to take the status's index
    time = dialects.statement_time(dialect)
    return (runs.c.workflow == workflow) & (runs.c.wake <= time) & status.in_(_TAKEN_BY_WORKERS)


def can_go_on(dialect: str, workflow: str, suspects: int | None) -> sa.ColumnElement[bool]:
    """A run whose time has come."""
    found = is_due(dialect, workflow)
    return found if suspects is None or suspects > 0 else found & (runs.c.crashes < SUSPECT)


def may_be_taken(dialect: str, workflows: Sequence[str]) -> sa.ColumnElement[bool]:
    """A run that may be taken if it has mail."""
    return (
        runs.c.owner.is_(None)
        & runs.c.workflow.in_(workflows)
        & runs.c.status.in_(_TAKEN_BY_WORKERS)
        & (runs.c.hold <= dialects.statement_time(dialect))
    )


def other_leases(dialect: str, lease_id: int | None) -> sa.Select[Any]:
    """The leases of others that were not declared dead, and whether each has expired."""
    expired = (lease.c.expires < dialects.now(dialect)).label("expired")
    found = sa.select(lease, expired).where(lease.c.state == 1)
    return found if lease_id is None else found.where(lease.c.lease_id != lease_id)
