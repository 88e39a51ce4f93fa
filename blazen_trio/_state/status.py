"""The statuses of a run, and which journal entries change them from what to what: data that the code
checks and the diagram is made of.
"""

from __future__ import annotations

import enum
from typing import Final

__all__ = [
    "TRANSITIONS",
    "RunStatus",
    "check",
    "mermaid",
]


class RunStatus(enum.StrEnum):
    """Where a run stands, equal to its text: `run.status == "waiting"`. *Ended* are the last four."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to the run unless it is resumed."""
        return self in _ENDED


_ENDED = frozenset(
    {RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.TIMED_OUT, RunStatus.CANCELLED}
)


_DRIVEN: Final = (RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.WAITING)
_TRIED_AGAIN: Final = (RunStatus.FAILED, RunStatus.TIMED_OUT, RunStatus.CANCELLED)

TRANSITIONS: Final[dict[str, tuple[tuple[RunStatus, ...], RunStatus]]] = {
    "started": ((RunStatus.QUEUED,), RunStatus.RUNNING),
    "completed": (_DRIVEN, RunStatus.COMPLETED),
    "failed": (_DRIVEN, RunStatus.FAILED),
    "timed_out": ((RunStatus.RUNNING,), RunStatus.TIMED_OUT),
    "cancelled": ((RunStatus.QUEUED, *_DRIVEN), RunStatus.CANCELLED),
    "paused": ((RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING), RunStatus.PAUSED),
    "unpaused": ((RunStatus.PAUSED,), RunStatus.RUNNING),
    "waiting": ((RunStatus.RUNNING,), RunStatus.WAITING),
    "received": ((RunStatus.WAITING,), RunStatus.RUNNING),
    "answered": ((RunStatus.WAITING,), RunStatus.RUNNING),
    "due": ((RunStatus.WAITING,), RunStatus.RUNNING),
    "woken": ((RunStatus.WAITING,), RunStatus.RUNNING),
    "resumed": ((RunStatus.QUEUED, *_DRIVEN, *_TRIED_AGAIN), RunStatus.RUNNING),
}
"""Kind of entry -> (the statuses that it may change, what to). All other kinds leave the status alone; `received`, `answered`
and `due` do so too in a run that is not waiting."""


def check(kind: str, before: RunStatus, after: RunStatus) -> None:
    """An entry of this kind is about to change the status.

    Raises:
        AssertionError: It may not: a bug, or a journal that somebody has changed.
    """
    sources, target = TRANSITIONS.get(kind, ((), None))
    if before not in sources or after is not target:
        msg = f"an entry {kind!r} can't make a run that is {before.value} {after.value}"
        raise AssertionError(msg)


def mermaid() -> str:
    """The transitions as a Mermaid state diagram."""
    arrows: dict[tuple[RunStatus, RunStatus], list[str]] = {}
    for kind, (sources, target) in TRANSITIONS.items():
        for source in sources:
            if source is not target:
                arrows.setdefault((source, target), []).append(kind)
    lines = ["stateDiagram-v2", f"    [*] --> {RunStatus.QUEUED.value}"]
    lines += [
        f"    {before.value} --> {after.value}: {', '.join(kinds)}"
        for (before, after), kinds in arrows.items()
    ]
    lines.append(f"    {RunStatus.COMPLETED.value} --> [*]")
    return "\n".join(lines)
