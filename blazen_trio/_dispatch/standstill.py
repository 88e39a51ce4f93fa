"""Work on a run's whole state while the run stands still and the event loop goes on.

Apart from the journal, which runs in memory don't import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

from blazen_trio._codec.document import iter_state
from blazen_trio._concurrency import in_slices

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from blazen_trio._codec.codec import Codec
    from blazen_trio._dispatch.observers import Recorder
    from blazen_trio._state.model import RunState

__all__ = ["Standstill"]

T = TypeVar("T")


class Standstill:
    """While it is closed, no transition of the run may happen. Whoever is about to make one waits
    for `opened` first.
    """

    __slots__ = ("_codec", "_recorder", "_state", "gate")

    def __init__(self, state: RunState, codec: Codec, recorder: Recorder) -> None:
        self._state = state
        self._codec = codec
        self._recorder = recorder
        self.gate: trio.Event | None = None
        """`None`: it is open."""

    async def opened(self) -> None:
        """Wait until transitions may happen. The caller must make its own without another
        checkpoint.
        """
        while self.gate is not None:
            # Short, and what waits has often been decided already: not for a cancellation to break.
            with trio.CancelScope(shield=True):
                await self.gate.wait()

    async def hold(self, pieces: Generator[None, None, T]) -> T:
        """Keep it closed while a generator is drained; not cancellable. Return what that comes to.

        It must be open, and closes before the first piece. Whoever has just made a wide transition
        drains its rest by this, without a checkpoint in between: nobody else may see the state
        half applied. It opens with the last piece, so what was done still holds when this returns,
        until the next checkpoint.
        """
        assert self.gate is None, "the caller waits for it to be open, and makes no checkpoint then"
        gate = self.gate = trio.Event()
        try:
            return await in_slices(pieces)
        finally:
            self.gate = None
            gate.set()

    async def image(self, *, inline: bool, blobs: dict[str, bytes] | None = None) -> list[bytes]:
        """Return the state as of now, encoded a piece at a time; it still holds until the next
        checkpoint.

        Args:
            inline: Whether large values and the history are in it; otherwise it refers to them.
            blobs: Gets the large values that it refers to, by digest.
        """
        await self.opened()
        history = self._recorder.records if inline else None
        return await self.hold(
            _gathered(
                iter_state(
                    self._state, inline=inline, codec=self._codec, history=history, blobs=blobs
                )
            )
        )


def _gathered(pieces: Iterable[bytes]) -> Generator[None, None, list[bytes]]:
    gathered = []
    for piece in pieces:
        if piece:
            gathered.append(piece)
        yield
    return gathered
