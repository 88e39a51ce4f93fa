"""Writing a run's whole state down while the event loop goes on and the run stands still."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from blazen_trio._codec.document import iter_state

if TYPE_CHECKING:
    from blazen_trio._codec.codec import Codec
    from blazen_trio._dispatch.recorder import Recorder
    from blazen_trio._state.entry import Entry
    from blazen_trio._state.model import RunState

__all__ = ["Standstill"]

_SLICE: Final = 0.004
"""Seconds that encoding holds the event loop at a time, at most (and one piece more)."""


class Standstill:
    """While it is closed, no transition of the run may happen. Whoever is about to make one waits for `opened` first."""

    __slots__ = ("_codec", "_recorder", "_state", "gate")

    def __init__(self, state: RunState, codec: Codec, recorder: Recorder) -> None:
        self._state = state
        self._codec = codec
        self._recorder = recorder
        self.gate: trio.Event | None = None
        """`None`: it is open."""

    async def opened(self) -> None:
        """Wait until transitions may happen. The caller must make its own without another checkpoint."""
        while self.gate is not None:
            # Short, and what waits has often been decided already: not for a cancellation to break.
            with trio.CancelScope(shield=True):
                await self.gate.wait()

    async def complete(self, entry: Entry) -> None:
        """Apply the rest of a wide transition, a slice at a time. The gate is closed before anything else can run."""
        assert entry.rest is not None
        assert self.gate is None, "a transition is made while the gate is open"
        self.gate = trio.Event()
        try:
            began = trio.current_time()
            for _ in entry.rest:
                if trio.current_time() - began > _SLICE:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                    began = trio.current_time()
            entry.rest = None
        finally:
            self.gate.set()
            self.gate = None

    async def image(self, *, inline: bool) -> list[bytes]:
        """The state as of now, encoded a piece at a time. It still holds when this returns, until the next checkpoint.

        Args:
            inline: Whether large values and the history are in it; otherwise it refers to them.
        """
        await self.opened()
        self.gate = trio.Event()
        try:
            pieces = []
            began = trio.current_time()
            history = self._recorder.records if inline else None
            for piece in iter_state(self._state, inline=inline, codec=self._codec, history=history):
                pieces.append(piece)
                if trio.current_time() - began > _SLICE:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                    began = trio.current_time()
            return pieces
        finally:
            self.gate.set()
            self.gate = None
