"""What journal entries and snapshots have in common when they are written."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from blazen_trio._state.model import Payload, StoredError

__all__ = ["error_wire", "names_wire", "reference"]


def reference(payload: Payload, blobs: dict[str, bytes]) -> Any:
    """A payload in place, or a large one by its digest; its bytes then go to `blobs`."""
    if payload.digest is None:
        return orjson.Fragment(payload.data)
    blobs[payload.digest] = payload.data
    return {"$blob": payload.digest}


def names_wire(names: tuple[str, ...]) -> list[Any]:
    """Names in order; what is there several times in a row is so once, with its number."""
    if len(names) < 3:
        return list(names)
    counted = ((name, sum(1 for _ in same)) for name, same in groupby(names))
    return [name if count == 1 else (name, count) for name, count in counted]


def error_wire(error: StoredError) -> dict[str, Any]:
    """A stored error, without what it does not have."""
    wire: dict[str, Any] = {"kind": error.kind, "message": error.message}
    if error.step:
        wire["step"] = error.step
    if error.attempts:
        wire["attempts"] = error.attempts
    if error.error_type:
        wire["error_type"] = error.error_type
    if error.details:
        wire["details"] = error.details
    if error.traceback:
        wire["traceback"] = error.traceback
    return wire
