"""The record of one run: its fields, and the rules by which commits change it."""

from __future__ import annotations

import datetime as dt
import math
import time
from collections.abc import Iterable

import attrs

from blazen_trio import RunInfo, RunStatus, StaleRunError, StoreError
from blazen_trio.stores import Commit, Mail, StoredRun

RUNNABLE = (RunStatus.QUEUED, RunStatus.RUNNING)
LIVE = (*RUNNABLE, RunStatus.WAITING)
"""The statuses of runs that workers may take."""


def _as_pair(pair: Iterable[int | bytes] | None) -> tuple[int, bytes] | None:
    if pair is None:
        return None
    seq, data = pair
    assert isinstance(seq, int)
    assert isinstance(data, bytes)
    return seq, data


@attrs.define(eq=False)
class RunRecord:
    """One run, as its file stores it. Times are UTC, in seconds.

    Attributes:
        run_id: Its id.
        workflow: The workflow's name.
        version: The workflow's version.
        created: When it was created.
        updated: When its status was last written.
        status: Its status.
        error: Why it failed, or why its driver did.
        driven: Whether it has a driver.
        crashes: How many drivers it has lost since a step was last committed.
        wake: When a worker may take it, if ever.
        hold: No worker may take it before this time.
        last: The number of the last entry.
        snapshot: The number of the last entry in the snapshot, and the snapshot.
        entries: The entries after the snapshot, with their numbers.
        blobs: Large values, by digest.
        history: The records of what has happened.
        inbox: The messages that no driver has taken: id, kind, data, key.
        keys: The deduplication keys that were ever used.
    """

    run_id: str
    workflow: str
    version: str
    created: float
    updated: float
    status: RunStatus = attrs.field(default=RunStatus.RUNNING, converter=RunStatus)
    error: str | None = None
    driven: bool = True
    crashes: int = 0
    wake: float | None = None
    hold: float = 0.0
    last: int | None = None
    snapshot: tuple[int, bytes] | None = attrs.field(default=None, converter=_as_pair)
    entries: list[tuple[int, bytes]] = attrs.field(factory=list)
    blobs: dict[str, bytes] = attrs.field(factory=dict)
    history: list[bytes] = attrs.field(factory=list)
    inbox: list[tuple[int, str, bytes, str | None]] = attrs.field(factory=list)
    keys: list[str] = attrs.field(factory=list)

    def stored(self) -> StoredRun:
        """Return a copy of the run in the form that the engine reads."""
        created, updated = (
            dt.datetime.fromtimestamp(moment, dt.UTC) for moment in (self.created, self.updated)
        )
        return StoredRun(
            RunInfo(
                self.run_id, self.workflow, self.version, self.status, created, updated, self.error
            ),
            self.snapshot,
            tuple((seq, data) for seq, data in self.entries),
            dict(self.blobs),
            tuple(self.history),
            tuple(Mail(*message) for message in self.inbox),
            self.crashes,
        )

    def can_resume(self, now: float) -> bool:
        """Return whether a worker may take the run at this time."""
        has_mail = bool(self.inbox) and self.hold <= now and self.status in LIVE
        return not self.driven and (has_mail or (self.wake is not None and self.wake <= now))

    def drive(self) -> None:
        """Give the run a driver."""
        self.driven, self.wake, self.hold = True, None, 0.0

    def release(self, wake: float | None = None, hold: float = 0.0) -> None:
        """Take the run from its driver. The arguments are those of `CheckpointStore.release`."""
        if wake is None or (wake == math.inf and self.status in RUNNABLE):
            wake = time.time()
        self.driven, self.hold = False, hold
        self.wake = max(wake, hold) if self.status in LIVE and wake < math.inf else None

    def apply(self, commit: Commit) -> None:
        """Apply a commit, or refuse it and change nothing.

        Raises:
            StaleRunError: Another driver has taken one of the messages, or stored one of the
                entries.
            StoreError: Entries before these are missing.
        """
        taken = set(commit.taken)
        if not taken <= {message[0] for message in self.inbox} or len(taken) < len(commit.taken):
            msg = f"an inbox message of run {self.run_id!r} was taken by another driver"
            raise StaleRunError(msg, run_id=self.run_id)
        self.last = self._last_after(commit)
        self.entries += [(seq, bytes(data)) for seq, data in commit.entries]
        self.blobs |= {digest: bytes(data) for digest, data in commit.blobs.items()}
        self._fold(commit)
        if commit.history is not None:
            self.history.append(bytes(commit.history[1]))
        self.inbox = [message for message in self.inbox if message[0] not in taken]
        self._change_row(commit)
        if commit.release:
            self.release()

    def _last_after(self, commit: Commit) -> int | None:
        last = self.last
        for seq, _ in commit.entries:
            if last is not None and seq <= last:
                msg = f"entry {seq} of run {self.run_id!r} is stored already"
                raise StaleRunError(msg, run_id=self.run_id)
            if last is not None and seq > last + 1:
                msg = f"entries before {seq} of run {self.run_id!r} are missing"
                raise StoreError(msg, run_id=self.run_id)
            last = seq
        return last

    def _fold(self, commit: Commit) -> None:
        """Replace the entries that the commit's snapshot includes by that snapshot."""
        if commit.snapshot is None:
            return
        folded, needed = commit.snapshot.seq, commit.snapshot.keep | commit.blobs.keys()
        self.snapshot = (folded, bytes(commit.snapshot.data))
        self.entries = [entry for entry in self.entries if entry[0] > folded]
        self.blobs = {digest: data for digest, data in self.blobs.items() if digest in needed}
        self.last = folded if self.last is None else max(self.last, folded)

    def _change_row(self, commit: Commit) -> None:
        if commit.progress and self.crashes:
            self.crashes, self.error = 0, None
        if commit.status is not None:
            # Without an error of its own, a commit leaves the error that reports a crash.
            if commit.error or commit.status.ended or not self.crashes:
                self.error = commit.error
            self.status, self.updated = commit.status, commit.at
            if commit.status is RunStatus.COMPLETED:
                self.inbox = []
        self.version = commit.version or self.version
