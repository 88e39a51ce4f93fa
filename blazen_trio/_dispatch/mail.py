"""What others left in a run's inbox, taken by transitions of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from blazen_trio._definitions.events import Delayed, InputResponseEvent
from blazen_trio.errors import InputResponseError, NoHandlerError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blazen_trio._codec.codec import Codec
    from blazen_trio._definitions.events import Event
    from blazen_trio._dispatch.dispatcher import Dispatcher
    from blazen_trio._state.entry import Entry
    from blazen_trio._stores.protocol import Mail

__all__ = ["pack_event", "take_mail"]


def pack_event(codec: Codec, event: Event | Delayed[Event]) -> bytes:
    """An event on its way to an inbox."""
    seconds = event.seconds if isinstance(event, Delayed) else None
    inner = event.event if isinstance(event, Delayed) else event
    return orjson.dumps({"f": 1, "event": orjson.Fragment(codec.encode_event(inner).data), "seconds": seconds})


def _unpack_event(codec: Codec, data: bytes) -> Event | Delayed[Event]:
    letter = orjson.loads(data)
    event = codec.decode_event(letter["event"])
    return event if letter["seconds"] is None else Delayed(event, letter["seconds"])


def take_mail(dispatcher: Dispatcher, inbox: Iterable[Mail]) -> None:
    """Take what is in the inbox of a run that is about to be driven; its entries are recorded, not yet on disk.

    Its senders are gone, so what nothing accepts is noted as rejected, and the run goes on.
    """
    for mail in inbox:
        if mail.kind in ("event", "response"):
            entry = _take_event(dispatcher, mail)
            assert dispatcher.journal is not None
            dispatcher.journal.record(entry, mail.id)


def _take_event(d: Dispatcher, mail: Mail) -> Entry:
    event = _unpack_event(d.codec, mail.data)
    moment = d.moment()
    inner = event.event if isinstance(event, Delayed) else event
    try:
        if isinstance(inner, InputResponseEvent):
            entry = d.machine.answered(inner, d.encode, moment)
        else:
            entry = d.machine.received(event, d.encode, moment)
    except (NoHandlerError, InputResponseError) as refusal:
        d.recorder.record("event_rejected", moment.at, event_type=inner.event_type, error=refusal.message)
        return d.machine.rejected(moment)
    d.recorder.record("event_received", moment.at, event_type=inner.event_type)
    return entry
