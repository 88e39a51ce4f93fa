"""The lending of slots: a step that waits for its own runtime gives up its run's slot meanwhile.

Otherwise all slots could be held by steps that wait for other runs of the same runtime. Those runs
would never get a slot, and the runtime would be deadlocked.
"""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from blazen_trio._dispatch.core import RunCore

__all__ = ["belongs_to", "lending_slot"]

T = TypeVar("T")

_current: contextvars.ContextVar[str] = contextvars.ContextVar("blazen_trio run")
"""The id of the run that this task belongs to."""


def belongs_to(run_id: str) -> None:
    """Mark the present context: tasks started in it belong to this run."""
    _current.set(run_id)


async def lending_slot(driving: Mapping[str, RunCore], wait: Callable[[], Awaitable[T]]) -> T:
    """Wait for something of a runtime without holding one of its slots.

    If the caller is a step of one of these runs, it continues only once its run has a slot again.
    The run gets one before any run that starts.

    Args:
        driving: The runs that the runtime drives, by id.
        wait: Called and awaited without a slot.
    """
    core = driving.get(_current.get(""))
    if core is None or not core.control.accepts:
        return await wait()
    core.give_slot()
    try:
        return await wait()
    finally:
        core.queue_for_slot()
        # A cancelled caller does not wait for the slot; its run gets it when its turn comes.
        await core.changes.wait_until(  # noqa: ASYNC102
            lambda: core.has_slot or not core.control.accepts
        )
