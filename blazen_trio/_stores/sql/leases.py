"""Who holds a lease: a process, told so exactly that its death is known at once on the same host."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Holder"]

_DEAD_STATES = ("Z", "X", "x")


@attrs.frozen
class Holder:
    """A process. What is not known of it is empty or 0; where anything is not, only the lease's time tells of its death.

    Attributes:
        host: The host's name, for people.
        boot: The id of the host's present boot.
        pid_namespace: The namespace in which `pid` counts.
        pid: Its process id.
        started: When it was started, in clock ticks since the boot; tells it from a later process with its `pid`.
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
        """Whether it is certain that this process has ended. `False` where that can't be told from here."""
        if not (self.boot and self.pid_namespace and self.started):
            return False
        if (self.boot, self.pid_namespace) != (_boot(), _pid_namespace()):
            return False
        if not _sees_processes():
            return False
        found = _look(self.pid)
        return found is None or found[0] in _DEAD_STATES or found[1] != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


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
    """The state and the start of a process (in ticks since the boot), or `None` where there is none."""
    text = _read(f"/proc/{pid}/stat")
    # Its second field is the program's name in brackets, which may hold anything.
    fields = text[text.rfind(")") + 1 :].split()
    return (fields[0], int(fields[19])) if len(fields) > 19 else None  # proc(5) counts the fields


def _sees_processes() -> bool:
    """Whether `/proc` shows the processes of other users too: mounted with `hidepid` it would show them as missing."""
    return _look(1) is not None
