"""Encoding and decoding of history records."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Final

import orjson

from blazen_trio._codec.codec import PLAIN
from blazen_trio._codec.lines import IN_LINES, Pace, batches, document, parse_parts
from blazen_trio._codec.names import short
from blazen_trio._codec.reader import Reader, Whole
from blazen_trio._state.entry import HistoryRecord, drained

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence


__all__ = [
    "UnwrittenHistory",
    "decode_history",
    "decoding_history",
    "encode_following",
    "encode_history",
    "encoding_history",
    "record_of",
    "record_wire",
]

_FORMAT: Final = 1
_FOLLOWING: Final = 3
"""Format number of records without sequences: they follow the records that are stored before."""
_WIDE: Final = 512
"""Largest number of records that is not written in lines."""


def encode_history(records: Sequence[HistoryRecord]) -> bytes:
    """Encode history records as a JSON object that contains its format number."""
    return drained(encoding_history(records))


def encoding_history(records: Sequence[HistoryRecord]) -> Generator[None, None, bytes]:
    """Return the result of `encode_history`, in slices. Many records are written in lines."""
    if len(records) <= _WIDE:
        return orjson.dumps({"f": _FORMAT, "r": [record_wire(record) for record in records]})
    pieces: list[bytes] = []
    for piece in document(_HEAD, _lines(records)):
        pieces.append(piece)
        yield
    return b"".join(pieces)


def encode_following(record: HistoryRecord) -> bytes:
    """Encode a record whose sequence is not known: it follows the last stored record."""
    return orjson.dumps({"f": _FOLLOWING, "r": [record_wire(record)]})


_HEAD: Final = orjson.dumps({"f": IN_LINES})


def _lines(records: Iterable[HistoryRecord]) -> Iterator[bytes]:
    for some in batches((record, len(record.error or "")) for record in records):
        yield orjson.dumps({"r": [record_wire(record) for record in some]})


class UnwrittenHistory:
    """History records that the next commit will write.

    If there are many, all but the last few are encoded as they are added, so that little is left to
    encode when the commit is made.
    """

    __slots__ = ("_encoded", "_first", "_records")

    def __init__(self) -> None:
        self._first = 0
        self._encoded: list[bytes] = []
        self._records: list[HistoryRecord] = []

    def add(self, record: HistoryRecord) -> None:
        """Add a record, to be written after the earlier ones."""
        if not self._first:
            self._first = record.sequence
        self._records.append(record)
        if len(self._records) > _WIDE:
            self._encode()

    def _encode(self) -> None:
        self._encoded += _lines(self._records)
        self._records.clear()

    def take(self) -> tuple[int, bytes] | None:
        """Remove all records, and return them as encoded by `encode_history`.

        Returns:
            The sequence of the first record, and the bytes; `None` if there are no records.
        """
        if not self._first:
            return None
        if self._encoded:
            self._encode()
            data = b"".join(document(_HEAD, self._encoded))
        else:
            data = encode_history(self._records)
        first, self._first = self._first, 0
        self._encoded, self._records = [], []
        return first, data


def record_wire(record: HistoryRecord) -> list[Any]:
    """Return a record as a list, without trailing fields that are `None`."""
    wire = [
        record.sequence,
        record.timestamp.astimezone(dt.UTC),
        record.kind,
        record.step,
        record.event_type,
        record.duration,
        record.error,
    ]
    while wire[-1] is None:
        wire.pop()
    return wire


def decode_history(data: bytes, before: int = 0) -> list[HistoryRecord]:
    """Decode the result of `encode_history`, or of `encode_following`.

    Args:
        data: The bytes.
        before: The sequence of the last record stored before these.

    Raises:
        SnapshotVersionError: They were written by a newer version of this package.
        SerializationError: They are invalid.
    """
    return drained(decoding_history(data, before))


def decoding_history(data: bytes, before: int = 0) -> Generator[None, None, list[HistoryRecord]]:
    """Return the result of `decode_history`, in slices."""
    records: list[HistoryRecord] = []
    pace = Pace()
    whole = Whole("history", {}, PLAIN)
    head, parts = parse_parts(data, "history", "f", newest=_FOLLOWING)
    following = head["f"] == _FOLLOWING
    for path, part in parts:
        for each in Reader(part, path, whole).each("r"):
            sequence = before + len(records) + 1 if following else None
            records.append(record_of(each, sequence))
            if pace.full(len(records[-1].error or "")):
                yield
    return records


def record_of(reader: Reader, sequence: int | None = None) -> HistoryRecord:
    """Read a record from a list. With a sequence, the record gets this one."""
    text = reader.take(1, str)
    try:
        timestamp = dt.datetime.fromisoformat(text).astimezone(dt.UTC)
    except (ValueError, OverflowError) as error:
        raise reader.fail(1, f"{short(text)} is not an instant: {error}") from error
    return HistoryRecord(
        reader.count(0, least=1) if sequence is None else sequence,
        timestamp,
        reader.take(2, str),
        reader.maybe(3, str),
        reader.maybe(4, str),
        reader.maybe_seconds(5),
        reader.maybe(6, str),
    )
