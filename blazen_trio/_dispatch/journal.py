"""Takes a run's entries to its store, as late as its durability allows, and always in order.

    sync    an entry is on disk before anything that it leads to runs
    async   entries are written behind by a task of the run, at most 256 entries or 4 MiB behind
    exit    nothing is written until somebody has to be told that it is; then a snapshot of the whole

`settle` is the acknowledgement in each of them: when it returns, everything recorded before is on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import trio

from blazen_trio._codec.entries import encode_entry
from blazen_trio._stores.protocol import Commit, SnapshotRow
from blazen_trio.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blazen_trio._dispatch.observers import Recorder
    from blazen_trio._dispatch.standstill import Standstill
    from blazen_trio._state.entry import Entry
    from blazen_trio._state.model import RunState
    from blazen_trio._stores.driver import Driver
    from blazen_trio._stores.protocol import CheckpointStore

__all__ = ["Durability", "Journal", "JournalMark"]

Durability = Literal["sync", "async", "exit"]

_ENTRIES_BEHIND: Final = 256
_BYTES_BEHIND: Final = 4 * 2**20
_FOLD_AT_LEAST: Final = 64 * 2**10
"""Bytes of journal below which folding is not worth a snapshot."""


class JournalMark(NamedTuple):
    """How far a run's journal is.

    Args:
        snapshot_size: Bytes of the stored snapshot (0: none).
        tail_size: Bytes of the stored journal after it.
        blobs: The digests of the large values that are stored already.
    """

    snapshot_size: int = 0
    tail_size: int = 0
    blobs: frozenset[str] = frozenset()


_NEW: Final = JournalMark()
_STEPS: Final = frozenset({"committed", "handled", "completed"})
"""The kinds of entries that get a run further: a step is behind it."""


class Journal:
    """One run's way to its store.

    Args:
        store: The store, in which this process drives the run.
        driver: The token by which it does.
        state: The run's state.
        durability: When entries are written.
        recorder: Keeps the history, whose new records go with each commit.
        standstill: Holds the run still while its journal is folded.
        mark: How far it is.
    """

    __slots__ = (
        "_behind",
        "_folding",
        "_on_disk",
        "_pending",
        "_progress",
        "_recorded",
        "_room",
        "_snapshot_size",
        "_standstill",
        "_state",
        "_stored_blobs",
        "_tail_size",
        "_unwritten",
        "_wanted",
        "_writing_behind",
        "driver",
        "durability",
        "failure",
        "requests",
        "store",
    )

    def __init__(
        self,
        store: CheckpointStore,
        driver: Driver,
        state: RunState,
        durability: Durability,
        recorder: Recorder,
        standstill: Standstill,
        mark: JournalMark = _NEW,
    ) -> None:
        self.store = store
        self.driver = driver
        self.durability: Durability = durability
        self._state = state
        self._unwritten = recorder.unwritten
        self._standstill = standstill
        self._pending: Commit | None = None
        """What is recorded and not handed over yet."""
        self.requests: list[int] = []
        """The rows of the inbox that asked for the pause or the cancellation that is under way: taken by its entry."""
        self._snapshot_size, self._tail_size, self._stored_blobs = mark
        self._behind = 0
        self._recorded = self._on_disk = state.seq
        self._folding = False
        self._progress: trio.Event | None = None
        """Set with the next commit that ends; made when somebody waits for one."""
        if durability == "async":
            self._wanted = trio.Event()
            self._room = trio.lowlevel.ParkingLot()
            self._writing_behind = trio.CancelScope(shield=True)
        self.failure: Exception | None = None
        """Why a commit could not be stored: nothing follows it. The store tells the run, whoever waits for the commit."""

    @property
    def keeps_entries(self) -> bool:
        """Whether entries are written; with `exit` durability, only snapshots are."""
        return self.durability != "exit"

    @property
    def mark(self) -> JournalMark:
        """How far it is."""
        return JournalMark(self._snapshot_size, self._tail_size, self._stored_blobs)

    # Recording

    def record(self, entry: Entry, taken: Sequence[int] = ()) -> None:
        """Take note of an entry that has been applied; `taken` are the inbox rows that it took."""
        self._recorded = entry.seq
        pending = self._pending
        if pending is None:
            pending = self._pending = Commit(self._state.run_id)
        if taken:
            pending.taken = [*pending.taken, *taken]
        if entry.kind in _STEPS:
            pending.progress = True
        if entry.status is not None:
            pending.status = entry.status
            pending.release = entry.status.ended
            if self.requests and (entry.kind == "paused" or entry.status.ended):
                pending.taken = [*pending.taken, *self.requests]
                self.requests.clear()
        if entry.created is not None:
            pending.version = entry.created["workflow_version"]
        if self.durability == "exit":
            return
        data, blobs = entry.encoded or encode_entry(entry)
        pending.entries.append((entry.seq, data))
        self._tail_size += len(data)
        if blobs:
            self._add_blobs(pending, blobs)
        if self.durability == "async":
            self._behind += len(data)
            self._wanted.set()

    def _add_blobs(self, commit: Commit, blobs: Mapping[str, bytes]) -> None:
        """A large value is written once, with the first entry that refers to it."""
        fresh = {digest: blobs[digest] for digest in blobs.keys() - self._stored_blobs}
        commit.blobs = {**commit.blobs, **fresh}
        self._behind += sum(map(len, fresh.values()))
        self._stored_blobs |= fresh.keys()

    async def write(self, entry: Entry, taken: Sequence[int] = ()) -> None:
        """Take note of an entry, as `record` does, and wait for as much as the durability asks for."""
        self.record(entry, taken)
        if self.failure is not None:
            raise self.failure
        if self.durability == "sync":
            # As `_hand_over`, which would be one frame more for each of all the steps that wait.
            commit, target = self._take(), self._recorded
            try:
                await self.store.commit(self.driver, commit)
            except BaseException as failure:
                self._failed(failure)
                raise
            self._stored(commit, target)
        if self._tail_size >= _FOLD_AT_LEAST and self.fold_due:
            await self.fold()

    @property
    def settled(self) -> bool:
        """Whether everything recorded so far is on disk."""
        return self._on_disk >= self._recorded and self._pending is None

    @property
    def full(self) -> bool:
        """Whether, with `async` durability, the run is as far ahead of the disk as it may be."""
        return self.durability == "async" and (
            self._recorded - self._on_disk >= _ENTRIES_BEHIND or self._behind >= _BYTES_BEHIND
        )

    async def wait_room(self) -> None:
        """Wait, before deciding anything, until the disk has caught up."""
        while self.full and self.failure is None:
            await self._room.park()
        self._check()

    async def settle(self) -> None:
        """Everything recorded so far is on disk when this returns. Not cancellable.

        Raises:
            StoreError, StaleRunError: It could not be written.
        """
        self._check()
        target = self._recorded
        if self._pending is not None:
            if self.durability == "exit":
                await self.fold()
            else:
                await self._hand_over(self._take())
        while self._on_disk < target:
            await self._wait_progress()
            self._check()

    async def write_behind(self) -> None:
        """With `async` durability, a task of the run: write what is recorded, until `stop_writing_behind`.

        Shielded: steps that are too far ahead wait for it, also while the run is being cancelled.
        """
        with self._writing_behind:
            while True:
                await self._wanted.wait()
                self._wanted = trio.Event()
                if self._pending is not None:
                    await self._hand_over(self._take())

    def stop_writing_behind(self) -> None:
        """No step runs any more: what is left is for `settle`."""
        self._writing_behind.cancel()

    # Folding

    @property
    def fold_due(self) -> bool:
        """Whether the journal has outgrown the last snapshot, so that folding it costs a constant per byte written; and
        nobody is at it.
        """
        return (
            self._tail_size >= _FOLD_AT_LEAST
            and self._tail_size >= self._snapshot_size
            and not self._folding
        )

    async def fold(self) -> None:
        """Write the whole state down as a snapshot, which replaces the journal so far."""
        self._folding = True
        large: dict[str, bytes] = {}
        try:
            data = b"".join(await self._standstill.image(inline=False, blobs=large))
        finally:
            self._folding = False
        commit = self._take()
        commit.snapshot = SnapshotRow(self._state.seq, data, frozenset(large))
        self._add_blobs(commit, large)
        self._stored_blobs &= large.keys()
        self._snapshot_size, self._tail_size = len(data), 0
        await self._hand_over(commit)

    # Handing over

    def _take(self) -> Commit:
        """All that is recorded and not handed over yet."""
        commit, self._pending = self._pending, None
        if commit is None:
            commit = Commit(self._state.run_id)
        commit.at = self._state.updated
        if commit.status is not None and self._state.error is not None:
            commit.error = self._state.error.message
        if self._unwritten is not None:
            commit.history = self._unwritten.take()
        return commit

    async def _hand_over(self, commit: Commit) -> None:
        """The store takes it in the order of these calls; nothing may be awaited between `_take` and this."""
        self._check()
        target = self._recorded
        try:
            await self.store.commit(self.driver, commit)
        except BaseException as failure:
            self._failed(failure)
            raise
        self._stored(commit, target)

    def _failed(self, failure: BaseException) -> None:
        """A commit may not be on disk: nothing follows it, whatever broke in. All who wait are let go, or they would wait for ever."""
        if not isinstance(failure, Exception):
            what = (
                "be cancelled"
                if isinstance(failure, trio.Cancelled)
                else f"be ended by {type(failure).__name__}"
            )
            told = StoreError(
                f"the store let a commit {what}, which it must not", run_id=self._state.run_id
            )
            told.__cause__ = failure
            failure = told
        if self.failure is None:
            self.failure = failure
        self.driver.lose(self.failure)
        self._wake()

    def _stored(self, commit: Commit, target: int) -> None:
        """A commit with the entries up to `target` is on disk."""
        self._on_disk = max(self._on_disk, target)
        if self.durability == "async":
            self._behind -= sum(len(data) for _, data in commit.entries) + sum(
                map(len, commit.blobs.values())
            )
            # As many as there is room for, in the order in which they came: each takes one place.
            self._room.unpark(count=max(0, _ENTRIES_BEHIND - (self._recorded - self._on_disk)))
        if self._progress is not None:
            self._wake()

    async def _wait_progress(self) -> None:
        if self._progress is None:
            self._progress = trio.Event()
        # What is decided can't be undone by a cancellation any more; and every commit ends.
        with trio.CancelScope(shield=True):
            await self._progress.wait()

    def _wake(self) -> None:
        if self._progress is not None:
            self._progress.set()
            self._progress = None
        if self.failure is not None and self.durability == "async":
            self._room.unpark_all()

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure
