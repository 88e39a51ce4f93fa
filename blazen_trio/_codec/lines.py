"""One JSON document that is written and read a line at a time, so that no piece of it takes long.

    {"f":2,"q":17,"lines":[
    {"o":[...]},
    {"o":[...]}
    ]}

Its head is the first line, without `"lines"`; each line between the first and the last is a
document of its own, the comma at its end left out. All of it together is one JSON document too:
code that knows lines not yet finds its number. No JSON here has line breaks of its own. A single
large value is in one line, and takes what it takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from blazen_trio._codec.reader import parse, rubbish

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

__all__ = ["IN_LINES", "Pace", "batches", "document", "parse_parts"]

PLAIN: Final = 1
"""The format of what is one plain JSON document."""
IN_LINES: Final = 2
"""The format of what is in lines."""

_OPENED: Final = b',"lines":['
_MOST: Final = 128
_BYTES: Final = 512


class Pace:
    """Tells when a piece is large enough: after 128 items, or 64 KiB."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = _MOST

    def full(self, size: int) -> bool:
        """Note one item more, of so many bytes; tell whether the piece is full by it."""
        self._left -= 1 + size // _BYTES
        if self._left > 0:
            return False
        self._left = _MOST
        return True


def batches(items: Iterable[tuple[Any, int] | None]) -> Iterator[list[Any]]:
    """Put items, each given with its number of bytes, into lists that are a piece each.

    `None` is one that took time and is left out, so a list may be empty.
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
    """Return the pieces of a document in lines.

    Args:
        head: A JSON object, not empty; its number is `IN_LINES`.
        lines: JSON objects; an empty one is a piece that is left out.
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
    data: bytes, what: str, version_key: str
) -> tuple[dict[str, Any], Iterator[tuple[str, dict[str, Any]]]]:
    """Parse a document: one in lines, or a plain one.

    Returns:
        The head; and its parts, each with its place in the document, parsed as they are asked for. The only part of a
        plain document is itself, and has been parsed already.

    Raises:
        SnapshotVersionError: It was written by a newer version of this package.
        SerializationError: It is rubbish. So may be each of its parts.
    """
    if not isinstance(data, bytes):
        # SQLite gives back text where somebody has changed a row by hand.
        data = str(data).encode("utf-8", "replace")  # type: ignore[unreachable]
    end = data.find(b"\n")
    if end < 0 or not data.startswith(_OPENED, max(end - len(_OPENED), 0)):
        whole = parse(data, what, version_key, PLAIN)
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
            raise rubbish(what, path, "it ends in the middle")
        last = data[end - 1 : end] != b","
        try:
            part = orjson.loads(view[start : end if last else end - 1])
        except orjson.JSONDecodeError as error:
            raise rubbish(what, path, f"it is not JSON ({error})") from error
        if type(part) is not dict:
            raise rubbish(what, path, "a JSON object is expected")
        yield path, part
        number += 1
        start = end + 1
    if data[start:] != b"]}":
        raise rubbish(what, "lines", "it does not end as it should")
