"""Steps that wait for their own runtime lend it their run's slot meanwhile.

Otherwise a step that waits for another run of its runtime would keep what it waits for from ever
going on, once all slots are taken by such steps.
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
    """What is begun in this context belongs to this run."""
    _current.set(run_id)


async def lending_slot(driving: Mapping[str, RunCore], wait: Callable[[], Awaitable[T]]) -> T:
    """Wait for something of a runtime, without a slot of it.

    Args:
        driving: The runs that the runtime drives, by id.
        wait: What is to be waited for. A step of one of these runs goes on only once its run has a
            slot again, which it gets before any run that begins.
    """
    core = driving.get(_current.get(""))
    if core is None or not core.control.accepts:
        return await wait()
    core.give_slot()
    try:
        return await wait()
    finally:
        core.queue_for_slot()
        # Whoever is cancelled does not wait.
        await core.changes.wait_until(  # noqa: ASYNC102
            lambda: core.has_slot or not core.control.accepts
        )
