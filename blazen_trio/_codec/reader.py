"""Reader of untrusted JSON. It checks every value, and errors name the place of the fault."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any, Final, TypeVar

import orjson

from blazen_trio._codec.codec import PLAIN, payload_of
from blazen_trio._codec.names import short
from blazen_trio._definitions.events import DynamicEvent, InputRequestEvent
from blazen_trio._state.model import Payload, StoredError
from blazen_trio.errors import SerializationError, SnapshotVersionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from blazen_trio._codec.codec import Codec
    from blazen_trio._definitions.events import Event

__all__ = [
    "MOST",
    "Reader",
    "Whole",
    "error_of",
    "metadata_of",
    "parse",
    "question_id",
    "rubbish",
]

T = TypeVar("T")

MOST: Final = 2**62
"""Upper limit of stored numbers (exclusive), so that counting on from one stays within 64 bits."""
MOST_NAMES: Final = 4_000_000
"""Largest total of repeated names in a document. They are stored with a count, so without this
limit a few bytes could expand to any number of names."""
LATEST = 253_402_300_799.0
"""Last second of the year 9999, after which Python has no dates."""


def rubbish(what: str, path: str, message: str) -> SerializationError:
    """Return the error for invalid stored data."""
    where = f" at {path}" if path else ""
    return SerializationError(f"invalid {what}{where}: {message}", subject=what, path=path)


def parse(data: bytes, what: str, version_key: str, supported: int) -> dict[str, Any]:
    """Parse a JSON object whose format number is under `version_key`.

    Raises:
        SnapshotVersionError: The format number is greater than `supported`.
        SerializationError: The data is not such an object.
    """
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise rubbish(what, "", f"it is not JSON ({error})") from error
    if type(document) is not dict:
        raise rubbish(what, "", f"expected a JSON object, not {short(document)}")
    version = document.get(version_key)
    if type(version) is not int or version < 1:
        raise rubbish(what, version_key, f"expected a format number, not {short(version)}")
    if version > supported:
        msg = (
            f"this {what} has format {version}, but this version of blazen_trio reads formats up "
            f"to {supported}: upgrade blazen_trio"
        )
        raise SnapshotVersionError(msg, found=version, supported=supported)
    return document


class Whole:
    """The data that the readers of all parts of one document share.

    Args:
        what: The kind of document, such as `snapshot` or `journal entry`.
        blobs: Large payloads by digest.
        codec: The codec for its events.
    """

    __slots__ = ("blobs", "checked", "codec", "names", "what")

    def __init__(self, what: str, blobs: Mapping[str, bytes], codec: Codec) -> None:
        self.what = what
        self.blobs = blobs
        self.codec = codec
        self.checked: set[str] = set()
        """Digests of the large payloads that have been verified."""
        self.names = 0
        """Number of repeated names read so far."""


class Reader:
    """A reader of checked parts of a JSON object or list.

    Args:
        data: The object or list.
        path: Its path in the document.
        whole: The document that it is part of.
    """

    __slots__ = ("data", "path", "whole")

    def __init__(self, data: Any, path: str, whole: Whole) -> None:
        self.data = data
        self.path = path
        self.whole = whole

    @property
    def what(self) -> str:
        """The kind of document."""
        return self.whole.what

    def where(self, key: str | int) -> str:
        """Return the path of the value under `key`."""
        if isinstance(key, int):
            return f"{self.path}[{key}]"
        return f"{self.path}.{key}" if self.path else key

    def fail(self, key: str | int, message: str) -> SerializationError:
        """Return the error for the value under `key`."""
        return rubbish(self.what, self.where(key), message)

    def raw(self, key: str | int) -> Any:
        """Return the unchecked value under `key`, or `None` if there is none."""
        data = self.data
        if type(data) is dict:
            return data.get(key)
        if type(data) is list:
            return data[key] if isinstance(key, int) and key < len(data) else None
        raise rubbish(self.what, self.path, f"expected an object or a list, not {short(data)}")

    def take(self, key: str | int, kind: type[T]) -> T:
        """Return the value under `key`, which must have exactly this type."""
        value = self.raw(key)
        if type(value) is not kind:
            raise self.fail(key, f"expected {kind.__name__}, not {short(value)}")
        return value

    def maybe(self, key: str | int, kind: type[T]) -> T | None:
        """Return the value under `key` of exactly this type, or `None` if there is none."""
        return None if self.raw(key) is None else self.take(key, kind)

    def count(
        self, key: str | int, default: int | None = None, least: int = 0, below: int = MOST
    ) -> int:
        """Return the integer under `key`, which must be at least `least` and less than `below`."""
        value = self.raw(key)
        if value is None and default is not None:
            return default
        if type(value) is not int or not least <= value < below:
            what = f"an integer from {least} to {below - 1}"
            raise self.fail(key, f"expected {what}, not {short(value)}")
        return value

    def seconds(self, key: str | int) -> float:
        """Return the instant or duration under `key`, in seconds."""
        value = self.raw(key)
        if type(value) is int:
            value = float(value)
        if (
            type(value) is not float
            or not math.isfinite(value)
            or not -LATEST / 10 <= value <= LATEST
        ):
            raise self.fail(key, f"expected a number of seconds, not {short(value)}")
        return value

    def maybe_seconds(self, key: str | int) -> float | None:
        """Return the seconds under `key`, or `None` if there are none."""
        return None if self.raw(key) is None else self.seconds(key)

    def repeated(self, key: str | int) -> tuple[str, ...]:
        """Return the names under `key`, as written by `names_wire` or all spelled out."""
        names: list[str] = []
        for each in self.each(key):
            if type(each.data) is str:
                names.append(each.data)
            else:
                count = each.count(1, least=1)
                self.whole.names += count
                if self.whole.names > MOST_NAMES:
                    raise each.fail(1, f"expected at most {MOST_NAMES:,} names in total")
                names += [each.take(0, str)] * count
        return tuple(names)

    def names(self, key: str | int) -> tuple[str, ...]:
        """Return the list of strings under `key`, which is empty if there is none."""
        value = self.raw(key)
        if value is None:
            return ()
        if type(value) is not list or any(type(name) is not str for name in value):
            raise self.fail(key, f"expected a list of names, not {short(value)}")
        return tuple(value)

    def texts(self, key: str | int) -> dict[str, str] | None:
        """Return the object of strings under `key`, or `None` if there is none."""
        value = self.maybe(key, dict)
        if value is not None and any(type(text) is not str for text in value.values()):
            raise self.fail(key, f"expected an object of strings, not {short(value)}")
        return value

    def each(self, key: str | int) -> Iterator[Reader]:
        """Yield a reader for each item of the list under `key`; none if there is no list."""
        value = self.raw(key)
        if value is None:
            return
        if type(value) is not list:
            raise self.fail(key, f"expected a list, not {short(value)}")
        base = self.where(key)
        for i, item in enumerate(value):
            yield Reader(item, f"{base}[{i}]", self.whole)

    def inner(self, key: str | int) -> Reader | None:
        """Return a reader of the value under `key`, or `None` if there is none."""
        value = self.raw(key)
        return None if value is None else Reader(value, self.where(key), self.whole)

    def payload(self, key: str | int) -> Payload:
        """Return the payload under `key`, which is in place or a blob's digest.

        Its bytes are those with which it was encoded.
        """
        wire = self.raw(key)
        if type(wire) is dict and len(wire) == 1 and "$blob" in wire:
            return self._large(key, wire["$blob"])
        try:
            data = orjson.dumps(wire)
        except orjson.JSONEncodeError as error:
            raise self.fail(key, str(error)) from error
        return payload_of(data)

    def _large(self, key: str | int, digest: Any) -> Payload:
        whole = self.whole
        data = whole.blobs.get(digest) if type(digest) is str else None
        if data is None:
            raise self.fail(key, f"the large value {short(digest)} that it refers to is missing")
        if digest not in whole.checked:
            # SQLite returns values of any type that were put into a row by hand.
            if type(data) is not bytes or hashlib.sha256(data).hexdigest() != digest:
                msg = f"the large value {short(digest)} is not what was stored under this digest"
                raise self.fail(key, f"{msg}: the database was damaged or changed by others")
            whole.checked.add(digest)
        return Payload(data, digest)

    def event(self, key: str | int) -> tuple[Event, Payload]:
        """Return the event under `key`, with its payload."""
        payload = self.payload(key)
        wire = self.raw(key)
        try:
            return self.whole.codec.decode_event(
                wire if type(wire) is list else payload.data
            ), payload
        except SerializationError as error:
            message = f"{error.message} (in a {self.what}, at {self.where(key)})"
            raise SerializationError(
                message, subject=error.subject, path=error.path, newer=error.newer
            ) from error.__cause__


def question_id(reader: Reader, key: str | int, event: Event) -> str:
    """Return the `request_id` of a question, which must be that of its event.

    The answer has to name it.
    """
    request_id = reader.take(key, str)
    event_type = short(event.event_type)
    if isinstance(event, DynamicEvent):
        asked, prompt = event.data.get("request_id"), event.data.get("prompt")
    elif isinstance(event, InputRequestEvent):
        asked, prompt = event.request_id, event.prompt
    else:
        raise reader.fail(key, f"an event of type {event_type} is not a question")
    if asked != request_id or not isinstance(prompt, str):
        raise reader.fail(key, f"the event of type {event_type} is not the question with this id")
    return request_id


def metadata_of(reader: Reader) -> Payload:
    """Return a run's metadata, which must be a dict of any contents."""
    payload = reader.payload("metadata")
    try:
        value = PLAIN.decode_value(payload.data, "metadata")
    except SerializationError as error:
        raise reader.fail("metadata", error.message) from error
    if not isinstance(value, dict):
        raise reader.fail("metadata", f"expected an object, not {short(value)}")
    return payload


def error_of(reader: Reader) -> StoredError:
    """Read a stored error."""
    return StoredError(
        reader.take("kind", str),
        reader.take("message", str),
        step=reader.maybe("step", str) or "",
        attempts=reader.count("attempts", 0),
        error_type=reader.maybe("error_type", str) or "",
        details=reader.names("details"),
        traceback=reader.maybe("traceback", str) or "",
    )
