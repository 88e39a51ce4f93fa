"""The statuses of a run, and the transitions between them that each kind of entry may make.

The code checks transitions against this table, and the diagram in the docs is made from it.
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
    """The status of a run. It equals its text: `run.status == "waiting"`.

    The last four mean that the run has *ended*.
    """

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
        """True once the run has ended. Nothing more happens to it unless it is resumed."""
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
"""The statuses that each kind of entry may change, and the resulting status. Other kinds leave the
status unchanged. So do `received`, `answered` and `due` in a run that is not waiting."""


def check(kind: str, before: RunStatus, after: RunStatus) -> None:
    """Check that an entry of this kind may change the status in this way.

    Raises:
        AssertionError: It may not. This is a bug, or the journal was tampered with.
    """
    sources, target = TRANSITIONS.get(kind, ((), None))
    if before not in sources or after is not target:
        msg = f"a {kind!r} entry can't change a run's status from {before.value} to {after.value}"
        raise AssertionError(msg)


def mermaid() -> str:
    """Return the transitions as a Mermaid state diagram."""
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
