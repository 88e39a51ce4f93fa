"""JSON documents that are written and read one line at a time, so that no line takes long.

    {"f":2,"q":17,"lines":[
    {"o":[...]},
    {"o":[...]}
    ]}

The first line is the head, without `"lines"`. Each line between the first and the last is a
document of its own, without the comma at its end. The whole is also one JSON document, so code from
before this format finds its format number and rejects it. The JSON in a line contains no line
breaks. A single large value is in one line, and is parsed in one piece.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from blazen_trio._codec.reader import parse, rubbish

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

__all__ = ["IN_LINES", "Pace", "batches", "document", "parse_parts"]

PLAIN: Final = 1
"""Format number of a plain JSON document."""
IN_LINES: Final = 2
"""Format number of a document in lines."""

_OPENED: Final = b',"lines":['
_MOST: Final = 128
_BYTES: Final = 512


class Pace:
    """A counter that reports when a slice is full: after 128 items or 64 KiB."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = _MOST

    def full(self, size: int) -> bool:
        """Count one item of `size` bytes, and return whether it fills the slice."""
        self._left -= 1 + size // _BYTES
        if self._left > 0:
            return False
        self._left = _MOST
        return True


def batches(items: Iterable[tuple[Any, int] | None]) -> Iterator[list[Any]]:
    """Group items, each given with its number of bytes, into lists of one slice each.

    `None` stands for an item that took time but is left out, so a list may be empty.
    """
    pace = Pace()
    batch: list[Any] = []
    for pair in items:
        item, size = pair or (None, 0)
        if pair is not None:
            batch.append(item)
        if pace.full(size):
            yield batch
            batch = []
    if batch:
        yield batch


def document(head: bytes, lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces of a document in lines.

    Args:
        head: A non-empty JSON object, with `IN_LINES` as its format number.
        lines: JSON objects. An empty one only yields: it adds no line.
    """
    yield head[:-1] + _OPENED + b"\n"
    before = b""
    for line in lines:
        if not line:
            yield line
            continue
        yield before + line
        before = b",\n"
    yield b"\n]}" if before else b"{}\n]}"


def parse_parts(
    data: bytes, what: str, version_key: str, *, newest: int = PLAIN
) -> tuple[dict[str, Any], Iterator[tuple[str, dict[str, Any]]]]:
    """Parse a document, in lines or plain.

    Args:
        data: The document.
        what: The kind of document, for messages.
        version_key: The key of its format number.
        newest: The greatest format number that a plain one may have.

    Returns:
        The head; and an iterator over the parts, each with its path in the document, which parses
        them one by one. The only part of a plain document is the document itself, already parsed.

    Raises:
        SnapshotVersionError: It was written by a newer version of this package.
        SerializationError: It is invalid. The iterator may raise this, too.
    """
    if not isinstance(data, bytes):
        # SQLite returns text if a row was edited by hand.
        data = str(data).encode("utf-8", "replace")  # type: ignore[unreachable]
    end = data.find(b"\n")
    if end < 0 or not data.startswith(_OPENED, max(end - len(_OPENED), 0)):
        whole = parse(data, what, version_key, newest)
        if whole[version_key] == IN_LINES:
            raise rubbish(what, version_key, "a document of this format is in lines")
        return whole, iter((("", whole),))
    head = parse(data[: end - len(_OPENED)] + b"}", what, version_key, IN_LINES)
    return head, _parts(data, end + 1, what)


def _parts(data: bytes, start: int, what: str) -> Generator[tuple[str, dict[str, Any]], None, None]:
    view = memoryview(data)
    number = 0
    last = False
    while not last:
        path = f"lines[{number}]"
        end = data.find(b"\n", start)
        if end < 0:
            raise rubbish(what, path, "the end is missing")
        last = data[end - 1 : end] != b","
        try:
            part = orjson.loads(view[start : end if last else end - 1])
        except orjson.JSONDecodeError as error:
            raise rubbish(what, path, f"it is not JSON ({error})") from error
        if type(part) is not dict:
            raise rubbish(what, path, "expected a JSON object")
        yield path, part
        number += 1
        start = end + 1
    if data[start:] != b"]}":
        raise rubbish(what, "lines", "the last line is wrong")
