"""A run from what is stored of it, and to it; and the queries that every store answers alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blazen_trio._codec.codec import PLAIN
from blazen_trio._codec.document import iter_state
from blazen_trio._codec.entries import decoding_entry, decoding_history, encode_history
from blazen_trio._codec.restore import restoring
from blazen_trio._slices import in_slices
from blazen_trio._state.apply import applying, state_from_first
from blazen_trio._state.pieces import drained
from blazen_trio._state.status import RunStatus
from blazen_trio._stores.protocol import Commit, NewRun, SnapshotRow
from blazen_trio.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from blazen_trio._codec.codec import Codec
    from blazen_trio._codec.snapshot import Snapshot
    from blazen_trio._state.history import HistoryRecord
    from blazen_trio._state.model import RunState
    from blazen_trio._stores.protocol import CheckpointStore, Driver, StoredRun

__all__ = [
    "StoreQueries",
    "create_whole",
    "fold",
    "folding",
    "history_of",
    "reading_history",
    "written",
]


def fold(stored: StoredRun, codec: Codec) -> RunState:
    """Return the state of a stored run: its snapshot with the journal applied to it.

    Raises:
        StoreError: The journal has a gap, or does not fit the snapshot.
        SerializationError: Something in it can't be read.
    """
    return drained(folding(stored, codec))


def folding(stored: StoredRun, codec: Codec) -> Generator[None, None, RunState]:
    """Return what `fold` does, in pieces: an entry each, and of what is large a part each."""
    run_id = stored.info.run_id
    state = None
    if stored.snapshot is not None:
        state = yield from restoring(stored.snapshot[1], stored.blobs, codec)
    for seq, data in stored.entries:
        entry = yield from decoding_entry(data, stored.blobs, codec)
        if state is None:
            if entry.created is None or "run_id" not in entry.created:
                msg = f"the journal of run {run_id!r} begins with entry {seq}, and no snapshot holds what came before"
                raise StoreError(msg, run_id=run_id)
            state = state_from_first(entry)
        if entry.seq != seq or seq != state.seq + 1:
            msg = f"the journal of run {run_id!r} has entry {entry.seq} at {seq} after entry {state.seq}: it has a gap"
            raise StoreError(msg, run_id=run_id)
        try:
            yield from applying(state, entry)
        except (KeyError, IndexError, StopIteration, AssertionError, AttributeError) as error:
            msg = f"entry {seq} of run {run_id!r} ({entry.kind}) does not fit what came before it: {error!r}"
            raise StoreError(msg, run_id=run_id) from error
        yield
    if state is None:
        msg = f"nothing is stored of run {run_id!r} but its row"
        raise StoreError(msg, run_id=run_id)
    if state.run_id != run_id:
        msg = f"what is stored as run {run_id!r} says that it is run {state.run_id!r}: it is damaged, or another run's"
        raise StoreError(msg, run_id=run_id)
    state.history = yield from reading_history(stored)
    return state


def history_of(stored: StoredRun) -> list[HistoryRecord]:
    """Return a stored run's history."""
    return drained(reading_history(stored))


def reading_history(stored: StoredRun) -> Generator[None, None, list[HistoryRecord]]:
    """Return what `history_of` does, in pieces."""
    records: list[HistoryRecord] = []
    for data in stored.history:
        records += yield from decoding_history(data)
        yield
    return records


async def create_whole(store: CheckpointStore, state: RunState) -> Driver | None:
    """Store a run as a snapshot has it. Return its driver; `None` where it has completed.

    Raises:
        RunExistsError: The store has a run of this id.
    """
    data, large = await written(state)
    first = Commit(
        state.run_id,
        snapshot=SnapshotRow(state.seq, data, frozenset(large)),
        blobs=large,
        history=(state.history[0].sequence, encode_history(state.history))
        if state.history
        else None,
        status=state.status,
        error=None if state.error is None else state.error.message,
        at=state.updated,
        release=state.status is RunStatus.COMPLETED,
    )
    return await store.create(NewRun(state.workflow, state.workflow_version, state.created), first)


async def written(state: RunState) -> tuple[bytes, dict[str, bytes]]:
    """Return a run's state as it is stored, and the large values that it refers to."""
    large: dict[str, bytes] = {}
    return await in_slices(_joined(iter_state(state, inline=False, blobs=large))), large


def _joined(pieces: Iterable[bytes]) -> Generator[None, None, bytes]:
    joined = []
    for piece in pieces:
        joined.append(piece)
        yield
    return b"".join(joined)


class StoreQueries:
    """The base of a store of your own: `CheckpointStore`'s `load_snapshot` and `history`, answered
    from `load`.
    """

    async def load(self, run_id: str) -> StoredRun:
        """See `CheckpointStore.load`."""
        raise NotImplementedError

    async def load_snapshot(self, run_id: str) -> Snapshot:
        """See `CheckpointStore.load_snapshot`."""
        from blazen_trio._codec.snapshot import Snapshot

        stored = await self.load(run_id)
        state = await in_slices(folding(stored, PLAIN), cancellable=True)
        return await in_slices(Snapshot.making(state), cancellable=True)

    async def history(self, run_id: str) -> list[HistoryRecord]:
        """See `CheckpointStore.history`."""
        stored = await self.load(run_id)
        return await in_slices(reading_history(stored), cancellable=True)
