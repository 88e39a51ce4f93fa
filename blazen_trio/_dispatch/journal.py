"""Takes a run's entries to its store, as late as its durability allows, and always in order.

    sync    an entry is on disk before anything that it leads to runs
    async   entries are written behind by a task of the run, at most 256 entries or 4 MiB behind
    exit    nothing is written until somebody has to be told that it is; then a snapshot of the whole

`settle` is the acknowledgement in each of them: when it returns, everything recorded before is on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import trio

from blazen_trio._codec.entries import encode_entry, encode_history
from blazen_trio._codec.snapshot import large_values
from blazen_trio._stores.protocol import Commit, SnapshotRow
from blazen_trio.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from blazen_trio._dispatch.recorder import Recorder
    from blazen_trio._dispatch.standstill import Standstill
    from blazen_trio._state.entry import Entry
    from blazen_trio._state.model import RunState
    from blazen_trio._state.status import RunStatus
    from blazen_trio._stores.protocol import CheckpointStore

__all__ = ["Durability", "Journal"]

Durability = Literal["sync", "async", "exit"]

_ENTRIES_BEHIND: Final = 256
_BYTES_BEHIND: Final = 4 * 2**20
_FOLD_AT_LEAST: Final = 64 * 2**10
"""Bytes of journal below which folding is not worth a snapshot."""


class Journal:
    """One run's way to its store.

    Args:
        store: The store, in which this process drives the run.
        state: The run's state.
        durability: When entries are written.
        recorder: Keeps the history, whose new records go with each commit.
        standstill: Holds the run still while its journal is folded.
        snapshot_size: Bytes of the stored snapshot (0: none).
        tail_size: Bytes of the stored journal after it.
        blobs: The digests of the large values that are stored already.
    """

    def __init__(
        self,
        store: CheckpointStore,
        state: RunState,
        durability: Durability,
        recorder: Recorder,
        standstill: Standstill,
        *,
        snapshot_size: int = 0,
        tail_size: int = 0,
        blobs: Iterable[str] = (),
    ) -> None:
        self.store = store
        self.durability: Durability = durability
        self._state = state
        self._recorder = recorder
        self._standstill = standstill
        self._entries: list[tuple[int, bytes]] = []
        self._blobs: dict[str, bytes] = {}
        self._stored_blobs = set(blobs)
        self._taken: list[int] = []
        self._status: RunStatus | None = None
        self._version: str | None = None
        self._behind = 0
        self._snapshot_size = snapshot_size
        self._tail_size = tail_size
        self._recorded = self._on_disk = state.seq
        self._progress = trio.Event()
        self._wanted = trio.Event()
        self.failure: Exception | None = None

    # Recording

    def record(self, entry: Entry, taken: int | None = None) -> None:
        """Take note of an entry that has been applied; `taken` is the inbox row that it took."""
        self._recorded = entry.seq
        if taken is not None:
            self._taken.append(taken)
        if entry.status is not None:
            self._status = entry.status
        if entry.created is not None:
            self._version = entry.created["workflow_version"]
        if self.durability == "exit":
            return
        data, blobs = encode_entry(entry)
        self._entries.append((entry.seq, data))
        self._behind += len(data)
        self._tail_size += len(data)
        if blobs:
            self._note_blobs(blobs)
        if self.durability == "async":
            self._wanted.set()

    def _note_blobs(self, blobs: Mapping[str, bytes]) -> None:
        """A large value is written once, with the first entry that refers to it."""
        for digest in blobs.keys() - self._stored_blobs:
            self._blobs[digest] = blobs[digest]
            self._stored_blobs.add(digest)

    async def written(self) -> None:
        """After `record`, without a checkpoint in between: wait for as much as the durability asks for."""
        if self.durability == "sync":
            await self._hand_over(self._take())
        elif self.durability == "async":
            while (
                self._recorded - self._on_disk > _ENTRIES_BEHIND or self._behind > _BYTES_BEHIND
            ) and self.failure is None:
                await self._progressed()
            self._check()

    async def settle(self) -> None:
        """Everything recorded so far is on disk when this returns. Not cancellable.

        Raises:
            StoreError, StaleRunError: It could not be written.
        """
        self._check()
        target = self._recorded
        if target > self._on_disk or self._entries:
            if self.durability == "exit":
                await self.fold()
            elif self._entries:
                await self._hand_over(self._take())
        while self._on_disk < target:
            await self._progressed()
            self._check()

    async def write_behind(self) -> None:
        """With `async` durability, a task of the run: write what is recorded, for as long as the run lasts."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            if self._entries:
                await self._hand_over(self._take())

    # Folding

    @property
    def fold_due(self) -> bool:
        """Whether the journal has outgrown the last snapshot, so that folding it costs a constant per byte written."""
        return self._tail_size >= _FOLD_AT_LEAST and self._tail_size >= self._snapshot_size

    async def fold(self) -> None:
        """Write the whole state down as a snapshot, which replaces the journal so far."""
        data = b"".join(await self._standstill.image(inline=False))
        large = large_values(self._state)
        self._note_blobs(large)
        self._stored_blobs.intersection_update(large)
        self._snapshot_size, self._tail_size = len(data), 0
        await self._hand_over(self._take(SnapshotRow(self._state.seq, data, frozenset(large))))

    # Handing over

    def _take(self, snapshot: SnapshotRow | None = None) -> Commit:
        """All that is recorded and not handed over yet."""
        entries, self._entries = self._entries, []
        blobs, self._blobs = self._blobs, {}
        taken, self._taken = self._taken, []
        status, self._status = self._status, None
        version, self._version = self._version, None
        records = self._recorder.take()
        error = self._state.error
        return Commit(
            self._state.run_id,
            entries=entries,
            blobs=blobs,
            snapshot=snapshot,
            history=(records[0].sequence, encode_history(records)) if records else None,
            taken=taken,
            status=status,
            error=error.message if status is not None and error is not None else None,
            version=version,
            at=self._state.updated,
            release=status is not None and status.ended,
        )

    async def _hand_over(self, commit: Commit) -> None:
        """The store takes it in the order of these calls; nothing may be awaited between `_take` and this."""
        self._check()
        target = self._recorded
        try:
            await self.store.commit(commit)
        except trio.Cancelled:
            self.failure = StoreError("the store let a commit be cancelled, which it must not", run_id=commit.run_id)
            raise
        except Exception as failure:
            self.failure = self.failure or failure
            raise
        finally:
            if self.failure is not None:
                self._wake()
        self._behind -= sum(len(data) for _, data in commit.entries)
        self._on_disk = max(self._on_disk, target)
        self._wake()

    async def _progressed(self) -> None:
        # What is decided can't be undone by a cancellation any more; and every commit ends.
        with trio.CancelScope(shield=True):
            await self._progress.wait()

    def _wake(self) -> None:
        if self._progress.statistics().tasks_waiting:
            self._progress.set()
            self._progress = trio.Event()

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure
