"""Reading a stored run: the fold of its journal, and the queries that every store answers the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blazen_trio._codec.codec import PLAIN
from blazen_trio._codec.entries import decode_entry, decode_history
from blazen_trio._codec.restore import decode_state
from blazen_trio._state.apply import apply_entry, state_from_first
from blazen_trio.errors import StoreError

if TYPE_CHECKING:
    from blazen_trio._codec.codec import Codec
    from blazen_trio._codec.snapshot import Snapshot
    from blazen_trio._state.history import HistoryRecord
    from blazen_trio._state.model import RunState
    from blazen_trio._stores.protocol import StoredRun

__all__ = ["StoreQueries", "fold"]


def fold(stored: StoredRun, codec: Codec) -> RunState:
    """The state of a stored run: its snapshot with the journal applied to it.

    Raises:
        StoreError: The journal has a gap, or does not fit the snapshot.
        SerializationError: Something in it can't be read.
    """
    run_id = stored.info.run_id
    state = decode_state(stored.snapshot[1], stored.blobs, codec) if stored.snapshot is not None else None
    for seq, data in stored.entries:
        entry = decode_entry(data, stored.blobs, codec)
        if state is None:
            if entry.created is None or "run_id" not in entry.created:
                msg = f"the journal of run {run_id!r} begins with entry {seq}, and no snapshot holds what came before"
                raise StoreError(msg, run_id=run_id)
            state = state_from_first(entry)
        if entry.seq != seq or seq != state.seq + 1:
            msg = f"the journal of run {run_id!r} has entry {entry.seq} at {seq} after entry {state.seq}: it has a gap"
            raise StoreError(msg, run_id=run_id)
        try:
            apply_entry(state, entry)
        except (KeyError, IndexError, StopIteration, AssertionError, AttributeError) as error:
            msg = f"entry {seq} of run {run_id!r} ({entry.kind}) does not fit what came before it: {error!r}"
            raise StoreError(msg, run_id=run_id) from error
    if state is None:
        msg = f"nothing is stored of run {run_id!r} but its row"
        raise StoreError(msg, run_id=run_id)
    if state.run_id != run_id:
        msg = f"what is stored as run {run_id!r} says that it is run {state.run_id!r}: it is damaged, or another run's"
        raise StoreError(msg, run_id=run_id)
    state.history = history_of(stored)
    return state


def history_of(stored: StoredRun) -> list[HistoryRecord]:
    """A stored run's history."""
    return [record for data in stored.history for record in decode_history(data)]


class StoreQueries:
    """The base of a store of your own: `CheckpointStore`'s `load_snapshot` and `history`, answered from `load`."""

    async def load(self, run_id: str) -> StoredRun:
        """See `CheckpointStore.load`."""
        raise NotImplementedError

    async def load_snapshot(self, run_id: str) -> Snapshot:
        """See `CheckpointStore.load_snapshot`."""
        from blazen_trio._codec.snapshot import Snapshot

        return Snapshot.from_state(fold(await self.load(run_id), PLAIN))

    async def history(self, run_id: str) -> list[HistoryRecord]:
        """See `CheckpointStore.history`."""
        return history_of(await self.load(run_id))
