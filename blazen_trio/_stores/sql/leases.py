"""Leases, their holders, and the conditions under which runs are released and taken.

A holder is identified so precisely that the death of its process is known at once on its host.
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
from blazen_trio._stores.sql.schema import STATUS_CODES, lease, runs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from blazen_trio._stores.sql.databases.base import Database

__all__ = [
    "NEVER",
    "Held",
    "Holder",
    "Sights",
    "can_go_on",
    "depose",
    "is_due",
    "may_be_taken",
    "of_the_lease",
    "other_leases",
]


_DEAD_STATES: Final = ("Z", "X", "x")
_STOPPED_STATES: Final = ("T", "t")
_LONGEST_BLINK: Final = 1.0
"""Seconds."""
_PATIENCE_WITH_THE_LIVING: Final = 20
"""Multiple of the lease time for which a process that is seen alive on this host may be silent."""


@attrs.frozen
class Holder:
    """A process that holds a lease. Unknown fields are empty or 0.

    If any field is unknown, the death of the process is only known by the lease's time.

    Attributes:
        host: The host's name, for people.
        boot: The id of the host's current boot.
        pid_namespace: The namespace in which `pid` is valid.
        pid: Its process id.
        started: When it was started, in clock ticks since the boot; distinguishes it from a later
            process with the same `pid`.
    """

    host: str
    boot: str
    pid_namespace: str
    pid: int
    started: int

    @classmethod
    def this_process(cls) -> Holder:
        """Return the holder for this process."""
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
        """Return the holder named by a lease's row."""
        return cls(**{field.name: row[field.name] for field in attrs.fields(cls)})

    def known_dead(self) -> bool:
        """Return whether the process has certainly ended; `False` if this process can't tell."""
        return self._state() in _DEAD_STATES

    def known_to_run(self) -> bool:
        """Return whether the holder is another process that is certainly alive and not stopped.

        `False` if this process can't tell. It is also `False` for this process itself: another
        opening in it that is silent can't be waiting for the GIL, since the caller gets it.
        """
        if self.pid == os.getpid():
            return False
        state = self._state()
        return bool(state) and state not in (*_DEAD_STATES, *_STOPPED_STATES)

    def _state(self) -> str:
        """Return the state as in proc(5): X if the process has ended, empty if it is unknown.

        The process id alone is not enough: it is valid in its namespace only, belongs to another
        process after a reboot, and is reused.
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
    """An expired lease that has not changed. `seen` and `last`: seconds by this opening's clock."""

    mark: tuple[int, int]
    last: float
    seen: float = 0.0


class Sights:
    """One opening's view of which leases of others may be declared dead. Used by any thread.

    A lease that has expired by the database's clock is not proof of death: the clock may have
    jumped, or the database was away, and no process could renew anything. An opening therefore
    declares a lease dead only if it has itself seen it expired and unchanged for a whole lease
    time. A live holder has renewed it by then. The interval between two sights counts for at most a
    part of that time, since the database may have been away in between.

    A process that is seen alive on this host gets more time, because its silence has a likelier
    cause: a step that keeps the GIL, so that the writer can't renew anything. Another process that
    took the run over would run the same step, and fall silent too.

    Args:
        lease_ttl: How long a lease lasts, in seconds.
        clock: A monotonic clock of this process, in seconds.
    """

    def __init__(self, lease_ttl: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease_ttl = lease_ttl
        self._longest = max(lease_ttl / 3, _LONGEST_BLINK)
        self._clock = clock
        self._seen: dict[int, _Sight] = {}
        self._lock = threading.Lock()

    def judge(self, row: Mapping[Any, Any]) -> float:
        """Return in how many seconds this lease may be declared dead if it stays unchanged.

        0.0 means now; infinity means that its holder is alive.

        Args:
            row: The lease's row, with a column that says whether it has `expired`.
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
        """Forget all leases but these, the only ones that still exist."""
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
    """Return the state and the start of a process (in ticks since the boot), or `None`."""
    text = _read(f"/proc/{pid}/stat")
    # Its second field is the program's name in brackets, which may contain anything.
    fields = text[text.rfind(")") + 1 :].split()
    return (fields[0], int(fields[19])) if len(fields) > 19 else None  # proc(5) counts the fields


def _sees_processes() -> bool:
    """Return whether `/proc` also shows processes of other users.

    If it is mounted with `hidepid`, they look as if they were missing.
    """
    return _look(1) is not None


# Literals, since statements that are compiled once have no parameters but those of each use.
_RUNNABLE: list[sa.ColumnElement[Any]] = [
    sa.literal_column(str(STATUS_CODES[status])) for status in (RunStatus.QUEUED, RunStatus.RUNNING)
]
_WAITING: sa.ColumnElement[Any] = sa.literal_column(str(STATUS_CODES[RunStatus.WAITING]))
_TAKEN_BY_WORKERS = [*_RUNNABLE, _WAITING]

NEVER = -1
"""The `wake` of a run that only an inbox message can wake."""


def of_the_lease(database: Database, lease_id: int, *, crashed: bool) -> sa.Update:
    """Return an UPDATE that releases all runs of a lease.

    What a waiting run waits for is unknown here, so the next worker that polls takes it.
    """
    now = database.now()
    wake = sa.case((runs.c.status.in_(_TAKEN_BY_WORKERS), now), else_=sa.null())
    values: dict[str, Any] = {"owner": None, "wake": wake}
    if crashed:
        values["crashes"] = runs.c.crashes + sa.case((runs.c.status.in_(_RUNNABLE), 1), else_=0)
    return sa.update(runs).where(runs.c.owner == lease_id).values(values)


def is_due(database: Database, workflow: str) -> sa.ColumnElement[bool]:
    """Return the condition that a run's time has come and its status is one that workers take."""
    # `+ 0` keeps planners from using the index on the status: runs are found by their time.
    status = runs.c.status + sa.literal_column("0")
    time = database.statement_time()
    return (runs.c.workflow == workflow) & (runs.c.wake <= time) & status.in_(_TAKEN_BY_WORKERS)


def can_go_on(database: Database, workflow: str, suspects: int | None) -> sa.ColumnElement[bool]:
    """Return the condition that a worker may take a run because its time has come."""
    found = is_due(database, workflow)
    return found if suspects is None or suspects > 0 else found & (runs.c.crashes < SUSPECT)


def may_be_taken(database: Database, workflows: Sequence[str]) -> sa.ColumnElement[bool]:
    """Return the condition that a worker may take a run if it has inbox messages."""
    return (
        runs.c.owner.is_(None)
        & runs.c.workflow.in_(workflows)
        & runs.c.status.in_(_TAKEN_BY_WORKERS)
        & (runs.c.hold <= database.statement_time())
    )


def other_leases(database: Database, lease_id: int | None) -> sa.Select[Any]:
    """Return a query for others' leases that are not declared dead, and whether each expired."""
    expired = (lease.c.expires < database.now()).label("expired")
    found = sa.select(lease, expired).where(lease.c.state == 1)
    return found if lease_id is None else found.where(lease.c.lease_id != lease_id)


@attrs.frozen
class Held:
    """A lease that can't be declared dead.

    Attributes:
        holder: Its holder, in words.
        seconds: In how many seconds it can be declared dead if it stays unchanged; infinity: its
            holder is alive.
    """

    holder: str
    seconds: float = float("inf")


def depose(
    connection: sa.Connection, database: Database, sights: Sights, lease_id: int
) -> Held | None:
    """Declare a lease dead if that is allowed, and orphan all its runs.

    From then on, the holder's fence (`renew`, in `databases/`) finds no live lease. If this is not
    allowed, returns the holder.
    """
    clock = database.now()
    query = sa.select(lease, (lease.c.expires < clock).label("expired")).where(
        lease.c.lease_id == lease_id
    )
    row = connection.execute(query).mappings().first()
    if row is not None and row["state"] == 1:
        holder = Holder.of_row(row)
        seconds = sights.judge(row)
        if seconds > 0:
            return Held(str(holder), seconds)
        # A dead holder's transaction ends in a moment, so wait for its lock. A frozen holder's
        # transaction keeps the lock until the server ends it: skip the lease instead.
        known_dead = holder.known_dead()
        row_of_it = sa.select(lease.c.lease_id).where(lease.c.lease_id == lease_id)
        # SQLite ignores this: it has one lock, which we already hold.
        locked = row_of_it.with_for_update(skip_locked=not known_dead)
        if connection.execute(locked).first() is None:
            return Held(str(holder))
        # Its holder may have renewed it since the first query, which changes `batch`: it is alive.
        unchanged = (
            (lease.c.lease_id == lease_id) & (lease.c.state == 1) & (lease.c.batch == row["batch"])
        )
        if connection.execute(sa.update(lease).where(unchanged).values(state=0)).rowcount != 1:
            return Held(str(holder))
    # Also if the lease was gone already: a run that still names it has no driver.
    connection.execute(of_the_lease(database, lease_id, crashed=True))
    return None
