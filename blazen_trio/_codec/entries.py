"""Encoding of journal entries as compact JSON objects, without fields that have their defaults.

Keys: `f` format, `q` seq, `k` kind (default `committed`), `t` at and elapsed (format 3: only at, as
elapsed is that of the entry before), `s` step, `d` done,
`o` outputs, `n` fan-out opened, `r` joins fired, `c` cells set, `x` cells deleted, `l` collected,
`y` retry, `v` recovers, `z` stop event, `a` status, `w` error, `p` epoch, `b` created.

A wide entry is in lines (format 2, see `lines.py`). They contain `o`, `c`, `x` and `l`, and the
members of the fan-out under `m`; a later line of a kind continues the earlier one. An output is
`[event, steps, joins, due, request_id]` without trailing empty fields; a single step is not in a
list. History records are stored separately (`histories.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from blazen_trio._codec.lines import IN_LINES, Pace, batches, document, parse_parts
from blazen_trio._codec.names import short
from blazen_trio._codec.reader import Reader, Whole, error_of, metadata_of, question_id, rubbish
from blazen_trio._codec.writer import (
    collected_wire,
    collected_wires,
    error_wire,
    output_wire,
    reference,
    size_of,
    write_cells,
)
from blazen_trio._definitions.targets import Targets
from blazen_trio._state.entry import Collected, Entry, FanOutOpened, Output, Retry, drained
from blazen_trio._state.model import MOST_EPOCHS, Cell, Payload
from blazen_trio._state.status import RunStatus
from blazen_trio.errors import SerializationError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from blazen_trio._codec.codec import Codec

__all__ = [
    "FORMAT",
    "decode_entry",
    "decoding_entry",
    "encode_entry",
    "encoding_entry",
    "seal_entry",
]

FORMAT: Final = 1
_TERSE: Final = 3
"""Format number of an entry whose `t` has no elapsed time: it is that of the entry before."""
_WIDE: Final = 512
"""Largest number of items that is not written in lines."""
_BULKY: Final = 256 * 1024
"""Largest number of bytes that is not written in lines."""
_WHAT: Final = "journal entry"


def encode_entry(entry: Entry) -> tuple[bytes, dict[str, bytes]]:
    """Return an entry's bytes, and the large payloads that they refer to, by digest.

    Raises:
        SerializationError: The entry was not sealed before, and can't be.
    """
    if entry.sealed is None:
        seal_entry(entry)
    assert entry.sealed is not None
    assert entry.rest is None, "the joins that it fires are known only once all of it is applied"
    data, blobs, whole = entry.sealed
    if not whole:
        return drained(encoding_entry(entry))
    return (_with_fired(data, entry) if entry.fired else data), blobs


def encoding_entry(entry: Entry) -> Generator[None, None, tuple[bytes, dict[str, bytes]]]:
    """Return the result of `encode_entry`, in slices, which are short even for a wide entry."""
    if entry.sealed is None:
        seal_entry(entry)
    assert entry.sealed is not None
    assert entry.rest is None, "the joins that it fires are known only once all of it is applied"
    head, blobs, whole = entry.sealed
    if whole:
        return encode_entry(entry)
    blobs = dict(blobs)
    pieces: list[bytes] = []
    for piece in document(_with_fired(head, entry), _lines(entry, blobs)):
        pieces.append(piece)
        yield
    return b"".join(pieces), blobs


def _with_fired(data: bytes, entry: Entry) -> bytes:
    return data[:-1] + b',"r":' + orjson.dumps(entry.fired) + b"}"


def seal_entry(entry: Entry, *, in_lines: bool = False) -> None:
    """Encode everything in an entry whose encoding can fail, and keep it in `entry.sealed`.

    It runs before the entry is applied. If encoding failed after that, memory would be ahead of
    what can be written. Only the joins that the entry fires are known later, and their names were
    checked when the workflow was built. For a wide entry, this encodes the head and checks the
    names; the lines are assembled later from bytes that already exist. Events and values are never
    encoded here, because each already has its payload.

    Args:
        entry: The entry.
        in_lines: Whether to write it in lines even if it is narrow.

    Raises:
        SerializationError: A name or message in it is a text that can't be stored.
    """
    in_lines = in_lines or _items_in(entry) > _WIDE
    blobs: dict[str, bytes] = {}
    terse = entry.elapsed is None
    format_ = IN_LINES if in_lines else _TERSE if terse else FORMAT
    wire: dict[str, Any] = {"f": format_, "q": entry.seq}
    plain = entry.kind == "committed"
    if not plain:
        wire["k"] = entry.kind
    wire["t"] = (entry.at,) if terse else (entry.at, entry.elapsed)
    if entry.step is not None:
        wire["s"] = entry.step
    if entry.done:
        wire["d"] = entry.done
    if not in_lines:
        if entry.outputs:
            routed = entry.stop is None
            wire["o"] = [output_wire(output, blobs, routed=routed) for output in entry.outputs]
        if entry.cells:
            write_cells(entry.cells, wire, blobs)
    # Of the rare parts, the commit of a step has only these. Nearly all entries are one without.
    if not plain or entry.fan_out is not None or entry.collected:
        _write_rare(entry, wire, blobs, in_lines=in_lines)
    try:
        data = orjson.dumps(wire)
        if in_lines:
            _check_names(entry)
    except (orjson.JSONEncodeError, UnicodeEncodeError) as error:
        msg = f"can't encode journal entry {entry.seq} ({entry.kind}): {error}"
        raise SerializationError(msg, subject="journal entry") from error
    if len(data) > _BULKY and not (in_lines or terse):
        seal_entry(entry, in_lines=True)
    else:
        entry.sealed = data, blobs, not in_lines


def _items_in(entry: Entry) -> int:
    items = len(entry.outputs) + len(entry.cells or ())
    if entry.fan_out is not None:
        items += len(entry.fan_out.outputs)
    for collected in entry.collected:
        items += len(collected.taken)
    return items


def _check_names(entry: Entry) -> None:
    """Check the names from users in the lines. Encoding the rest of the lines can't fail."""
    "".join(entry.cells or ()).encode()
    for collected in entry.collected:
        "".join((collected.step, *collected.types)).encode()


def _lines(entry: Entry, blobs: dict[str, bytes]) -> Iterator[bytes]:
    """Yield the lines of a wide entry, with many items each, but none that takes long."""
    for batch in batches(collected_wires(entry.collected, blobs)):
        yield orjson.dumps({"l": batch})
    cells = entry.cells or {}
    for pairs in batches(((key, cell), size_of(cell)) for key, cell in cells.items()):
        line: dict[str, Any] = {}
        write_cells(dict(pairs), line, blobs)
        yield orjson.dumps(line)
    routed = entry.stop is None
    for some in batches((output, size_of(output)) for output in entry.outputs):
        yield orjson.dumps({"o": [output_wire(output, blobs, routed=routed) for output in some]})
    members = () if entry.fan_out is None else entry.fan_out.outputs
    for some in batches((output, size_of(output)) for output in members):
        yield orjson.dumps({"m": [output_wire(output, blobs) for output in some]})


def _write_rare(
    entry: Entry, wire: dict[str, Any], blobs: dict[str, bytes], *, in_lines: bool
) -> None:
    if entry.fan_out is not None:
        opened = entry.fan_out
        members = () if in_lines else opened.outputs
        wire["n"] = [opened.joins, [output_wire(output, blobs) for output in members]]
        if opened.if_any:
            wire["n"].append(opened.if_any)
    if entry.collected and not in_lines:
        wire["l"] = [collected_wire(collected, blobs) for collected in entry.collected]
    if (retry := entry.retry) is not None:
        wire["y"] = [retry.id, retry.attempt, retry.due, retry.since]
    if entry.recovers is not None:
        wire["v"] = entry.recovers
    if entry.stop_payload is not None:
        wire["z"] = reference(entry.stop_payload, blobs)
    if entry.status is not None:
        wire["a"] = entry.status.value
    if entry.error is not None:
        wire["w"] = error_wire(entry.error)
    if entry.epoch is not None:
        wire["p"] = entry.epoch
    if entry.created is not None:
        wire["b"] = created = dict(entry.created)
        if "metadata" in created:
            created["metadata"] = reference(created["metadata"], blobs)


def decode_entry(data: bytes, blobs: Mapping[str, bytes], codec: Codec) -> Entry:
    """Decode an entry. Its payloads have exactly the bytes with which they were written.

    Raises:
        SnapshotVersionError: It was written by a newer version of this package.
        SerializationError: It is invalid, or an event in it does not match its class.
    """
    return drained(decoding_entry(data, blobs, codec))


def decoding_entry(
    data: bytes, blobs: Mapping[str, bytes], codec: Codec
) -> Generator[None, None, Entry]:
    """Return the result of `decode_entry`, in slices of at most one line.

    An entry from before there were lines, and a single large event, are parsed in one piece.
    """
    head, parts = parse_parts(data, _WHAT, "f", newest=_TERSE)
    whole = Whole(_WHAT, blobs, codec)
    reader = Reader(head, "", whole)
    when = reader.inner("t") or reader
    entry = Entry(
        reader.count("q", least=1),
        reader.maybe("k", str) or "committed",
        when.seconds(0),
        None if head["f"] == _TERSE else when.seconds(1),
    )
    entry.step = reader.maybe("s", str)
    entry.done = reader.count("d", 0)
    _read_rare(entry, reader)
    pace = Pace()
    outputs: list[Output] = []
    collected: list[Collected] = []
    members: list[Output] = []
    if (opened := reader.inner("n")) is not None:
        yield from _outputs_of(opened.each(1), members, pace)
        entry.fan_out = FanOutOpened(opened.names(0), members, opened.names(2))
    for path, part in parts:
        within = Reader(part, path, whole)
        yield from _outputs_of(within.each("o"), outputs, pace)
        yield from _outputs_of(within.each("m"), members, pace)
        for each in within.each("l"):
            collected.append(_collected_of(each))
            if pace.full(16 * len(collected[-1].taken)):
                yield
        if part.get("c") or part.get("x"):
            entry.cells = entry.cells or {}
            yield from _cells_of(within, entry.cells, pace)
        if part is not head:
            yield
    if outputs:
        entry.outputs = outputs
    if collected:
        entry.collected = collected
    return entry


def _outputs_of(
    readers: Iterator[Reader], outputs: list[Output], pace: Pace
) -> Generator[None, None, None]:
    for each in readers:
        output = _output_of(each)
        outputs.append(output)
        if pace.full(len(output.payload.data)):  # type: ignore[union-attr]
            yield


def _read_rare(entry: Entry, reader: Reader) -> None:
    if reader.raw("r"):
        entry.fired = [(each.count(0), each.take(1, str)) for each in reader.each("r")]
    if (retry := reader.inner("y")) is not None:
        entry.retry = Retry(
            retry.count(0), retry.count(1, least=1), retry.seconds(2), retry.seconds(3)
        )
    entry.recovers = reader.maybe("v", str)
    if reader.raw("z") is not None:
        entry.stop, entry.stop_payload = reader.event("z")
    if reader.raw("a") is not None:
        entry.status = status_of(reader, "a")
    if (error := reader.inner("w")) is not None:
        entry.error = error_of(error)
    if reader.raw("p") is not None:
        entry.epoch = reader.count("p", below=MOST_EPOCHS)
    if (created := reader.inner("b")) is not None:
        entry.created = _created_of(created)


def _created_of(reader: Reader) -> dict[str, Any]:
    """Read the run's properties: all for a `started` entry, some for a `resumed` one."""
    created: dict[str, Any] = {
        "workflow_version": reader.take("workflow_version", str),
        "root": reader.take("root", bool),
        "timeout": reader.seconds("timeout") if reader.raw("timeout") is not None else None,
    }
    if reader.raw("run_id") is not None:
        created["run_id"] = reader.take("run_id", str)
        created["workflow"] = reader.take("workflow", str)
        created["metadata"] = metadata_of(reader)
    if reader.raw("nonce") is not None:
        created["nonce"] = reader.take("nonce", str)
    if (trace := reader.texts("trace")) is not None:
        created["trace"] = trace
    return created


def status_of(reader: Reader, key: str) -> RunStatus:
    """Return the status whose name is under `key`."""
    name = reader.take(key, str)
    try:
        return RunStatus(name)
    except ValueError:
        raise reader.fail(key, f"{short(name)} is not a status of a run") from None


def _output_of(reader: Reader) -> Output:
    event, payload = reader.event(0)
    steps = (reader.take(1, str),) if type(reader.raw(1)) is str else reader.names(1)
    return Output(
        event,
        payload,
        Targets(steps, reader.names(2)),
        reader.maybe_seconds(3),
        None if reader.raw(4) is None else question_id(reader, 4, event),
    )


def _cells_of(
    reader: Reader, cells: dict[str, Cell | None], pace: Pace
) -> Generator[None, None, None]:
    cells.update(dict.fromkeys(reader.names("x")))
    if (kept := reader.inner("c")) is not None:
        for key in reader.take("c", dict):
            payload = kept.payload(key)
            cells[key] = cell_of(payload)
            if pace.full(len(payload.data)):
                yield


def cell_of(payload: Payload) -> Cell:
    """Return a cell with this payload, including the value if it is a short JSON scalar."""
    if len(payload.data) < 64:
        value = orjson.loads(payload.data)
        if value is None or type(value) in (str, int, float, bool):
            return Cell(payload, (value,))
    return Cell(payload)


def _collected_of(reader: Reader) -> Collected:
    added = reader.inner(2)
    return Collected(
        types=reader.repeated(1),
        added=None if added is None else (added.take(0, str), *added.event(1)),
        taken=tuple(each.data for each in reader.each(3) if _is_id(each)),
        step=reader.take(0, str),
    )


def _is_id(reader: Reader) -> bool:
    if type(reader.data) is not int or reader.data < 1:
        raise rubbish(reader.what, reader.path, f"expected an id, not {short(reader.data)}")
    return True
