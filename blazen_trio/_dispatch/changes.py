"""The one way in which tasks wait for something to become so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Changes"]


class Changes:
    """Told of each change of something; tasks wait here until what they want of it is so."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: trio.Event | None = None

    def notify(self) -> None:
        """Something has changed: let all look who wait."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait_until(self, predicate: Callable[[], bool]) -> None:
        """Wait until something is so. Always a checkpoint; when it returns, it is so."""
        await trio.lowlevel.checkpoint()
        while not predicate():
            if self._event is None:
                self._event = trio.Event()
            await self._event.wait()
