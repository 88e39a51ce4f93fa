"""A run's state from its stored data and back, and the queries that every store answers alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blazen_trio._codec.codec import PLAIN
from blazen_trio._codec.document import iter_state
from blazen_trio._codec.entries import decoding_entry
from blazen_trio._codec.histories import decoding_history, encoding_history
from blazen_trio._codec.restore import restoring
from blazen_trio._concurrency import in_slices
from blazen_trio._state.apply import all_questions, applying, state_from_first
from blazen_trio._state.entry import drained
from blazen_trio._state.status import RunStatus
from blazen_trio.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from blazen_trio._codec.codec import Codec
    from blazen_trio._codec.snapshot import Snapshot
    from blazen_trio._state.entry import HistoryRecord
    from blazen_trio._state.model import RunState
    from blazen_trio._stores.driver import Driver
    from blazen_trio._stores.protocol import CheckpointStore, StoredRun

__all__ = [
    "StoreQueries",
    "create_whole",
    "fold",
    "folding",
    "history_of",
    "no_data",
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
    """Do the work of `fold` in slices.

    Yields after each entry, and within a wide entry or a large snapshot after each part.
    """
    run_id = stored.info.run_id
    state = None
    if stored.snapshot is not None:
        state = yield from restoring(stored.snapshot[1], stored.blobs, codec)
    for seq, data in stored.entries:
        entry = yield from decoding_entry(data, stored.blobs, codec)
        if state is None:
            if entry.created is None or "run_id" not in entry.created:
                msg = (
                    f"the journal of run {run_id!r} starts with entry {seq}, and no snapshot "
                    "holds the entries before it"
                )
                raise StoreError(msg, run_id=run_id)
            state = state_from_first(entry)
        if entry.seq != seq or seq != state.seq + 1:
            msg = (
                f"the journal of run {run_id!r} has a gap: entry {entry.seq} is stored at {seq}, "
                f"after entry {state.seq}"
            )
            raise StoreError(msg, run_id=run_id)
        try:
            yield from applying(state, entry)
        except (KeyError, IndexError, StopIteration, AssertionError, AttributeError) as error:
            msg = (
                f"entry {seq} of run {run_id!r} ({entry.kind}) does not fit the entries before "
                f"it: {error!r}"
            )
            raise StoreError(msg, run_id=run_id) from error
        yield
    if state is None:
        raise no_data(run_id)
    if state.run_id != run_id:
        msg = (
            f"the data stored for run {run_id!r} belongs to run {state.run_id!r}: it is damaged, "
            "or was copied from another run"
        )
        raise StoreError(msg, run_id=run_id)
    state.history = yield from reading_history(stored)
    return state


def no_data(run_id: str) -> StoreError:
    """Return the error for a run that has only a row."""
    msg = f"run {run_id!r} has a row, but neither a snapshot nor a journal"
    return StoreError(msg, run_id=run_id)


def history_of(stored: StoredRun) -> list[HistoryRecord]:
    """Return a stored run's history."""
    return drained(reading_history(stored))


def reading_history(stored: StoredRun) -> Generator[None, None, list[HistoryRecord]]:
    """Do the work of `history_of` in slices."""
    records: list[HistoryRecord] = []
    for data in stored.history:
        before = records[-1].sequence if records else 0
        records += yield from decoding_history(data, before)
        yield
    return records


async def create_whole(store: CheckpointStore, state: RunState) -> Driver | None:
    """Store the run of a snapshot, and return its driver; `None` if the run has completed.

    Raises:
        RunExistsError: The store has a run of this id.
    """
    from blazen_trio._stores.protocol import Commit, NewRun, SnapshotRow

    data, large = await written(state)
    history = None
    if state.history:
        encoded = await in_slices(encoding_history(state.history))
        history = state.history[0].sequence, encoded
    first = Commit(
        state.run_id,
        snapshot=SnapshotRow(state.seq, data, frozenset(large)),
        blobs=large,
        history=history,
        status=state.status,
        error=None if state.error is None else state.error.message,
        at=state.updated,
        release=state.status is RunStatus.COMPLETED,
        questions=all_questions(state) if state.questions else None,
    )
    return await store.create(NewRun(state.workflow, state.workflow_version, state.created), first)


async def written(state: RunState) -> tuple[bytes, dict[str, bytes]]:
    """Return a run's encoded state, and the large values that it refers to, by digest."""
    large: dict[str, bytes] = {}
    return await in_slices(_joined(iter_state(state, inline=False, blobs=large))), large


def _joined(pieces: Iterable[bytes]) -> Generator[None, None, bytes]:
    joined = []
    for piece in pieces:
        joined.append(piece)
        yield
    return b"".join(joined)


class StoreQueries:
    """Base class for custom stores: implements `load_snapshot` and `history` on top of `load`."""

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
