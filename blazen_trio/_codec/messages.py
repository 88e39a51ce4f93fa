"""Encoding of inbox messages: events, and requests to pause and to cancel a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from blazen_trio._codec.reader import parse, rubbish
from blazen_trio._definitions.events import Delayed, InputResponseEvent
from blazen_trio.errors import SerializationError

if TYPE_CHECKING:
    from blazen_trio._codec.codec import Codec
    from blazen_trio._definitions.events import Event

__all__ = [
    "CANCEL",
    "EVENT",
    "LETTER",
    "PAUSE",
    "RECALL",
    "RESERVED_KEY",
    "answer_key",
    "answered_by",
    "pack_event",
    "pack_reason",
    "pack_recall",
    "reason_in",
    "recalled_by",
    "unpack_event",
]

EVENT: Final = "event"
CANCEL: Final = "cancel"
PAUSE: Final = "pause"
RECALL: Final = "recall"
"""Kind of a message that withdraws a requested pause, whether or not the run is paused by now."""

_FORMAT: Final = 1
LETTER: Final = "inbox message"


def pack_event(codec: Codec, event: Event | Delayed[Any]) -> bytes:
    """Encode an event as an inbox message."""
    seconds = event.seconds if isinstance(event, Delayed) else None
    inner = event.event if isinstance(event, Delayed) else event
    answers = inner.request_id if isinstance(inner, InputResponseEvent) else None
    event_data = orjson.Fragment(codec.encode_event(inner).data)
    return orjson.dumps({"f": _FORMAT, "event": event_data, "seconds": seconds, "answers": answers})


def unpack_event(codec: Codec, data: bytes) -> Event | Delayed[Event]:
    """Decode the event of an inbox message.

    Raises:
        SerializationError: The message is invalid; or the event does not match its class, in which
            case `subject` is the event's type.
    """
    letter = parse(data, LETTER, "f", _FORMAT)
    event = codec.decode_event(letter.get("event"))  # type: ignore[arg-type]  # checked there
    codec.check_event(event)
    seconds = letter.get("seconds")
    try:
        return event if seconds is None else Delayed(event, seconds)
    except ValueError as error:
        raise rubbish(LETTER, "seconds", str(error)) from error


def answered_by(data: bytes) -> str | None:
    """Return the `request_id` that an event answers; `None` for no answer or an invalid message."""
    return _text(data, "answers")


def reason_in(data: bytes) -> str | None:
    """Return the reason of a cancellation; `None` if there is none or the message is invalid."""
    return _text(data, "reason")


def recalled_by(data: bytes) -> int | None:
    """Return the id of the row whose pause is withdrawn; `None` if the message is invalid."""
    number = _part(data, "mail")
    return number if type(number) is int else None


def _text(data: bytes, part: str) -> str | None:
    text = _part(data, part)
    return text if isinstance(text, str) else None


def _part(data: bytes, part: str) -> object:
    try:
        return parse(data, LETTER, "f", _FORMAT).get(part)
    except SerializationError:
        return None


RESERVED_KEY: Final = "blazen:"
"""Prefix of the engine's own keys, which no key of a user may have."""


def answer_key(question_id: int, number: int) -> str:
    """Return the key under which an answer is posted.

    Each sender, in any process, posts its answer to the question under the same key. The store
    therefore refuses all answers but the first, even if two are posted at the same time.

    Args:
        question_id: The question's own id, which no other question of the run ever has.
        number: The number of earlier answers to it that could not be taken.
    """
    return f"{RESERVED_KEY}answer:{question_id}:{number}"


def pack_reason(reason: str | None) -> bytes:
    """Encode a cancellation, with its reason, as an inbox message."""
    return orjson.dumps({"f": _FORMAT, "reason": reason})


def pack_recall(mail_id: int) -> bytes:
    """Encode the withdrawal of the pause in this row as an inbox message."""
    return orjson.dumps({"f": _FORMAT, "mail": mail_id})
