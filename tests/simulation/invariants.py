"""Invariants that hold for every run in the store after every single call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from blazen_trio._clock import wall_clock
from blazen_trio._codec.codec import PLAIN
from blazen_trio._codec.entries import decode_entry
from blazen_trio._codec.snapshot import iter_state
from blazen_trio._state.apply import apply_entry, state_from_first
from blazen_trio._state.status import RunStatus
from blazen_trio._stores.base import fold

if TYPE_CHECKING:
    from blazen_trio._state.model import RunState
    from tests.simulation.backends import Backend, RunRow

_CLOCK = 1e-3  # seconds to which SQLite's clock is exact


class BrokenError(AssertionError):
    """An invariant does not hold."""


@attrs.define(eq=False)
class _Seen:
    """The entries of a run that were seen so far, and the state that they make."""

    state: RunState | None = None
    entries: dict[int, bytes] = attrs.field(factory=dict)
    done: set[int] = attrs.field(factory=set)
    completed: bool = False
    row: RunRow | None = None


class Invariants:
    """Checks the whole store, and remembers what it saw."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._seen: dict[str, _Seen] = {}
        self.checks = 0

    def check(self) -> None:
        """Check each run that has changed since the last check.

        Raises:
            BrokenError: An invariant does not hold.
        """
        for row in self._backend.rows():
            seen = self._seen.setdefault(row.info.run_id, _Seen())
            if row != seen.row:
                seen.row = row
                self.checks += 1
                try:
                    self._check(row, seen)
                except BrokenError as error:
                    error.add_note(f"{row}")
                    raise

    def _check(self, kept: RunRow, seen: _Seen) -> None:
        stored = kept.load()
        for seq, data in stored.entries:
            before = seen.entries.get(seq)
            if before is None:
                self._follow(seen, seq, data, stored.blobs)
            _demand(
                before in (None, data),
                f"entry {seq} was written a second time, with other contents",
            )
        assert seen.state is not None
        _demand(
            seen.state.seq == kept.last or stored.last == seen.state.seq,
            f"the journal ends at {kept.last}, the entries seen so far end at {seen.state.seq}",
        )
        folded = fold(stored, PLAIN)
        folded.history = []  # the history is kept beside the entries
        _demand(
            _image(folded) == _image(seen.state),
            "the stored snapshot and journal do not make the state that its entries made",
        )
        _demand(
            folded.status is kept.info.status,
            f"its row says {kept.info.status}, its journal {folded.status}",
        )
        _demand(
            not (kept.info.status.ended and kept.owner is not None),
            "it has ended, but still has a driver",
        )
        _demand(
            not seen.completed or kept.info.status is RunStatus.COMPLETED,
            "it had completed, but continues",
        )
        seen.completed = kept.info.status is RunStatus.COMPLETED
        _demand(
            not (seen.completed and kept.inbox),
            "it has completed, but has inbox messages that no driver will take",
        )
        if kept.owner is None:
            self._check_undriven(kept, folded)

    def _follow(self, seen: _Seen, seq: int, data: bytes, blobs: Any) -> None:
        entry = decode_entry(data, blobs, PLAIN)
        if seen.state is None:
            seen.state = state_from_first(entry)
        _demand(
            entry.seq == seq == seen.state.seq + 1, f"entry {seq} follows entry {seen.state.seq}"
        )
        _demand(not seen.completed, f"entry {seq} ({entry.kind}) was written after the end")
        if entry.done:
            _demand(
                entry.done not in seen.done,
                f"item {entry.done} was done twice, the second time by entry {seq}",
            )
            seen.done.add(entry.done)
        apply_entry(seen.state, entry)
        seen.entries[seq] = data

    def _check_undriven(self, kept: RunRow, state: RunState) -> None:
        """Check that a poll finds an undriven run once anything can happen to it."""
        status = kept.info.status
        if status in (RunStatus.QUEUED, RunStatus.RUNNING):
            _demand(
                kept.wake is not None,
                f"it is {status.value} and undriven, but no worker will ever take it",
            )
        elif status is RunStatus.WAITING:
            timed = [
                *(one.due for one in state.delayed.values()),
                *(one.due for one in state.deliveries.values()),
            ]
            dues = [due for due in timed if due is not None]
            if dues:
                soonest = max(min(dues), wall_clock().now(), kept.hold)
                _demand(
                    kept.wake is not None, "it waits for a time, but no worker will ever take it"
                )
                assert kept.wake is not None
                _demand(
                    kept.wake <= soonest + _CLOCK,
                    f"it is due at {soonest}, but can be taken only at {kept.wake}",
                )
        else:
            _demand(kept.wake is None, f"it is {status.value}, but workers would take it")


def _image(state: RunState) -> bytes:
    return b"".join(iter_state(state, inline=True))


def _demand(holds: bool, otherwise: str) -> None:  # a condition
    if not holds:
        raise BrokenError(otherwise)
