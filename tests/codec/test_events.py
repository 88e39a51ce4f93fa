"""Events: fields are checked both ways, unknown types and other versions are reported."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, ClassVar, Generic, NewType, TypeVar

import attrs
import orjson
import pytest
from hypothesis import given

from blazen_trio._codec.codec import PLAIN, Codec
from blazen_trio._definitions.events import (
    DynamicEvent,
    Event,
    StartEvent,
    StepFailedEvent,
    StopEvent,
)
from blazen_trio.errors import SerializationError
from tests.strategies import (
    CODEC,
    Color,
    Item,
    Order,
    Point,
    SpecialItem,
    Tick,
    dynamic,
    events,
    json_values,
)

T = TypeVar("T")
UserId = NewType("UserId", int)


@given(events)
def test_an_event_round_trips(event: Event) -> None:
    assert CODEC.decode_event(CODEC.encode_event(event).data) == event


def test_a_dynamic_event_is_encoded_as_it_was_stored() -> None:
    event = PLAIN.decode_event(b'["Gone",{"a":[1]}]')
    payload = PLAIN.encode_event(event)
    assert isinstance(event, DynamicEvent)
    event.data["a"].append(2)
    assert PLAIN.fresh_event(event, payload) == DynamicEvent("Gone", {"a": [1]})


@given(events)
def test_without_a_workflow_an_event_is_dynamic_and_encodes_to_the_same_bytes(event: Event) -> None:
    data = CODEC.encode_event(event).data
    plain = PLAIN.decode_event(data)
    assert isinstance(plain, DynamicEvent)
    assert PLAIN.encode_event(plain).data == data
    assert CODEC.encode_event(plain).data == data


@given(dynamic)
def test_a_dynamic_event_round_trips(event: DynamicEvent) -> None:
    assert PLAIN.decode_event(PLAIN.encode_event(event).data) == event


def test_the_wire_form() -> None:
    assert CODEC.encode_event(Tick(1)).data == b'["Tick",{"n":1}]'
    assert orjson.loads(CODEC.encode_event(Order("a", [])).data)[::2] == ["shop.Order", 2]


def test_an_event_class_without_fields_needs_no_decorator() -> None:
    class Go(Event):
        kind: ClassVar[str] = "signal"

    class Went(Go):
        pass

    codec = Codec({"Go": Go, "Went": Went}, {})
    data = codec.encode_event(Went()).data
    assert data == b'["Went",{}]'
    assert type(codec.decode_event(data)) is Went
    with pytest.raises(SerializationError, match="unknown"):
        codec.decode_event(b'["Went",{"n":1}]')


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"id": 1}, "id"),
        ({"items": (Item("a"),)}, "items"),
        ({"items": [Item("a"), Item("b"), Item("c", price="1")]}, "items[2].price"),
        ({"items": [Point(1)]}, "items[0]"),
        ({"where": 1.5}, "where"),
        ({"where": Point("1")}, "where.x"),
        ({"mode": "fast"}, "mode"),
        ({"size": "XL"}, "size"),
        ({"when": dt.date(2026, 1, 1)}, "when"),
        ({"counts": {1: Point(True)}}, "counts[1].x"),
        ({"counts": {"1": Point(1)}}, "counts['1']"),
        ({"tags": frozenset({1})}, "tags[0]"),
        ({"cause": Order("a", [])}, "cause"),
        ({"extra": [object()]}, "extra[0]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_value_is_refused_when_it_is_encoded(change: dict[str, Any], path: str) -> None:
    for event in (
        Order(**{"id": "a", "items": [], **change}),
        attrs.evolve(Order("a", []), **change),
    ):
        with pytest.raises(SerializationError) as caught:
            CODEC.encode_event(event)
        assert (caught.value.subject, caught.value.path) == ("shop.Order", path)


@pytest.mark.parametrize(
    ("fields", "path", "message"),
    [
        ({}, "", "missing: n"),
        ({"n": 1, "m": 2}, "", "unknown: 'm'"),
        ({"n": "3"}, "n", "expected int"),
        ({"n": True}, "n", "expected int"),
        ({"n": 1.0}, "n", "expected int"),
        ({"n": None}, "n", "expected int"),
    ],
)
def test_stored_fields_that_do_not_fit_are_refused(fields: Any, path: str, message: str) -> None:
    with pytest.raises(SerializationError, match=message) as caught:
        CODEC.decode_event(["Tick", fields])
    assert (caught.value.subject, caught.value.path) == ("Tick", path)


@given(json_values)
def test_invalid_data_is_a_serialization_error(wire: Any) -> None:
    for data in (wire, ["Tick", wire], ["shop.Order", wire, 2], ["Tick", {"n": 1}, wire]):
        try:
            event = CODEC.decode_event(orjson.dumps(data))
        except SerializationError:
            continue
        assert CODEC.decode_event(CODEC.encode_event(event).data) == event


def test_an_older_version_is_upcast_and_a_newer_one_refused() -> None:
    data = orjson.loads(CODEC.encode_event(Order("7", [])).data)[1]
    assert CODEC.decode_event(["shop.Order", {**data, "id": 7}]) == Order("7", [])
    with pytest.raises(SerializationError, match=r"schema_version 3.*has 2"):
        CODEC.decode_event(["shop.Order", data, 3])
    with pytest.raises(SerializationError, match=r"upcast failed.*KeyError"):
        CODEC.decode_event(["shop.Order", {}, 1])


@attrs.frozen
class Box(Generic[T]):
    content: T
    more: list[T]


@attrs.frozen
class Boxed(Event):
    user: UserId
    box: Box[int]
    note: Annotated[str, "about it"] = ""
    bare: Box[Any] | None = None


class TestFields:
    """Fields of every kind."""

    def round_trip(self, event: Event, *types: type) -> Event:
        codec = Codec({type(event).event_type: type(event)}, {one.__name__: one for one in types})
        back = codec.decode_event(codec.encode_event(event).data)
        assert back == event
        return back

    def test_private_keyword_only_and_computed_fields_round_trip(self) -> None:
        @attrs.frozen
        class Odd(Event):
            _secret: int
            cl: int = 1
            converter: str = "names that the codec itself uses"
            o: int = 2
            later: str = attrs.field(kw_only=True, alias="afterwards")
            total: int = attrs.field(init=False)

            def __attrs_post_init__(self) -> None:
                object.__setattr__(self, "total", self._secret + 1)

        back = self.round_trip(Odd(1, afterwards="x"))
        assert isinstance(back, Odd)
        assert (back.later, back.total) == ("x", 2)

    def test_converters_are_not_run_again_when_an_event_is_restored(self) -> None:
        @attrs.frozen
        class Words(Event):
            words: list[str] = attrs.field(converter=str.split)
            double: int = attrs.field(converter=lambda n: 2 * n)

        @attrs.frozen
        class Double(Event):
            double: int = attrs.field(converter=lambda n: 2 * n)

        back = self.round_trip(Words("a b", 1))
        assert isinstance(back, Words)
        assert (back.words, back.double) == (["a", "b"], 2)
        assert self.round_trip(Double(1)) == Double(1)

    def test_restoring_runs_no_validators(self) -> None:
        # A validator that reads the clock could reject an event that was valid when it was made.
        expired = False

        def check(_event: object, _field: object, _value: object) -> None:
            assert not expired

        @attrs.frozen
        class Offer(Event):
            until: int = attrs.field(validator=check)

        codec = Codec({"Offer": Offer}, {})
        event = Offer(1)
        data = codec.encode_event(event).data
        expired = True
        assert codec.decode_event(data) == event

    def test_generics_new_types_and_annotated_round_trip(self) -> None:
        self.round_trip(Boxed(UserId(1), Box(1, [2]), bare=Box("x", [1.5])))
        codec = Codec({"Boxed": Boxed}, {})
        with pytest.raises(SerializationError) as caught:
            codec.encode_event(Boxed(UserId(1), Box(1, ["2"])))  # type: ignore[list-item]
        assert caught.value.path == "box.more[0]"

    def test_a_known_subclass_is_kept_and_an_unknown_one_refused(self) -> None:
        event = Order("a", [SpecialItem("b", note="c")], extra=None)
        item: Any = self.round_trip(event, SpecialItem).items[0]
        assert item.note == "c"
        with pytest.raises(SerializationError, match=r"Workflow\(types="):
            Codec({"shop.Order": Order}, {}).encode_event(event)

    def test_an_unknown_class_in_an_any_field_is_refused_when_it_is_encoded(self) -> None:
        codec = Codec({"StopEvent": StopEvent}, {})
        with pytest.raises(SerializationError, match=r"Workflow\(types="):
            codec.encode_event(StopEvent([Color.RED]))

    def test_a_failed_steps_event_keeps_its_class(self) -> None:
        codec = Codec({"StepFailedEvent": StepFailedEvent, "shop.Order": Order}, {})
        event = StepFailedEvent("pay", [Order("a", []), Order("b", [])], "ValueError", "no", 3)
        assert codec.decode_event(codec.encode_event(event).data) == event

    def test_field_types_that_cannot_be_stored_are_refused(self) -> None:
        @attrs.frozen
        class Holding(Event):
            what: range

        with pytest.raises(SerializationError, match="fields of type range") as caught:
            self.round_trip(Holding(range(3)))
        assert caught.value.path == "what"

    def test_union_values_keep_their_class(self) -> None:
        @attrs.frozen
        class Either(Event):
            a: int | float | str | bool | None
            b: dt.datetime | dt.date | str
            c: list[int] | dict[str, int] | tuple[int, ...]

        for a in (1, 1.0, "1", True, None):
            for b in (dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.date(2026, 1, 1), "2026-01-01"):
                for c in ([1], {"1": 1}, (1,)):
                    back: Any = self.round_trip(Either(a, b, c))
                    assert [type(back.a), type(back.b), type(back.c)] == [type(a), type(b), type(c)]


def test_a_subclass_that_the_workflow_does_not_know_is_refused() -> None:
    @attrs.frozen
    class Tock(Tick):
        pass

    with pytest.raises(
        SerializationError, match=r"Tock and could not load it again: .*Workflow\(types="
    ):
        CODEC.encode_event(Tock(1))
    with pytest.raises(SerializationError, match="Tock"):
        CODEC.encode_event(StopEvent([Tock(1)]))
    # Without a workflow, it is never loaded again.
    assert PLAIN.encode_event(Tock(1)).data == b'["Tock",{"n":1}]'
    assert CODEC.decode_event(b'["Tock",{"n":1}]') == DynamicEvent("Tock", {"n": 1})


def test_another_class_of_the_same_event_type_is_refused() -> None:
    @attrs.frozen
    class Impostor(Event):
        event_type: ClassVar[str] = "Tick"

    with pytest.raises(SerializationError, match="another class"):
        CODEC.encode_event(Impostor())


def test_an_object_that_contains_itself_is_refused() -> None:
    @attrs.define
    class Node:
        next: Any = None

    node = Node()
    node.next = node
    with pytest.raises(SerializationError, match="contains itself"):
        PLAIN.encode_event(StartEvent(node))


def test_a_handmade_dynamic_event_must_be_json() -> None:
    for data in ({"a": (1,)}, {1: 2}, {"a": float("nan")}, []):
        with pytest.raises(SerializationError):
            PLAIN.encode_event(DynamicEvent("X", data))  # type: ignore[arg-type]
