"""Hypothesis strategies that several tests share."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import zoneinfo
from typing import Any, ClassVar, Literal

import attrs
from hypothesis import strategies as st

from blazen_trio._codec.codec import Codec
from blazen_trio._definitions.events import DynamicEvent, Event, InputRequestEvent, StopEvent
from blazen_trio._state.model import (
    Buffered,
    Cell,
    Delayed,
    Delivery,
    FanOut,
    Member,
    Payload,
    Pending,
    Question,
    RunState,
    StoredError,
)
from blazen_trio._state.status import RunStatus


class Color(enum.Enum):
    RED = 1
    GREEN = "g"


class Mode(enum.StrEnum):
    FAST = "fast"
    SLOW = "slow"


class Permission(enum.Flag):
    READ = 1
    WRITE = 2


@attrs.frozen
class Item:
    name: str
    price: float = 0.0
    parts: tuple[Item, ...] = ()


@attrs.frozen
class SpecialItem(Item):
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: int | None = None


@attrs.frozen
class Tick(Event):
    n: int


@attrs.frozen
class Order(Event):
    event_type: ClassVar[str] = "shop.Order"
    schema_version: ClassVar[int] = 2

    id: str
    items: list[Item]
    where: Point | Item | str | None = None
    mode: Mode = Mode.FAST
    size: Literal["S", "M", 3] = "S"
    when: dt.datetime | None = None
    counts: dict[int, Point] = attrs.field(factory=dict)
    tags: frozenset[str] = frozenset()
    cause: Tick | None = None
    extra: Any = None

    @classmethod
    def upcast(cls, data: dict[str, Any], version: int) -> dict[str, Any]:
        return {**data, "id": str(data["id"])} if version < 2 else data


CODEC = Codec(
    {cls.event_type: cls for cls in (Tick, Order, StopEvent, InputRequestEvent)},
    {cls.__name__: cls for cls in (Color, Mode, Permission, Item, SpecialItem, Point)},
)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
integers = (
    st.integers()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63)])
)
zones = st.sampled_from(
    [
        None,
        dt.UTC,
        dt.timezone(dt.timedelta(hours=-3, minutes=-30)),
        zoneinfo.ZoneInfo("Europe/Berlin"),
    ]
)
datetimes = st.builds(
    lambda value, fold: value.replace(fold=fold), st.datetimes(timezones=zones), st.integers(0, 1)
)
colors = st.sampled_from(
    [*Color, *Mode, *Permission, Permission.READ | Permission.WRITE, Permission(0)]
)
items = st.builds(
    Item,
    text,
    st.floats(allow_nan=False),
    st.lists(st.builds(SpecialItem, text), max_size=2).map(tuple),
)
points = st.builds(Point, integers, st.none() | integers)

scalars = (
    st.none()
    | st.booleans()
    | integers
    | st.floats(allow_nan=False)
    | text
    | st.sampled_from(["$set", "$"])
    | st.binary(max_size=8)
    | datetimes
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.uuids()
    | st.decimals(allow_nan=False)
    | colors
)
hashables = st.recursive(
    scalars | points | st.builds(Tick, st.integers(-9, 9)),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
values = st.recursive(
    scalars | items | points | st.builds(Tick, st.integers(-9, 9)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(text | st.sampled_from(["$int", "$dict"]), inner, max_size=3)
        | st.dictionaries(hashables, inner, max_size=3)
        | st.sets(hashables, max_size=3)
    ),
    max_leaves=12,
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(text | st.sampled_from(["$set", "f", "q"]), inner, max_size=4)
    ),
    max_leaves=10,
)
orders = st.builds(
    Order,
    id=text,
    items=st.lists(items | st.builds(SpecialItem, text, note=text), max_size=3),
    where=st.none() | points | items | text,
    mode=st.sampled_from(Mode),
    size=st.sampled_from(["S", "M", 3]),
    when=st.none() | datetimes,
    counts=st.dictionaries(integers, points, max_size=3),
    tags=st.frozensets(text, max_size=3),
    cause=st.none() | st.builds(Tick, integers),
    extra=values,
)
dynamic = st.builds(
    DynamicEvent,
    st.sampled_from(["Gone", "Lost"]),
    st.dictionaries(text, json_values, max_size=3),
    st.integers(1, 3),
)
events = orders | st.builds(Tick, integers) | dynamic | st.builds(StopEvent, values)

instants = st.floats(0, 4e9)


@st.composite
def states(draw: st.DrawFn) -> RunState:
    """Draw a run's state with a bit of everything."""
    state = RunState(draw(text), draw(text), "1")
    state.created = state.updated = draw(instants)
    state.seq, state.epoch = draw(st.integers(1, 99)), draw(st.integers(0, 3))
    state.status = draw(st.sampled_from(RunStatus))
    state.elapsed = draw(st.floats(0, 1e6))
    state.metadata = CODEC.encode_value(
        draw(st.dictionaries(text, json_values, max_size=2)), "metadata"
    )
    state.cells = {
        key: Cell(CODEC.encode_value(value, key))
        for key, value in draw(st.dictionaries(text, values, max_size=3)).items()
    }
    if draw(st.booleans()):
        state.root = FanOut(0)
    completed = state.status is RunStatus.COMPLETED
    for _ in range(0 if completed else draw(st.integers(0, 2))):
        group = draw(st.sampled_from([None, state.root, *state.fan_outs.values()]))
        fan_out = FanOut(_id(state), draw(st.sampled_from([(), ("sum",)])))
        state.fan_outs[fan_out.id] = fan_out
        for join in draw(st.sets(st.sampled_from(["sum", "mean"]), min_size=1)):
            fan_out.pending[join] = Pending(_id(state), fan_out, join)
            _place(draw, group, fan_out.pending[join])
    for _ in range(0 if completed else draw(st.integers(0, 6))):
        _add_item(draw, state)
    if not completed and draw(st.booleans()):
        event = draw(events)
        id_ = _id(state)
        state.buffers["collect", ("Tick", "Tick")] = {
            "Tick": {id_: Buffered(id_, event, CODEC.encode_event(event))}
        }
    if completed:
        state.stop = StopEvent(draw(values))
        state.stop_payload = CODEC.encode_event(state.stop)
    elif state.status.ended:
        state.error = StoredError(
            "StepFailedError",
            draw(text),
            step="tick",
            attempts=2,
            details=("a",),
            traceback=draw(text),
        )
    return state


def _id(state: RunState) -> int:
    state.next_id += 1
    return state.next_id - 1


def _place(draw: st.DrawFn, group: FanOut | None, item: Any) -> None:
    if group is not None:
        group.insert(item, draw(st.sampled_from([group, group.next])))


def _add_item(draw: st.DrawFn, state: RunState) -> None:
    groups = [group for group in (state.root, *state.fan_outs.values()) if group is not None]
    kinds = ["delivery", "join", "delayed", "question", *(["member"] if groups else [])]
    kind = draw(st.sampled_from(kinds))
    event = draw(events)
    payload: Payload = CODEC.encode_event(event)
    group = draw(st.sampled_from(groups if kind == "member" else [None, *groups]))
    item: Any
    if kind == "delivery":
        item = Delivery(_id(state), "tick", event, payload)
        state.deliveries[item.id] = item
        item.attempt, item.due = draw(st.integers(1, 4)), draw(st.none() | instants)
    elif kind == "join":
        item = Delivery(_id(state), "sum", (event, event), (payload, payload))
        state.deliveries[item.id] = item
    elif kind == "delayed":
        item = Delayed(_id(state), event, payload, draw(instants))
        state.delayed[item.id] = item
    elif kind == "question":
        request = InputRequestEvent(draw(text), {"k": 1}, f"q{state.next_id}")
        item = Question(_id(state), request, CODEC.encode_event(request), request.request_id)
        state.questions[request.request_id] = item
    else:
        item = Member(_id(state), "sum", event, payload)
    _place(draw, group, item)
