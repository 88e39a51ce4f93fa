"""The standstill of a run, during which its state is processed in slices.

The event loop keeps running. This module is separate from the journal, which runs without a store
do not import.
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
    """A gate: while it is closed, no transition of the run may be made.

    A task that is about to make one waits for `opened` first.
    """

    __slots__ = ("_codec", "_recorder", "_state", "gate")

    def __init__(self, state: RunState, codec: Codec, recorder: Recorder) -> None:
        self._state = state
        self._codec = codec
        self._recorder = recorder
        self.gate: trio.Event | None = None
        """Set when the gate opens; `None`: it is open."""

    async def opened(self) -> None:
        """Wait until transitions may be made.

        The caller must make its own before its next checkpoint, at which the gate may close again.
        """
        while self.gate is not None:
            # Shielded: the wait is short, and the cause of the transition has often happened
            # already (a step returned, a row was taken). A cancellation must not lose it.
            with trio.CancelScope(shield=True):
                await self.gate.wait()

    async def hold(self, pieces: Generator[None, None, T]) -> T:
        """Close the gate while a generator is drained, and return the generator's result.

        Not cancellable. The gate must be open, and closes before the first slice. A caller that has
        just made a wide transition drains its rest with this, without a checkpoint in between.
        Otherwise another task would see the state half applied. The gate opens with the last slice,
        so the result still holds on return, until the next checkpoint.
        """
        assert self.gate is None, "the gate is closed: wait for opened() without a checkpoint after"
        gate = self.gate = trio.Event()
        try:
            return await in_slices(pieces)
        finally:
            self.gate = None
            gate.set()

    async def image(self, *, inline: bool, blobs: dict[str, bytes] | None = None) -> list[bytes]:
        """Encode the present state in slices; the result holds until the next checkpoint.

        Args:
            inline: Whether to include large values and the history, rather than references.
            blobs: Receives the large values that are referred to, by digest.
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
