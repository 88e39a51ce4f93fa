"""The journal of a run: it hands entries to the store, in order, when the durability requires it.

    sync    an entry is on disk before any of its outputs runs
    async   a task of the run writes entries, at most 256 entries or 4 MiB behind
    exit    nothing is written until an acknowledgement is due; then one snapshot of the whole run

`settle` acknowledges in all three modes: on return, everything recorded before it is on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import trio

from blazen_trio._codec.entries import encode_entry
from blazen_trio._state.apply import all_questions
from blazen_trio._state.entry import Questions
from blazen_trio._stores.protocol import Commit, SnapshotRow
from blazen_trio.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blazen_trio._dispatch.observers import Recorder
    from blazen_trio._dispatch.schedule import Standstill
    from blazen_trio._state.entry import Entry
    from blazen_trio._state.model import RunState
    from blazen_trio._stores.driver import Driver
    from blazen_trio._stores.protocol import CheckpointStore

__all__ = ["Durability", "Journal", "JournalMark"]

Durability = Literal["sync", "async", "exit"]

_ENTRIES_BEHIND: Final = 256
_BYTES_BEHIND: Final = 4 * 2**20
_FOLD_AT_LEAST: Final = 64 * 2**10
"""Bytes of journal below which a snapshot is not worth its cost."""


class JournalMark(NamedTuple):
    """The extent of a run's stored journal.

    Args:
        snapshot_size: Bytes of the stored snapshot (0: none).
        tail_size: Bytes of the stored journal after it.
        blobs: The digests of the blobs (large values) that are stored already.
        listed: Whether the store lists all open questions, as far as it lists any.
    """

    snapshot_size: int = 0
    tail_size: int = 0
    blobs: frozenset[str] = frozenset()
    listed: bool = True


_NEW: Final = JournalMark()
_STEPS: Final = frozenset({"committed", "handled", "completed"})
"""The kinds of entries that count as progress: a step has been dealt with for good."""


class Journal:
    """The path of one run's entries to its store.

    Args:
        store: The store.
        driver: The token with which this process drives the run.
        state: The run's state.
        durability: When entries are written.
        recorder: Keeps the history; each commit contains its new records.
        standstill: Holds the run still while its journal is folded.
        mark: The extent of the stored journal.
    """

    __slots__ = (
        "_behind",
        "_folding",
        "_listed",
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
        """The entries that are recorded and not handed over yet."""
        self.requests: list[int] = []
        """The inbox rows of pauses and cancellations that are under way, whose entry takes them."""
        self._snapshot_size, self._tail_size, self._stored_blobs, self._listed = mark
        self._behind = 0
        self._recorded = self._on_disk = state.seq
        self._folding = False
        self._progress: trio.Event | None = None
        """Set when the next commit ends; created by the first task that waits for one."""
        if durability == "async":
            self._wanted = trio.Event()
            self._room = trio.lowlevel.ParkingLot()
            self._writing_behind = trio.CancelScope(shield=True)
        self.failure: Exception | None = None
        """The reason why a commit was not stored; no later one is accepted. The run learns of it
        from the store, even if no task waits for the commit."""

    @property
    def keeps_entries(self) -> bool:
        """True if entries are written; with `exit` durability, only snapshots are."""
        return self.durability != "exit"

    @property
    def mark(self) -> JournalMark:
        """The extent of the stored journal."""
        return JournalMark(self._snapshot_size, self._tail_size, self._stored_blobs, self._listed)

    # Recording

    def record(self, entry: Entry, taken: Sequence[int] = ()) -> None:
        """Add an applied entry to the next commit.

        Args:
            entry: The entry.
            taken: The inbox rows that it takes.
        """
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
        if entry.questions is not None and self._listed:
            if pending.questions is None:
                pending.questions = Questions()
            pending.questions.add(entry.questions)
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
        """Add the blobs that are not stored yet: each is written once, with its first reference."""
        fresh = {digest: blobs[digest] for digest in blobs.keys() - self._stored_blobs}
        commit.blobs = {**commit.blobs, **fresh}
        self._behind += sum(map(len, fresh.values()))
        self._stored_blobs |= fresh.keys()

    async def write(self, entry: Entry, taken: Sequence[int] = ()) -> None:
        """Record an entry, and wait until it is as durable as required. See `record`."""
        self.record(entry, taken)
        if self.failure is not None:
            raise self.failure
        if self.durability == "sync":
            # `_hand_over` inlined, which saves a frame in each of the many steps that wait here.
            # Group commit: while one commit of the run is on its way, other steps record and hand
            # over theirs. The store writes them in the order of these calls, many of them in one
            # transaction, and none can be cancelled once it was handed over.
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
        """True if everything recorded so far is on disk."""
        return self._on_disk >= self._recorded and self._pending is None

    @property
    def full(self) -> bool:
        """True if an `async` run is as far ahead of the disk as it may be."""
        return self.durability == "async" and (
            self._recorded - self._on_disk >= _ENTRIES_BEHIND or self._behind >= _BYTES_BEHIND
        )

    async def wait_room(self) -> None:
        """Wait, before a decision, until the disk has caught up far enough."""
        while self.full and self.failure is None:
            await self._room.park()
        self._check()

    async def settle(self) -> None:
        """Wait until everything recorded so far is on disk. Not cancellable.

        Raises:
            StoreError: A commit could not be written.
            StaleRunError: Another driver has taken the run.
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
        """Write recorded entries until `stop_writing_behind`: a task of an `async` run.

        Shielded: steps of a run that is too far ahead wait for this task, even while the run is
        being cancelled. If the task were cancelled with it, they would wait for ever.
        """
        with self._writing_behind:
            while True:
                await self._wanted.wait()
                self._wanted = trio.Event()
                if self._pending is not None:
                    await self._hand_over(self._take())

    def stop_writing_behind(self) -> None:
        """End `write_behind`. No step runs any more, and `settle` writes the rest."""
        self._writing_behind.cancel()

    # Folding

    @property
    def fold_due(self) -> bool:
        """True if the journal has outgrown the last snapshot, and is not being folded.

        Folding then costs a constant per byte written.
        """
        return (
            self._tail_size >= _FOLD_AT_LEAST
            and self._tail_size >= self._snapshot_size
            and not self._folding
        )

    async def fold(self) -> None:
        """Write the whole state as a snapshot, which replaces the journal so far.

        The snapshot is written, and what it replaces is deleted, in one transaction. A crash leaves
        the old snapshot and its journal, or the new one alone. The state is encoded in slices
        behind the run's closed gate, so other runs continue, and no transition changes it halfway.
        """
        self._folding = True
        large: dict[str, bytes] = {}
        try:
            data = b"".join(await self._standstill.image(inline=False, blobs=large))
        finally:
            self._folding = False
        # No checkpoint since the image, so the snapshot and the entries of its commit belong
        # together: the store deletes the entries up to the snapshot's number.
        commit = self._take()
        commit.snapshot = SnapshotRow(self._state.seq, data, frozenset(large))
        self._add_blobs(commit, large)
        # Now, not once it is on disk: entries that are recorded meanwhile follow this snapshot, and
        # the store deletes all blobs but these. If the commit fails, the journal is dead anyway.
        self._stored_blobs &= large.keys()
        self._snapshot_size, self._tail_size = len(data), 0
        await self._hand_over(commit)

    # Handing over

    def _take(self) -> Commit:
        """Return the commit of everything that is recorded and not handed over yet."""
        commit, self._pending = self._pending, None
        if commit is None:
            commit = Commit(self._state.run_id)
        commit.at = self._state.updated
        if commit.status is not None and self._state.error is not None:
            commit.error = self._state.error.message
        if self._unwritten is not None:
            commit.history = self._unwritten.take()
        if not self._listed:
            self._listed = True
            commit.questions = all_questions(self._state)
        return commit

    async def _hand_over(self, commit: Commit) -> None:
        """Hand a commit to the store, which keeps the order of these calls.

        Nothing may be awaited between `_take` and this: a later commit could overtake this one, and
        a crash would leave a gap in the journal.
        """
        self._check()
        target = self._recorded
        try:
            await self.store.commit(self.driver, commit)
        except BaseException as failure:
            self._failed(failure)
            raise
        self._stored(commit, target)

    def _failed(self, failure: BaseException) -> None:
        """Note that a commit may not be on disk: the journal accepts no later one.

        Every waiter is woken and gets the failure; otherwise it would wait for ever.
        """
        if not isinstance(failure, Exception):
            what = (
                "be cancelled"
                if isinstance(failure, trio.Cancelled)
                else f"be ended by {type(failure).__name__}"
            )
            told = StoreError(
                f"the store let a commit of run {self._state.run_id!r} {what}, which it must not",
                run_id=self._state.run_id,
            )
            told.__cause__ = failure
            failure = told
        if self.failure is None:
            self.failure = failure
        self.driver.lose(self.failure)
        self._wake()

    def _stored(self, commit: Commit, target: int) -> None:
        """Note that a commit with the entries up to `target` is on disk."""
        self._on_disk = max(self._on_disk, target)
        if self.durability == "async":
            self._behind -= sum(len(data) for _, data in commit.entries) + sum(
                map(len, commit.blobs.values())
            )
            # Wake as many tasks as there is room for, in order: each adds one entry.
            self._room.unpark(count=max(0, _ENTRIES_BEHIND - (self._recorded - self._on_disk)))
        if self._progress is not None:
            self._wake()

    async def _wait_progress(self) -> None:
        if self._progress is None:
            self._progress = trio.Event()
        # A decided transition can't be taken back by a cancellation, and every commit ends.
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
