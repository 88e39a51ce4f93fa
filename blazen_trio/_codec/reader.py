"""Reading JSON that anybody may have written: every value is checked, every fault names its place."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from blazen_trio._codec.codec import payload_of
from blazen_trio._codec.names import short
from blazen_trio._state.model import Payload, StoredError
from blazen_trio.errors import SerializationError, SnapshotVersionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from blazen_trio._codec.codec import Codec
    from blazen_trio._definitions.events import Event

__all__ = ["Reader", "error_of", "parse", "rubbish"]

T = TypeVar("T")

MOST_NAMES = 1_000_000
"""How often a name may be there in a row: so that a few bytes don't become any number of them."""
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


class Reader:
    """Takes checked parts out of a JSON object or list.

    Args:
        data: The object or list.
        path: Where it is in the whole.
        what: What the whole is: `snapshot`, `journal entry`.
        blobs: Large payloads by digest.
        codec: Decodes its events.
    """

    __slots__ = ("blobs", "codec", "data", "path", "what")

    def __init__(
        self, data: Any, path: str, what: str, blobs: Mapping[str, bytes], codec: Codec
    ) -> None:
        self.data = data
        self.path = path
        self.what = what
        self.blobs = blobs
        self.codec = codec

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

    def count(self, key: str | int, default: int | None = None, least: int = 0) -> int:
        """A whole number, at least `least`."""
        value = self.raw(key)
        if value is None and default is not None:
            return default
        if type(value) is not int or not least <= value < 2**63:
            raise self.fail(key, f"a whole number from {least} on is expected, not {short(value)}")
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
                if count > MOST_NAMES:
                    raise each.fail(1, f"at most {MOST_NAMES:,} are expected, not {count:,}")
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
            yield Reader(item, f"{base}[{i}]", self.what, self.blobs, self.codec)

    def inner(self, key: str | int) -> Reader | None:
        """A reader of what is under `key`; `None` where nothing is."""
        value = self.raw(key)
        return (
            None
            if value is None
            else Reader(value, self.where(key), self.what, self.blobs, self.codec)
        )

    def payload(self, key: str | int) -> Payload:
        """A payload: given in place, or by the digest of a blob. Its bytes are as they were when it
        was encoded.
        """
        wire = self.raw(key)
        if type(wire) is dict and len(wire) == 1 and "$blob" in wire:
            digest = wire["$blob"]
            data = self.blobs.get(digest) if type(digest) is str else None
            if data is None:
                raise self.fail(
                    key, f"the large value {short(digest)} that it refers to is missing"
                )
            return Payload(data, digest)
        try:
            data = orjson.dumps(wire)
        except orjson.JSONEncodeError as error:
            raise self.fail(key, str(error)) from error
        return payload_of(data)

    def event(self, key: str | int) -> tuple[Event, Payload]:
        """An event with its payload."""
        payload = self.payload(key)
        wire = self.raw(key)
        try:
            return self.codec.decode_event(wire if type(wire) is list else payload.data), payload
        except SerializationError as error:
            message = f"{error.message} (in a {self.what}, at {self.where(key)})"
            raise SerializationError(
                message, subject=error.subject, path=error.path
            ) from error.__cause__


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
