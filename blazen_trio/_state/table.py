"""Which journal entries may change a run's status, from what to what: data that the code checks and the diagram is made of."""

from __future__ import annotations

from typing import Final

from blazen_trio._state.status import RunStatus

__all__ = ["TRANSITIONS", "check", "mermaid"]

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
