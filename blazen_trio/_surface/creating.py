"""The creation of runs in a store, from a first entry or from a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blazen_trio._codec.document import iter_state
from blazen_trio._codec.entries import encode_entry
from blazen_trio._codec.histories import encoding_history
from blazen_trio._concurrency import in_slices
from blazen_trio._state.apply import all_questions
from blazen_trio._state.status import RunStatus
from blazen_trio._stores.protocol import Commit, NewRun, SnapshotRow

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from blazen_trio._definitions.definition import WorkflowDefinition
    from blazen_trio._dispatch.observers import Recorder
    from blazen_trio._state.entry import Entry
    from blazen_trio._state.model import RunState
    from blazen_trio._stores.driver import Driver
    from blazen_trio._stores.protocol import CheckpointStore

__all__ = ["create_new", "create_whole", "written"]


async def create_new(
    store: CheckpointStore,
    definition: WorkflowDefinition,
    run_id: str,
    entry: Entry,
    recorder: Recorder,
) -> Driver | None:
    """Store a new run by its first entry and history, and return its driver.

    Raises:
        RunExistsError: The store has a run of this id.
    """
    data, blobs = encode_entry(entry)
    first = Commit(
        run_id,
        entries=[(entry.seq, data)],
        blobs=blobs,
        history=None if recorder.unwritten is None else recorder.unwritten.take(),
        status=RunStatus.RUNNING,
        at=entry.at,
    )
    return await store.create(NewRun(definition.name, definition.version, entry.at), first)


async def create_whole(store: CheckpointStore, state: RunState) -> Driver | None:
    """Store the run of a snapshot, and return its driver; `None` if the run has completed.

    Raises:
        RunExistsError: The store has a run of this id.
    """
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
