"""What users hand to a workflow and a run, checked where they do it: a wrong argument is told before it does anything."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, Final

from blazen_trio._codec.messages import RESERVED_KEY
from blazen_trio._definitions.events import Delayed, Event, InputResponseEvent
from blazen_trio._definitions.names import is_positive_seconds, is_seconds, name_fault
from blazen_trio._definitions.validation import DURABILITIES
from blazen_trio._stores.base import StoreQueries

__all__ = [
    "check_driving",
    "check_event",
    "check_grace",
    "check_id",
    "check_key",
    "check_metadata",
    "check_reason",
    "check_snapshot",
    "check_store",
    "new_nonce",
    "new_run_id",
]

_STORE_METHODS: Final = ("claim", "commit", "create", "load", "poll", "post", "release", "take")


def check_id(name: str, value: object) -> None:
    """Refuse what can't name a run or an event sent into one, in any database."""
    if fault := name_fault(value):
        msg = f"{name}={value!r:.80}: {fault}"
        raise ValueError(msg)


def check_key(key: object) -> None:
    """Refuse what can't name an event sent into a run."""
    check_id("key", key)
    if str(key).startswith(RESERVED_KEY):
        msg = f"key={key!r:.80}: keys that begin with {RESERVED_KEY!r} are the engine's own"
        raise ValueError(msg)


def check_event(event: object) -> Event:
    """Refuse what is no event, delayed or not, that can be sent into a run. Return the event itself."""
    inner = event.event if isinstance(event, Delayed) else event
    if not isinstance(inner, Event):
        msg = f"send() takes an event, found {inner!r:.80}"
        raise TypeError(msg)
    if inner is not event and isinstance(inner, InputResponseEvent):
        msg = (
            f"send() takes no delayed answer, found {event!r:.80}: whoever answers first is heard, so "
            "send the answer when it is to be given"
        )
        raise ValueError(msg)
    return inner


def check_driving(durability: object, timeout: object, handler: object) -> None:
    """Refuse ways to drive a run that there are not; `timeout`: seconds, or `None` for no limit."""
    if durability is not None and durability not in DURABILITIES:
        msg = f"durability={durability!r:.80}: it is 'sync', 'async' or 'exit'"
        raise ValueError(msg)
    if timeout is not None and not is_positive_seconds(timeout):
        msg = f"timeout={timeout!r:.80}: a number of seconds above 0 and up to 1e11, or None for no limit"
        raise ValueError(msg)
    if handler is not None and not callable(handler):
        msg = f"input_handler={handler!r:.80}: an async function of the InputRequestEvent, or None"
        raise TypeError(msg)


def check_store(store: object) -> None:
    """Refuse what is no store, such as one that was not entered yet, or the class of one."""
    if isinstance(store, StoreQueries):
        return
    if isinstance(store, type) or not all(hasattr(store, name) for name in _STORE_METHODS):
        msg = (
            f"store={store!r:.80} is no store: give it a MemoryStore(), or what `async with open_store(...) as store` "
            "gives"
        )
        raise TypeError(msg)


def check_snapshot(snapshot: object) -> None:
    """Refuse what is no snapshot."""
    from blazen_trio._codec.snapshot import Snapshot

    if not isinstance(snapshot, Snapshot):
        msg = f"{snapshot!r:.80} is no Snapshot: read one with Snapshot.from_json() or Snapshot.from_msgpack()"
        raise TypeError(msg)


def check_metadata(metadata: object) -> None:
    """Refuse metadata that is no mapping."""
    if not isinstance(metadata, Mapping):
        msg = f"metadata={metadata!r:.80}: a mapping, as in metadata={{'customer': 7}}"
        raise TypeError(msg)


def check_grace(grace: Any) -> None:
    """Refuse a grace that is no time."""
    if grace is not None and not is_seconds(grace):
        msg = f"pause(grace={grace!r:.80}): a number of seconds from 0 to 1e11, or None to wait as long as steps take"
        raise ValueError(msg)


def check_reason(reason: object) -> None:
    """Refuse a reason that is no text."""
    if reason is not None and not isinstance(reason, str):
        msg = f"cancel(reason={reason!r:.80}): the reason is a text, or None"
        raise TypeError(msg)


def new_run_id() -> str:
    """A UUID of version 7 (RFC 9562): ordered by time (milliseconds), so that databases like it."""
    value = int.from_bytes(os.urandom(10), "big") | (time.time_ns() // 1_000_000) << 80
    value = value & ~(0xF000 << 64) | 0x7000 << 64
    value = value & ~(0xC000 << 48) | 0x8000 << 48
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def new_nonce() -> str:
    """Return a text that tells a run from any other of its id."""
    return os.urandom(6).hex()
