"""Checks of the arguments that users pass to workflows and runs.

They run in the user's call, so an invalid argument is reported before it has any effect.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, Final

from blazen_trio._codec.messages import RESERVED_KEY
from blazen_trio._definitions.events import Delayed, Event, InputResponseEvent
from blazen_trio._definitions.names import is_positive_seconds, is_seconds
from blazen_trio._definitions.validation import DURABILITIES
from blazen_trio._stores.base import StoreQueries
from blazen_trio._stores.store_rules import check_id

__all__ = [
    "check_driving",
    "check_event",
    "check_grace",
    "check_key",
    "check_metadata",
    "check_reason",
    "check_snapshot",
    "check_store",
    "new_nonce",
    "new_run_id",
]

_STORE_METHODS: Final = ("claim", "commit", "create", "load", "poll", "post", "release", "take")


def check_key(key: object) -> None:
    """Check that a value can be the idempotency key of an event sent to a run.

    Raises:
        ValueError: It can't.
    """
    check_id("key", key)
    if str(key).startswith(RESERVED_KEY):
        msg = (
            f"key={key!r:.80}: keys that start with {RESERVED_KEY!r} are reserved for the engine; "
            "use another key"
        )
        raise ValueError(msg)


def check_event(event: object) -> Event:
    """Check that a value is an event, delayed or not, that can be sent to a run.

    Returns:
        The event itself, without the delay.

    Raises:
        TypeError: It is not an event.
        ValueError: It is a delayed answer.
    """
    inner = event.event if isinstance(event, Delayed) else event
    if not isinstance(inner, Event):
        msg = f"send() takes an event, got {inner!r:.80}"
        raise TypeError(msg)
    if inner is not event and isinstance(inner, InputResponseEvent):
        msg = (
            f"send() does not take a delayed answer, got {event!r:.80}: the first answer to arrive "
            "is taken, so send it when it is to take effect"
        )
        raise ValueError(msg)
    return inner


def check_driving(durability: object, timeout: object, handler: object) -> None:
    """Check the options for driving a run.

    Args:
        durability: A durability; `None`: the workflow's.
        timeout: A number of seconds; `None`: no limit.
        handler: An input handler; `None`: there is none.

    Raises:
        ValueError: The durability or the timeout is invalid.
        TypeError: The handler can't be called.
    """
    if durability is not None and durability not in DURABILITIES:
        msg = f"durability={durability!r:.80}: it must be 'sync', 'async' or 'exit'"
        raise ValueError(msg)
    if timeout is not None and not is_positive_seconds(timeout):
        msg = (
            f"timeout={timeout!r:.80}: it must be a number of seconds above 0 and up to 1e11, "
            "or None for no limit"
        )
        raise ValueError(msg)
    if handler is not None and not callable(handler):
        msg = (
            f"input_handler={handler!r:.80}: it must be an async function that takes the "
            "InputRequestEvent, or None"
        )
        raise TypeError(msg)


def check_store(store: object) -> None:
    """Check that a value is a store, and not a store's class or an `open_store(...)` not entered.

    Raises:
        TypeError: It is not a store.
    """
    if isinstance(store, StoreQueries):
        return
    if isinstance(store, type) or not all(hasattr(store, name) for name in _STORE_METHODS):
        msg = (
            f"store={store!r:.80} is not a store: pass a MemoryStore(), or the object returned by "
            "`async with open_store(...)`"
        )
        raise TypeError(msg)


def check_snapshot(snapshot: object) -> None:
    """Check that a value is a snapshot.

    Raises:
        TypeError: It is not.
    """
    from blazen_trio._codec.snapshot import Snapshot

    if not isinstance(snapshot, Snapshot):
        msg = (
            f"{snapshot!r:.80} is not a Snapshot: "
            "read one with Snapshot.from_json() or Snapshot.from_msgpack()"
        )
        raise TypeError(msg)


def check_metadata(metadata: object) -> None:
    """Check that metadata is a mapping.

    Raises:
        TypeError: It is not.
    """
    if not isinstance(metadata, Mapping):
        msg = f"metadata={metadata!r:.80}: it must be a mapping, such as {{'customer': 7}}"
        raise TypeError(msg)


def check_grace(grace: Any) -> None:
    """Check that a grace is a number of seconds, or `None`.

    Raises:
        ValueError: It is not.
    """
    if grace is not None and not is_seconds(grace):
        msg = (
            f"pause(grace={grace!r:.80}): grace must be a number of seconds from 0 to 1e11, "
            "or None to wait as long as the steps take"
        )
        raise ValueError(msg)


def check_reason(reason: object) -> None:
    """Check that a reason is a string, or `None`.

    Raises:
        TypeError: It is not.
    """
    if reason is not None and not isinstance(reason, str):
        msg = f"cancel(reason={reason!r:.80}): reason must be a str, or None"
        raise TypeError(msg)


def new_run_id() -> str:
    """Return a new UUID of version 7 (RFC 9562), which orders by time in milliseconds.

    Databases insert ordered keys faster.
    """
    value = int.from_bytes(os.urandom(10), "big") | (time.time_ns() // 1_000_000) << 80
    value = value & ~(0xF000 << 64) | 0x7000 << 64
    value = value & ~(0xC000 << 48) | 0x8000 << 48
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def new_nonce() -> str:
    """Return a random text that distinguishes a run from any other run of the same id."""
    return os.urandom(6).hex()
