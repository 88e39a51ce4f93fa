"""SIGTERM and SIGINT: the first asks the process to end, the second to end at once."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Signals", "StoppedLoadingError"]

_HEEDED = (signal.SIGTERM, signal.SIGINT)


class StoppedLoadingError(BaseException):
    """A signal arrived before any work was started.

    This is not an `Exception`, so that a module that is being imported does not catch it.
    """


class Signals:
    """Collects signals from its entry on, until `received` delivers them. For the main thread."""

    def __init__(self) -> None:
        self._early: list[int] = []
        self._interrupts = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in _HEEDED:
            self._before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _arrived(self, number: int, _frame: object) -> None:
        self._early.append(number)
        if self._interrupts:
            self._interrupts = False
            raise StoppedLoadingError

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Let a signal raise `StoppedLoadingError` in this block, for code that can't check for
        one.
        """
        self._interrupts = not self._early
        try:
            yield
        finally:
            self._interrupts = False

    @contextmanager
    def received(self) -> Iterator[Callable[[Callable[[int], None]], Any]]:
        """Deliver signals by Trio in this block.

        Yields an async function that calls its argument with each signal, the early ones first.
        """
        with trio.open_signal_receiver(*_HEEDED) as arriving:

            async def listen(heed: Callable[[int], None]) -> None:
                await trio.lowlevel.checkpoint()
                for number in self._early:
                    heed(number)
                async for number in arriving:
                    heed(number)

            yield listen

    @staticmethod
    def give_up() -> None:
        """Let the next signal end the process by default. For use in a `received` block."""
        for number in _HEEDED:
            signal.signal(number, signal.SIG_DFL)
