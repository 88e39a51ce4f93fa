"""The messages in a run's inbox as bytes: events, and requests to pause and to cancel it."""

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
"""Takes a pause back that was asked for, whether or not the run is paused by now."""

_FORMAT: Final = 1
LETTER: Final = "letter"


def pack_event(codec: Codec, event: Event | Delayed[Any]) -> bytes:
    """Return an event as it lies in an inbox."""
    seconds = event.seconds if isinstance(event, Delayed) else None
    inner = event.event if isinstance(event, Delayed) else event
    answers = inner.request_id if isinstance(inner, InputResponseEvent) else None
    event_data = orjson.Fragment(codec.encode_event(inner).data)
    return orjson.dumps({"f": _FORMAT, "event": event_data, "seconds": seconds, "answers": answers})


def unpack_event(codec: Codec, data: bytes) -> Event | Delayed[Event]:
    """Return the event of a row.

    Raises:
        SerializationError: It can't be read, or the event does not fit its class; whose `subject` is the event's type then.
    """
    letter = parse(data, LETTER, "f", _FORMAT)
    event = codec.decode_event(letter.get("event"))  # type: ignore[arg-type]  # what is no event is refused there
    codec.check_event(event)
    seconds = letter.get("seconds")
    try:
        return event if seconds is None else Delayed(event, seconds)
    except ValueError as error:
        raise rubbish(LETTER, "seconds", str(error)) from error


def answered_by(data: bytes) -> str | None:
    """Return the `request_id` that an event answers; `None`: it is no answer, or can't be read."""
    return _text(data, "answers")


def reason_in(data: bytes) -> str | None:
    """Return the reason of a cancellation; `None`: there is none, or it can't be read."""
    return _text(data, "reason")


def recalled_by(data: bytes) -> int | None:
    """Return the id of the row whose pause is taken back; `None`: it can't be read."""
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
"""How the engine's own keys begin; nobody else's may."""


def answer_key(question_id: int, number: int) -> str:
    """Return the key of an answer: whoever answers a question, in whatever process, posts a row of
    this key, so that the store refuses all but the first.

    Args:
        question_id: The question's own id, which no other question of the run ever has.
        number: How many answers to it were posted before and could not be taken.
    """
    return f"{RESERVED_KEY}answer:{question_id}:{number}"


def pack_reason(reason: str | None) -> bytes:
    """Return the reason of a cancellation as it lies in an inbox."""
    return orjson.dumps({"f": _FORMAT, "reason": reason})


def pack_recall(mail_id: int) -> bytes:
    """Return what takes back the pause of this row, as it lies in an inbox."""
    return orjson.dumps({"f": _FORMAT, "mail": mail_id})
