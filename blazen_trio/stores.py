"""Building blocks for custom stores, and a filter for the engine's own tables.

`CheckpointStore` and `RunInfo` are in `blazen_trio` itself; this module has the other types that a
store accepts and returns.
"""

from __future__ import annotations

from blazen_trio._clock import Utc, WallClock
from blazen_trio._state.entry import Questions
from blazen_trio._stores.base import StoreQueries
from blazen_trio._stores.driver import Driver, DriverListener, KeyUsedError, Mail
from blazen_trio._stores.protocol import SUSPECT, Commit, NewRun, Poll, SnapshotRow, StoredRun
from blazen_trio._stores.tables import include_name

__all__ = [
    "SUSPECT",
    "Commit",
    "Driver",
    "DriverListener",
    "KeyUsedError",
    "Mail",
    "NewRun",
    "Poll",
    "Questions",
    "SnapshotRow",
    "StoreQueries",
    "StoredRun",
    "Utc",
    "WallClock",
    "include_name",
]
