"""A workflow's codec, which encodes events and values as payloads and decodes them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import attrs
import orjson

from blazen_trio._codec import converter, values
from blazen_trio._codec.fields import event_wire, load_event
from blazen_trio._codec.names import Misfit, Names, current
from blazen_trio._codec.shapes import FIXED, open_fields
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
"""Size in bytes from which a payload is stored once, apart from the data that refers to it."""

_ANY: Final = object()
_BUILT_IN: Final = (StartEvent, StopEvent, InputRequestEvent, InputResponseEvent, StepFailedEvent)


def payload_of(data: bytes) -> Payload:
    """Return a payload of these bytes, with a digest if it is large."""
    if len(data) >= LARGE:
        return Payload(data, hashlib.sha256(data).hexdigest())
    # Copy the bytes: those of orjson keep the 4 KiB buffer that it wrote them into, and a payload
    # lives as long as its event.
    return Payload(memoryview(data).tobytes())


class Codec:
    """A codec with the names that one workflow knows. It is cheap to create, and thread-safe.

    Args:
        event_types: The workflow's event classes by `event_type`.
        value_types: The attrs classes, dataclasses and enums that it also knows, by class name.
        closed: Whether an unknown class is refused where it could be confused with something else.
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
        self._open_fields: dict[type[Event], list[str]] = {}
        self._heads: dict[type[Event], tuple[Callable[[Any], Any], bytes, bytes]] = {}

    def encode_event(self, event: Event) -> Payload:
        """Encode an event as the JSON of `[event_type, fields]`.

        A `schema_version` other than 1 is the third item.

        Raises:
            SerializationError: A field's value does not match its declared type, or could not be
                decoded again.
        """
        head = self._heads.get(type(event))
        if head is None:
            return self._encode_new(event)
        # The hot path. It does the same as `_encode(event_wire, ...)`, except for the parts that
        # are identical for all events of a class.
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
        # The concatenated bytes have exactly their size, so no copy is needed.
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
        """Decode an event from a payload's bytes, or from the JSON value in them.

        If its type is not known, it is decoded as a `DynamicEvent`.

        Raises:
            SerializationError: The data is invalid or newer than the event's class, or the fields
                are not those of the class.
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
        """Return whether an event is deeply immutable, so that all its receivers can share it."""
        cls = type(event)
        names = self._open_fields.get(cls)
        if names is None:
            names = self._open_fields[cls] = open_fields(cls)
        return not names or all(type(getattr(event, name, None)) in FIXED for name in names)

    def fresh_event(self, event: Event, payload: Payload | None) -> Event:
        """Return an event as it was stored, whatever was done to its object since then.

        An event that is deeply immutable or was not stored is returned itself.
        """
        if payload is None or self.is_shared(event):
            return event
        return self.decode_event(payload.data)

    def check_event(self, event: Event) -> None:
        """Run the validators of an event that was made from outside data.

        Restoring an event runs no validators, because everything that could be stored must be
        readable again.

        Raises:
            SerializationError: A validator refused a field.
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
        """Encode a plain value as self-describing JSON.

        Args:
            value: The value.
            subject: The name of the value in errors: a state key, `input`, `result`.

        Raises:
            SerializationError: The value, or something in it, can't be stored faithfully.
        """
        return _encode(values.to_wire, value, self._values, subject, "value")

    def decode_value(self, data: bytes, subject: str, type: Any = _ANY) -> Any:  # noqa: A002
        """Decode the value of a payload.

        Args:
            data: The payload's bytes.
            subject: The name of the value in errors.
            type: The expected type; by default the stored one.

        Raises:
            SerializationError: The data is invalid, does not match `type`, or names a class that
                the workflow does not know.
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
        # Not chained, because its traceback has about a thousand frames.
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
"""Levels of nesting, out of the 254 that orjson writes, that events and values can't use. The
documents that contain them have levels of their own, and so has the `StepFailedEvent` that contains
an event. Without this reserve, data that can be written could not be read again."""
_SHALLOW: Final = 150
"""Number of opening brackets up to which data can't be nested too deeply."""
_TOO_DEEP: Final = "it is nested too deeply (at most 200 levels of JSON), or contains itself"


def _check_depth(wire: Any, data: bytes) -> None:
    """Refuse data that could be written by itself, but not inside the document that contains it.

    Raises:
        orjson.JSONEncodeError: The data is nested too deeply.
    """
    # Most data has few brackets, and counting them is very fast.
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
"""A codec that knows no class. It decodes events as `DynamicEvent`, and attrs objects and enum
members as `DynamicValue`."""

ENGINE: Final = Codec(
    {cls.event_type: cls for cls in _BUILT_IN},
    {},
    closed=False,
)
"""A codec that knows the engine's own events, but no other class."""
