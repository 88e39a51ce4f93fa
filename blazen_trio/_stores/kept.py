"""A run as `MemoryStore` keeps it, and its driver."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import TYPE_CHECKING

import attrs

from blazen_trio._clock import wall_clock
from blazen_trio._state.status import RunStatus
from blazen_trio._stores import store_rules
from blazen_trio._stores.driver import Driver
from blazen_trio._stores.protocol import RunInfo, StoredRun

if TYPE_CHECKING:
    from blazen_trio._stores.driver import Mail
    from blazen_trio._stores.protocol import Commit

__all__ = ["KeptRun", "Lease", "MemoryDriver"]

_RUNNABLE = (RunStatus.QUEUED, RunStatus.RUNNING)
_TAKEN_BY_WORKERS = (*_RUNNABLE, RunStatus.WAITING)


_PAGE = 32
"""At most this many rows of its inbox come with a run that is claimed or taken."""


@attrs.define(eq=False)
class Lease:
    """The lease that an opening holds while it drives runs.

    Attributes:
        expired: Whether its holder is known to be dead, so that another opening may declare it so.
        dead: Whether another opening has declared it dead.
    """

    expired: bool = False
    dead: bool = False


class MemoryDriver(Driver):
    """A driver of a run, under a lease."""

    __slots__ = ("lease",)

    def __init__(self, run_id: str, lease: Lease) -> None:
        super().__init__(run_id)
        self.lease = lease

    def check(self) -> None:
        """Refuse to write if this driver has lost the run.

        Raises:
            StaleRunError: It no longer drives the run.
            StoreError: An earlier commit could not be written.
        """
        store_rules.check_driver(self.run_id, self.lost)


@attrs.define(eq=False)
class KeptRun:
    """The data kept for one run. `wake` and `hold`: UTC, seconds since the epoch."""

    info: RunInfo
    created: float
    updated: float
    driver: MemoryDriver | None = None
    wake: float | None = None
    hold: float = 0.0
    crashes: int = 0
    last: int | None = None
    snapshot: tuple[int, bytes] | None = None
    entries: dict[int, bytes] = attrs.field(factory=dict)
    blobs: dict[str, bytes] = attrs.field(factory=dict)
    history: dict[int, bytes] = attrs.field(factory=dict)
    inbox: dict[int, Mail] = attrs.field(factory=dict)
    keys: set[str] = attrs.field(factory=set)
    asked: dict[int, str] = attrs.field(factory=dict)
    """The `request_id`s of the open questions, by id."""

    @property
    def owner(self) -> Lease | None:
        """The lease under which it is driven."""
        return None if self.driver is None else self.driver.lease

    def stored(self) -> StoredRun:
        """Return a copy, as of now."""
        return StoredRun(
            info=self.info,
            snapshot=self.snapshot,
            entries=tuple(self.entries.items()),
            blobs=dict(self.blobs),
            history=tuple(self.history.values()),
            inbox=tuple(self.inbox.values()),
            crashes=self.crashes,
        )

    def drive(self, lease: Lease) -> StoredRun:
        """Give the run a new driver under this lease.

        Returns a copy with the first rows of the inbox; the rest is delivered to the driver.
        """
        driver = self.driven_by(lease)
        stored = self.stored()
        if stored.inbox[_PAGE:]:
            driver.deliver(stored.inbox[_PAGE:])
        return attrs.evolve(stored, inbox=stored.inbox[:_PAGE], driver=driver)

    def driven_by(self, lease: Lease) -> MemoryDriver:
        """Give the run a new driver under this lease, and return it."""
        self.driver, self.wake, self.hold = MemoryDriver(self.info.run_id, lease), None, 0.0
        return self.driver

    def give_back(self, wake: float | None = None, hold: float = 0.0) -> None:
        """Release the run: leave it without a driver."""
        self.driver, self.hold = None, hold
        at_once = wake is None or (wake == float("inf") and self.info.status in _RUNNABLE)
        looked_at = wall_clock().now() if at_once else wake
        never = looked_at == float("inf") or self.info.status not in _TAKEN_BY_WORKERS
        self.wake = None if never else looked_at

    def orphan(self, *, crashed: bool) -> None:
        """Take the run from its driver, and report the loss to it."""
        driver = self.driver
        if crashed and self.info.status in _RUNNABLE:
            self.crashes += 1
        self.give_back()
        if driver is not None:
            driver.lose(store_rules.not_driven(self.info.run_id))

    def fail(self, error: str | None) -> None:
        """Mark the run as failed because it can't even be read."""
        at = wall_clock().now()
        self.updated = at
        self.info = attrs.evolve(
            self.info,
            status=RunStatus.FAILED,
            error=error,
            updated=dt.datetime.fromtimestamp(at, dt.UTC),
        )

    def can_go_on(self, now: float) -> bool:
        """Return whether a worker may take the run, provided that it has no live driver."""
        mailed = bool(self.inbox) and self.hold <= now and self.info.status in _TAKEN_BY_WORKERS
        return mailed or (self.wake is not None and self.wake <= now)

    def append(self, commit: Commit) -> None:
        """Apply a commit that was checked."""
        self.last = store_rules.following(commit, self.last)
        # Copies of exactly their size: a serialiser's own bytes may keep the larger buffer alive
        # that they were written in.
        self.entries.update((seq, memoryview(data).tobytes()) for seq, data in commit.entries)
        self.blobs.update((digest, bytes(data)) for digest, data in commit.blobs.items())
        if commit.snapshot is not None:
            self.snapshot = (commit.snapshot.seq, bytes(commit.snapshot.data))
            # A journal is folded in order, so the entries that the snapshot replaces come first.
            folded = commit.snapshot.seq
            for seq in list(itertools.takewhile(lambda seq: seq <= folded, self.entries)):
                del self.entries[seq]
            needed = commit.snapshot.keep | commit.blobs.keys()
            self.blobs = {digest: data for digest, data in self.blobs.items() if digest in needed}
        if commit.history is not None:
            self.history[commit.history[0]] = memoryview(commit.history[1]).tobytes()
        for mail_id in commit.taken:
            self.inbox.pop(mail_id, None)
        if commit.questions is not None:
            if commit.questions.whole:
                self.asked.clear()
            for question_id in commit.questions.closed:
                self.asked.pop(question_id, None)
            self.asked.update(commit.questions.opened)
        if commit.status is not None:
            self.updated = commit.at
            self.info = attrs.evolve(
                self.info,
                status=commit.status,
                error=_error_after(self, commit),
                updated=dt.datetime.fromtimestamp(commit.at, dt.UTC),
            )
        if commit.version is not None:
            self.info = attrs.evolve(self.info, version=commit.version)
        if commit.progress and self.crashes:
            self.crashes = 0
            if commit.status is None:
                self.info = attrs.evolve(self.info, error=None)
        if commit.status is RunStatus.COMPLETED:
            # No driver will ever take messages that came too late. Only a completed run drops them:
            # one that failed may be tried again.
            self.inbox.clear()
        if commit.release:
            self.give_back()


def _error_after(kept: KeptRun, commit: Commit) -> str | None:
    """Return the `error` for a run's row.

    The error that its driver failed with stays until a step is committed, or the run ends.
    """
    assert commit.status is not None
    if kept.crashes and not (commit.progress or commit.status.ended or commit.error):
        return kept.info.error
    return store_rules.storable(commit.error)
