"""A workflow's codec: events and values to and from payloads."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import attrs
import orjson

from blazen_trio._codec import converter, values
from blazen_trio._codec.classes import event_wire, load_event
from blazen_trio._codec.names import Misfit, Names, current
from blazen_trio._codec.shapes import sharing
from blazen_trio._definitions.events import (
    DynamicEvent,
    InputRequestEvent,
    InputResponseEvent,
    StartEvent,
    StepFailedEvent,
    StopEvent,
)
from blazen_trio._state.model import Payload
from blazen_trio.errors import SerializationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from blazen_trio._definitions.events import Event

__all__ = ["ENGINE", "LARGE", "PLAIN", "Codec", "payload_of"]

LARGE: Final = 32 * 1024
"""From so many bytes on a payload is stored once, apart from what refers to it."""

_ANY: Final = object()
_BUILT_IN: Final = (StartEvent, StopEvent, InputRequestEvent, InputResponseEvent, StepFailedEvent)


def payload_of(data: bytes) -> Payload:
    """A payload of these bytes, with a digest if they are many."""
    if len(data) >= LARGE:
        return Payload(data, hashlib.sha256(data).hexdigest())
    # A copy: orjson's own bytes hold on to the 4 KiB that it wrote them in, and payloads live as long as their events.
    return Payload(memoryview(data).tobytes())


class Codec:
    """Encodes and decodes with the names that one workflow knows. Cheap to make; safe to use from several threads.

    Args:
        event_types: The workflow's event classes by `event_type`.
        value_types: The attrs classes, dataclasses and enums that it knows besides, by class name.
        closed: Whether what it does not know is refused where it can't be told from something else.
    """

    def __init__(
        self,
        event_types: Mapping[str, type[Event]],
        value_types: Mapping[str, type],
        *,
        closed: bool = True,
    ) -> None:
        known = closed and bool(event_types or value_types)
        if known:
            event_types = {**{cls.event_type: cls for cls in _BUILT_IN}, **event_types}
        self._values = Names(event_types, value_types, closed=known)
        self._events = Names(event_types, value_types, closed=known, strict=known)
        self._sharing: dict[type[Event], Callable[[Event], bool]] = {}
        self._heads: dict[type[Event], tuple[Callable[[Any], Any], bytes, bytes]] = {}

    def encode_event(self, event: Event) -> Payload:
        """The payload of an event: JSON of `[event_type, fields]`, with a `schema_version` other than 1 as a third.

        Raises:
            SerializationError: A field's value does not fit its declared type, or could not be decoded again.
        """
        head = self._heads.get(type(event))
        if head is None:
            return self._encode_new(event)
        # The hot path: the same as `_encode(event_wire, ...)`, without what is the same for all events of a class.
        previous = current.names
        current.names = self._events
        try:
            wire = head[0](event)
            data = head[1] + orjson.dumps(wire) + head[2]
            _check_depth(wire, data)
        except (Misfit, RecursionError, orjson.JSONEncodeError):
            return _encode(event_wire, event, self._events, event.event_type, "event")
        finally:
            current.names = previous
        # Put together, they are bytes of just their size already.
        return Payload(data) if len(data) < LARGE else payload_of(data)

    def _encode_new(self, event: Event) -> Payload:
        payload = _encode(event_wire, event, self._events, event.event_type, "event")
        cls = type(event)
        if cls is not DynamicEvent:
            version = cls.schema_version
            tail = b"]" if version == 1 else b",%d]" % version
            self._heads[cls] = (
                converter.fields_writer(cls),
                b"[" + orjson.dumps(cls.event_type) + b",",
                tail,
            )
        return payload

    def decode_event(self, data: bytes | list[Any]) -> Event:
        """The event of a payload (its bytes, or the JSON value they hold); a `DynamicEvent` where its type is not known.

        Raises:
            SerializationError: It is rubbish, newer than its class, or its fields are not those of its class.
        """
        subject = ""

        def load(wire: Any) -> Event:
            nonlocal subject
            if type(wire) is list and wire and type(wire[0]) is str:
                subject = wire[0]
            return load_event(wire)

        event: Event = _decode(load, data, self._events, lambda: ("event", subject))
        return event

    def is_shared(self, event: Event) -> bool:
        """Tell whether nothing in it can be changed, so that all who get it may get the same."""
        cls = type(event)
        test = self._sharing.get(cls)
        if test is None:
            test = self._sharing[cls] = sharing(cls)
        return test(event)

    def fresh_event(self, event: Event, payload: Payload | None) -> Event:
        """Return an event as it was stored, whatever was done to its object since; itself where
        nothing can have been, or where it is not stored.
        """
        if payload is None or self.is_shared(event):
            return event
        return self.decode_event(payload.data)

    def check_event(self, event: Event) -> None:
        """Run the validators of an event that was made of data from outside.

        Restoring runs none: what could be stored can be read again.

        Raises:
            SerializationError: One refuses a field.
        """
        cls = type(event)
        for attribute in attrs.fields(cls) if attrs.has(cls) else ():
            if attribute.validator is not None:
                try:
                    attribute.validator(event, attribute, getattr(event, attribute.name))
                except Exception as refusal:
                    reason = f"refused by {cls.__name__}: {refusal}"
                    subject = event.event_type
                    error = _error("decode", "event", subject, reason, attribute.name)
                    raise error from refusal

    def encode_value(self, value: Any, subject: str) -> Payload:
        """The payload of a plain value: self-describing JSON.

        Args:
            value: The value.
            subject: What an error is to name: a state key, `input`, `result`.

        Raises:
            SerializationError: It, or something in it, can't be stored faithfully.
        """
        return _encode(values.to_wire, value, self._values, subject, "value")

    def decode_value(self, data: bytes, subject: str, type: Any = _ANY) -> Any:  # noqa: A002
        """The value of a payload.

        Args:
            data: The payload's bytes.
            subject: What an error is to name.
            type: What it is to be; left out: what it was.

        Raises:
            SerializationError: It is rubbish, does not fit `type`, or names a class that the workflow does not know.
        """

        def load(wire: Any) -> Any:
            return values.from_wire(wire) if type is _ANY else converter.structure_hook(type)(wire)

        return _decode(load, data, self._values, lambda: ("value", subject))


def _encode(
    to_wire: Callable[[Any], Any], value: Any, names: Names, subject: str, what: str
) -> Payload:
    previous = current.names
    current.names = names
    try:
        wire = to_wire(value)
        data = orjson.dumps(wire)
        _check_depth(wire, data)
    except Misfit as misfit:
        raise _error("encode", what, subject, misfit.message, misfit.path) from misfit.__cause__
    except RecursionError:
        # Not chained: it would print a thousand frames.
        raise _error("encode", what, subject, _TOO_DEEP, "") from None
    except orjson.JSONEncodeError as error:
        reason = _TOO_DEEP if "ecursion" in str(error) else str(error)
        raise _error("encode", what, subject, reason, "") from error
    finally:
        current.names = previous
    return payload_of(data)


def _decode(
    load: Callable[[Any], Any],
    data: bytes | list[Any],
    names: Names,
    subject: Callable[[], tuple[str, str]],
) -> Any:
    previous = current.names
    current.names = names
    try:
        return load(data if isinstance(data, list) else orjson.loads(data))
    except Misfit as misfit:
        error = _error("decode", *subject(), misfit.message, misfit.path)
        error.newer = misfit.newer
        raise error from misfit.__cause__
    except RecursionError:
        raise _error("decode", *subject(), _TOO_DEEP, "") from None
    except orjson.JSONDecodeError as error:
        raise _error("decode", *subject(), f"it is not JSON: {error}", "") from error
    finally:
        current.names = previous


_RESERVED: Final = 54
"""How many levels of nesting, of those that orjson writes (254), are not for events and values: the
documents that hold them have levels of their own, and so has the event that tells a handler of a
failure. Otherwise what can be written could not be read again."""
_SHALLOW: Final = 150
"""What has no more brackets is not nested too deeply."""
_TOO_DEEP: Final = "it is nested too deeply (200 levels of JSON are stored), or contains itself"


def _check_depth(wire: Any, data: bytes) -> None:
    """Refuse what could be written by itself, but not within what holds it.

    Raises:
        orjson.JSONEncodeError: It is so.
    """
    # Most have few brackets, and counting them takes next to nothing.
    if len(data) > 2 * _SHALLOW and data.count(b"[") + data.count(b"{") > _SHALLOW:
        for _ in range(_RESERVED):
            wire = [wire]
        orjson.dumps(wire)


def _error(verb: str, what: str, subject: str, reason: str, path: str) -> SerializationError:
    where = f" at {path}" if path else ""
    name = f" {subject!r}" if subject else ""
    return SerializationError(
        f"can't {verb} {what}{name}{where}: {reason}", subject=subject, path=path
    )


PLAIN: Final = Codec({}, {})
"""Knows no class: events come back as `DynamicEvent`, attrs objects and enum members as `DynamicValue`."""

ENGINE: Final = Codec(
    {cls.event_type: cls for cls in _BUILT_IN},
    {},
    closed=False,
)
"""Knows the engine's own events, and otherwise no class either."""
