"""Reading JSON that anybody may have written: every value is checked, every fault names its place."""

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
"""Numbers are less: what is counted on from them has 64 bits."""
MOST_NAMES: Final = 4_000_000
"""How many names that are written with their numbers a document may have in all: so that a few
bytes don't become any number of them."""
LATEST = 253_402_300_799.0
"""The last second of the year 9999, after which Python has no dates."""


def rubbish(what: str, path: str, message: str) -> SerializationError:
    """The error of stored data that can't be read."""
    where = f" at {path}" if path else ""
    return SerializationError(
        f"this is no {what} that can be read{where}: {message}", subject=what, path=path
    )


def parse(data: bytes, what: str, version_key: str, supported: int) -> dict[str, Any]:
    """Parse a JSON object whose format number is under `version_key`.

    Raises:
        SnapshotVersionError: It is newer than `supported`.
        SerializationError: It is no such object.
    """
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise rubbish(what, "", f"it is not JSON ({error})") from error
    if type(document) is not dict:
        raise rubbish(what, "", f"a JSON object is expected, not {short(document)}")
    version = document.get(version_key)
    if type(version) is not int or version < 1:
        raise rubbish(what, version_key, f"its format number is expected, not {short(version)}")
    if version > supported:
        msg = (
            f"this {what} has format {version}, and this version of blazen_trio reads formats up to {supported}: "
            "upgrade blazen_trio"
        )
        raise SnapshotVersionError(msg, found=version, supported=supported)
    return document


class Whole:
    """What the readers of all parts of one document share.

    Args:
        what: What the document is: `snapshot`, `journal entry`.
        blobs: Large payloads by digest.
        codec: Decodes its events.
    """

    __slots__ = ("blobs", "checked", "codec", "names", "what")

    def __init__(self, what: str, blobs: Mapping[str, bytes], codec: Codec) -> None:
        self.what = what
        self.blobs = blobs
        self.codec = codec
        self.checked: set[str] = set()
        """The digests of large payloads that have been looked at."""
        self.names = 0
        """How many names have come of those that are written with their numbers."""


class Reader:
    """Takes checked parts out of a JSON object or list.

    Args:
        data: The object or list.
        path: Where it is in the whole.
        whole: The document that it is part of.
    """

    __slots__ = ("data", "path", "whole")

    def __init__(self, data: Any, path: str, whole: Whole) -> None:
        self.data = data
        self.path = path
        self.whole = whole

    @property
    def what(self) -> str:
        """What the whole is."""
        return self.whole.what

    def where(self, key: str | int) -> str:
        """The path of what is under `key`."""
        if isinstance(key, int):
            return f"{self.path}[{key}]"
        return f"{self.path}.{key}" if self.path else key

    def fail(self, key: str | int, message: str) -> SerializationError:
        """The error for what is under `key`."""
        return rubbish(self.what, self.where(key), message)

    def raw(self, key: str | int) -> Any:
        """What is under `key`; `None` where nothing is."""
        data = self.data
        if type(data) is dict:
            return data.get(key)
        if type(data) is list:
            return data[key] if isinstance(key, int) and key < len(data) else None
        raise rubbish(self.what, self.path, f"an object or a list is expected, not {short(data)}")

    def take(self, key: str | int, kind: type[T]) -> T:
        """What is under `key`, of exactly this type."""
        value = self.raw(key)
        if type(value) is not kind:
            raise self.fail(key, f"{kind.__name__} is expected, not {short(value)}")
        return value

    def maybe(self, key: str | int, kind: type[T]) -> T | None:
        """The same, or `None` where nothing is."""
        return None if self.raw(key) is None else self.take(key, kind)

    def count(
        self, key: str | int, default: int | None = None, least: int = 0, below: int = MOST
    ) -> int:
        """A whole number, at least `least` and less than `below`."""
        value = self.raw(key)
        if value is None and default is not None:
            return default
        if type(value) is not int or not least <= value < below:
            what = f"a whole number from {least} to {below - 1}"
            raise self.fail(key, f"{what} is expected, not {short(value)}")
        return value

    def seconds(self, key: str | int) -> float:
        """An instant or a duration."""
        value = self.raw(key)
        if type(value) is int:
            value = float(value)
        if (
            type(value) is not float
            or not math.isfinite(value)
            or not -LATEST / 10 <= value <= LATEST
        ):
            raise self.fail(key, f"a number of seconds is expected, not {short(value)}")
        return value

    def maybe_seconds(self, key: str | int) -> float | None:
        """The same, or `None` where nothing is."""
        return None if self.raw(key) is None else self.seconds(key)

    def repeated(self, key: str | int) -> tuple[str, ...]:
        """The names that `names_wire` has written, or all of them spelled out."""
        names: list[str] = []
        for each in self.each(key):
            if type(each.data) is str:
                names.append(each.data)
            else:
                count = each.count(1, least=1)
                self.whole.names += count
                if self.whole.names > MOST_NAMES:
                    raise each.fail(1, f"at most {MOST_NAMES:,} names are expected in all")
                names += [each.take(0, str)] * count
        return tuple(names)

    def names(self, key: str | int) -> tuple[str, ...]:
        """A list of strings; empty where nothing is."""
        value = self.raw(key)
        if value is None:
            return ()
        if type(value) is not list or any(type(name) is not str for name in value):
            raise self.fail(key, f"a list of names is expected, not {short(value)}")
        return tuple(value)

    def texts(self, key: str | int) -> dict[str, str] | None:
        """An object of strings; `None` where nothing is."""
        value = self.maybe(key, dict)
        if value is not None and any(type(text) is not str for text in value.values()):
            raise self.fail(key, f"an object of texts is expected, not {short(value)}")
        return value

    def each(self, key: str | int) -> Iterator[Reader]:
        """Readers of the items of a list, made as they are asked for; none where nothing is."""
        value = self.raw(key)
        if value is None:
            return
        if type(value) is not list:
            raise self.fail(key, f"a list is expected, not {short(value)}")
        base = self.where(key)
        for i, item in enumerate(value):
            yield Reader(item, f"{base}[{i}]", self.whole)

    def inner(self, key: str | int) -> Reader | None:
        """A reader of what is under `key`; `None` where nothing is."""
        value = self.raw(key)
        return None if value is None else Reader(value, self.where(key), self.whole)

    def payload(self, key: str | int) -> Payload:
        """A payload: given in place, or by the digest of a blob. Its bytes are as they were when it
        was encoded.
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
            # SQLite gives back whatever somebody has put into a row by hand.
            if type(data) is not bytes or hashlib.sha256(data).hexdigest() != digest:
                msg = f"the large value {short(digest)} is not what was stored under this digest"
                raise self.fail(key, f"{msg}: the database was damaged or changed by others")
            whole.checked.add(digest)
        return Payload(data, digest)

    def event(self, key: str | int) -> tuple[Event, Payload]:
        """An event with its payload."""
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
    """The id of a question, which its event has too, and which the answer has to name."""
    request_id = reader.take(key, str)
    event_type = short(event.event_type)
    if isinstance(event, DynamicEvent):
        asked, prompt = event.data.get("request_id"), event.data.get("prompt")
    elif isinstance(event, InputRequestEvent):
        asked, prompt = event.request_id, event.prompt
    else:
        raise reader.fail(key, f"an event of type {event_type} is no question")
    if asked != request_id or not isinstance(prompt, str):
        raise reader.fail(key, f"the event of type {event_type} is not the question of this id")
    return request_id


def metadata_of(reader: Reader) -> Payload:
    """A run's metadata: a dict, whatever is in it."""
    payload = reader.payload("metadata")
    try:
        value = PLAIN.decode_value(payload.data, "metadata")
    except SerializationError as error:
        raise reader.fail("metadata", error.message) from error
    if not isinstance(value, dict):
        raise reader.fail("metadata", f"an object is expected, not {short(value)}")
    return payload


def error_of(reader: Reader) -> StoredError:
    """A stored error."""
    return StoredError(
        reader.take("kind", str),
        reader.take("message", str),
        step=reader.maybe("step", str) or "",
        attempts=reader.count("attempts", 0),
        error_type=reader.maybe("error_type", str) or "",
        details=reader.names("details"),
        traceback=reader.maybe("traceback", str) or "",
    )
