"""Journal entries as bytes: a compact JSON object with only what is not the default.

Keys: `f` format, `q` seq, `k` kind (left out: `committed`), `t` at and elapsed, `s` step, `d` done, `o` outputs,
`n` fan-out opened, `r` joins fired, `c` cells set, `x` cells deleted, `l` collected, `y` retry, `z` stop event,
`a` status, `w` error, `p` epoch, `b` created. An output is `[event, steps, joins, due, request_id]`, cut after the
last that it has; one step stands for itself. History records are not in it: they are stored apart, as `encode_history` gives them.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Final

import orjson

from blazen_trio._codec.codec import PLAIN
from blazen_trio._codec.names import short
from blazen_trio._codec.reader import Reader, error_of, parse, rubbish
from blazen_trio._codec.writer import error_wire, names_wire, reference
from blazen_trio._state.entry import Collected, Entry, FanOutOpened, Output, Retry, Targets
from blazen_trio._state.history import HistoryRecord
from blazen_trio._state.model import Cell, Payload
from blazen_trio._state.status import RunStatus
from blazen_trio.errors import SerializationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blazen_trio._codec.codec import Codec

__all__ = [
    "FORMAT",
    "decode_entry",
    "decode_history",
    "encode_entry",
    "encode_history",
    "record_of",
    "record_wire",
    "seal_entry",
]

FORMAT: Final = 1


def encode_entry(entry: Entry) -> tuple[bytes, dict[str, bytes]]:
    """Return an entry's bytes, and the large payloads that they refer to, by digest.

    Raises:
        SerializationError: It was not sealed before, and can't be.
    """
    if entry.sealed is None:
        seal_entry(entry)
    assert entry.sealed is not None
    data, blobs = entry.sealed
    if entry.fired:
        data = data[:-1] + b',"r":' + orjson.dumps(entry.fired) + b"}"
    return data, blobs


def seal_entry(entry: Entry) -> None:
    """Encode all of an entry that may fail to be encoded, and keep it in `entry.sealed`.

    What is known only once the entry is applied, the joins that it fires, are names that were
    checked when the workflow was built.

    Events and values are not encoded again: their payloads (which every one must have) are put in as they are.

    Raises:
        SerializationError: A name or message in it is no text that can be stored.
    """
    blobs: dict[str, bytes] = {}
    wire: dict[str, Any] = {"f": FORMAT, "q": entry.seq}
    if entry.kind != "committed":
        wire["k"] = entry.kind
    wire["t"] = (entry.at, entry.elapsed)
    if entry.step is not None:
        wire["s"] = entry.step
    if entry.done:
        wire["d"] = entry.done
    if entry.outputs:
        routed = entry.stop is None
        wire["o"] = [_output_wire(output, blobs, routed=routed) for output in entry.outputs]
    if entry.cells:
        _write_cells(entry.cells, wire, blobs)
    if (
        entry.fan_out is not None
        or entry.collected
        or entry.retry is not None
        or entry.stop_payload is not None
        or entry.status is not None
        or entry.error is not None
        or entry.epoch is not None
        or entry.created is not None
    ):
        _write_rare(entry, wire, blobs)
    try:
        entry.sealed = orjson.dumps(wire), blobs
    except orjson.JSONEncodeError as error:
        msg = f"can't encode the journal entry {entry.seq} ({entry.kind}): {error}"
        raise SerializationError(msg, subject="journal entry") from error


def _output_wire(output: Output, blobs: dict[str, bytes], *, routed: bool = True) -> list[Any]:
    payload = output.payload
    assert payload is not None, "a run with a store encodes its events before it records them"
    if not routed:
        return [reference(payload, blobs), ()]
    steps, joins = output.targets.steps, output.targets.joins
    wire: list[Any] = [reference(payload, blobs), steps[0] if len(steps) == 1 else steps]
    if joins or output.due is not None or output.request_id is not None:
        wire += [joins, output.due, output.request_id]
        while wire[-1] is None:
            wire.pop()
    return wire


def _write_cells(cells: Mapping[str, Cell | None], wire: dict[str, Any], blobs: dict[str, bytes]) -> None:
    if kept := {key: reference(cell.payload, blobs) for key, cell in cells.items() if cell is not None}:
        wire["c"] = kept
    if deleted := [key for key, cell in cells.items() if cell is None]:
        wire["x"] = deleted


def _write_rare(entry: Entry, wire: dict[str, Any], blobs: dict[str, bytes]) -> None:
    if entry.fan_out is not None:
        opened = entry.fan_out
        wire["n"] = [opened.joins, [_output_wire(output, blobs) for output in opened.outputs]]
        if opened.if_any:
            wire["n"].append(opened.if_any)
    if entry.collected:
        wire["l"] = [_collected_wire(collected, blobs) for collected in entry.collected]
    if (retry := entry.retry) is not None:
        wire["y"] = [retry.id, retry.attempt, retry.due, retry.since]
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


def _collected_wire(collected: Collected, blobs: dict[str, bytes]) -> list[Any]:
    added = None
    if collected.added is not None:
        event_type, _, payload = collected.added
        assert payload is not None, "a run with a store encodes its events before it records them"
        added = [event_type, reference(payload, blobs)]
    return [collected.step, names_wire(collected.types), added, collected.taken]


def decode_entry(data: bytes, blobs: Mapping[str, bytes], codec: Codec) -> Entry:
    """The entry of these bytes; its payloads have the bytes that they were written with.

    Raises:
        SnapshotVersionError: It was written by a newer version of this package.
        SerializationError: It is rubbish, or an event in it does not fit its class.
    """
    reader = Reader(parse(data, "journal entry", "f", FORMAT), "", "journal entry", blobs, codec)
    when = reader.inner("t") or reader
    entry = Entry(reader.count("q", least=1), reader.maybe("k", str) or "committed", when.seconds(0), when.seconds(1))
    entry.step = reader.maybe("s", str)
    entry.done = reader.count("d", 0)
    if reader.raw("o"):
        entry.outputs = [_output_of(each) for each in reader.each("o")]
    if reader.raw("c") or reader.raw("x"):
        entry.cells = _cells_of(reader)
    _read_rare(entry, reader)
    return entry


def _read_rare(entry: Entry, reader: Reader) -> None:
    if (opened := reader.inner("n")) is not None:
        entry.fan_out = FanOutOpened(opened.names(0), [_output_of(each) for each in opened.each(1)], opened.names(2))
    if reader.raw("r"):
        entry.fired = [(each.count(0), each.take(1, str)) for each in reader.each("r")]
    if reader.raw("l"):
        entry.collected = [_collected_of(each) for each in reader.each("l")]
    if (retry := reader.inner("y")) is not None:
        entry.retry = Retry(retry.count(0), retry.count(1, least=1), retry.seconds(2), retry.seconds(3))
    if reader.raw("z") is not None:
        entry.stop, entry.stop_payload = reader.event("z")
    if reader.raw("a") is not None:
        entry.status = status_of(reader, "a")
    if (error := reader.inner("w")) is not None:
        entry.error = error_of(error)
    if reader.raw("p") is not None:
        entry.epoch = reader.count("p")
    if (created := reader.inner("b")) is not None:
        entry.created = _created_of(created)


def _created_of(reader: Reader) -> dict[str, Any]:
    """Of a `started` entry all, of a `resumed` one what it may change."""
    created: dict[str, Any] = {
        "workflow_version": reader.take("workflow_version", str),
        "root": reader.take("root", bool),
        "timeout": reader.seconds("timeout") if reader.raw("timeout") is not None else None,
    }
    if reader.raw("run_id") is not None:
        created["run_id"] = reader.take("run_id", str)
        created["workflow"] = reader.take("workflow", str)
        created["metadata"] = reader.payload("metadata")
    if (trace := reader.texts("trace")) is not None:
        created["trace"] = trace
    return created


def status_of(reader: Reader, key: str) -> RunStatus:
    """The status that is named under `key`."""
    name = reader.take(key, str)
    try:
        return RunStatus(name)
    except ValueError:
        raise reader.fail(key, f"{short(name)} is no status of a run") from None


def _output_of(reader: Reader) -> Output:
    event, payload = reader.event(0)
    steps = (reader.take(1, str),) if type(reader.raw(1)) is str else reader.names(1)
    return Output(event, payload, Targets(steps, reader.names(2)), reader.maybe_seconds(3), reader.maybe(4, str))


def _cells_of(reader: Reader) -> dict[str, Cell | None]:
    cells: dict[str, Cell | None] = dict.fromkeys(reader.names("x"))
    if (kept := reader.inner("c")) is not None:
        cells.update((key, cell_of(kept.payload(key))) for key in reader.take("c", dict))
    return cells


def cell_of(payload: Payload) -> Cell:
    """A cell of this payload, with its value at hand where that is a plain immutable one."""
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
        raise rubbish(reader.what, reader.path, f"an id is expected, not {short(reader.data)}")
    return True


def encode_history(records: Sequence[HistoryRecord]) -> bytes:
    """History records as bytes: a JSON object with its format."""
    return orjson.dumps({"f": FORMAT, "r": [record_wire(record) for record in records]})


def record_wire(record: HistoryRecord) -> list[Any]:
    """A record as a list, cut after the last field that it has."""
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


def decode_history(data: bytes) -> list[HistoryRecord]:
    """The records of `encode_history`.

    Raises:
        SnapshotVersionError: They were written by a newer version of this package.
        SerializationError: They are rubbish.
    """
    reader = Reader(parse(data, "history", "f", FORMAT), "", "history", {}, PLAIN)
    return [record_of(each) for each in reader.each("r")]


def record_of(reader: Reader) -> HistoryRecord:
    """The record of a list."""
    text = reader.take(1, str)
    try:
        timestamp = dt.datetime.fromisoformat(text).astimezone(dt.UTC)
    except (ValueError, OverflowError) as error:
        raise reader.fail(1, f"{short(text)} is no instant: {error}") from error
    return HistoryRecord(
        reader.count(0, least=1),
        timestamp,
        reader.take(2, str),
        reader.maybe(3, str),
        reader.maybe(4, str),
        reader.maybe_seconds(5),
        reader.maybe(6, str),
    )
