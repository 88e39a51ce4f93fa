"""Plain values round-trip, or are refused when they are encoded."""

from __future__ import annotations

import collections
import datetime as dt
import math
import typing
from decimal import Decimal
from typing import Any

import attrs
import orjson
import pytest
from hypothesis import given, strategies as st

from blazen_trio._codec.codec import LARGE, PLAIN, Codec
from blazen_trio._codec.names import DynamicValue
from blazen_trio.errors import SerializationError
from tests.strategies import (
    CODEC,
    Color,
    Item,
    Mode,
    Permission,
    Point,
    SpecialItem,
    Tick,
    json_values,
    values,
)


def there_and_back(value: Any, **kwargs: Any) -> Any:
    return CODEC.decode_value(CODEC.encode_value(value, "key").data, "key", **kwargs)


def same(a: Any, b: Any) -> bool:
    """Return whether two values are equal, with equal types at every level."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(
            same(x, y) for x, y in zip(a.items(), b.items(), strict=True)
        )
    if isinstance(a, (dt.datetime, dt.time)):
        return repr(a) == repr(b)
    return bool(a == b)


@given(values)
def test_a_value_round_trips(value: Any) -> None:
    assert same(value, there_and_back(value))


@given(json_values)
def test_json_is_stored_unchanged_unless_a_key_starts_with_a_dollar(value: Any) -> None:
    data = CODEC.encode_value(value, "key").data
    assert same(value, there_and_back(value))
    assert b"$dict" in data or b"$" not in data or "$" in repr(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.0])
def test_nan_and_infinities_round_trip(value: float) -> None:
    assert repr(there_and_back([value, 1.5])[0]) == repr(value)


@pytest.mark.parametrize("number", [10**5000, -(10**5000)], ids=["big", "small"])
def test_integers_of_any_size_round_trip(number: int) -> None:
    assert there_and_back([1, number])[1] == number


class MyStr(str):
    __slots__ = ()


class MyDict(dict):  # type: ignore[type-arg]
    pass


class Zone(dt.tzinfo):
    def utcoffset(self, _when: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(0)


@attrs.define
class DictObject(dict):  # type: ignore[type-arg]
    x: int = 1


@pytest.mark.parametrize(
    "value",
    [
        MyStr("x"),
        MyDict(),
        collections.defaultdict(list),
        collections.OrderedDict(),
        bytearray(b"x"),
        memoryview(b"x"),
        1j,
        object(),
        print,
        Item,
        ValueError("x"),
        iter([]),
        DictObject(),
        dt.datetime(2026, 1, 1, tzinfo=Zone()),
        "\ud800",
        range(3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_would_change_is_refused_and_its_path_named(value: Any) -> None:
    with pytest.raises(SerializationError) as caught:
        CODEC.encode_value({"a": [1, (value,)]}, "key")
    assert caught.value.subject == "key"
    if value != "\ud800":
        assert caught.value.path == "['a'][1][0]"
    with pytest.raises(SerializationError):
        CODEC.encode_value({MyStr("k"): 1}, "key")


def test_the_path_includes_objects() -> None:
    with pytest.raises(SerializationError) as caught:
        wrong: Any = "1"
        CODEC.encode_value([Item("a", parts=(Item("b"), Item("c", price=wrong)))], "cart")
    assert caught.value.path == "[0].parts[1].price"
    assert "expected float" in str(caught.value)


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("levels", [300, 3_000, 100_000])
def test_a_value_nested_too_deeply_is_refused(levels: int) -> None:
    with pytest.raises(SerializationError, match="nested too deeply"):
        CODEC.encode_value(deep(levels), "key")


def test_a_cycle_is_refused() -> None:
    cycle: list[Any] = [1]
    cycle.append({"again": cycle})
    with pytest.raises(SerializationError, match="contains itself"):
        CODEC.encode_value(cycle, "key")


def test_sets_are_stored_in_a_fixed_order() -> None:
    letters = [f"letter {n}" for n in range(50)]
    stored = CODEC.encode_value(set(letters), "k").data
    assert (
        stored
        == b'{"$set":[' + b",".join(sorted(f'"{letter}"'.encode() for letter in letters)) + b"]}"
    )


def test_a_large_value_has_a_digest() -> None:
    assert CODEC.encode_value("x" * (LARGE - 3), "k").digest is None
    digest = CODEC.encode_value("x" * (LARGE - 2), "k").digest
    assert digest is not None
    assert len(digest) == 64


class TestUnknownClasses:
    codec = Codec({"Tick": Tick}, {})

    def test_a_state_value_can_be_stored_and_read_with_its_type(self) -> None:
        data = self.codec.encode_value([Item("a")], "k").data
        assert self.codec.decode_value(data, "k", type=list[Item]) == [Item("a")]

    def test_without_its_type_the_error_says_what_to_do(self) -> None:
        data = self.codec.encode_value([Item("a")], "k").data
        with pytest.raises(SerializationError, match=r"pass type=Item.*Workflow\(types="):
            self.codec.decode_value(data, "k")

    @pytest.mark.parametrize(
        "value", [Item("a", 1.5), Color.RED, Permission.READ | Permission.WRITE]
    )
    def test_without_a_workflow_it_is_a_dynamic_value_that_encodes_the_same(
        self, value: Any
    ) -> None:
        data = CODEC.encode_value(value, "k").data
        dynamic = PLAIN.decode_value(data, "k")
        assert isinstance(dynamic, DynamicValue)
        assert dynamic.type_name == type(value).__name__
        if not isinstance(value, Permission):
            assert PLAIN.encode_value(dynamic, "k").data == data

    def test_another_class_of_the_same_name_is_refused(self) -> None:
        @attrs.frozen
        class Point:
            z: int

        with pytest.raises(SerializationError, match="another class"):
            CODEC.encode_value(Point(1), "k")


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        ([1, 2], list[int]),
        ((1, "a"), tuple[int, str]),
        ({1: Point(1)}, dict[int, Point]),
        ({"$a": 1}, dict[str, int]),
        ({1, 2}, set[int]),
        ([Color.RED], list[Color]),
        (Mode.FAST, Mode),
        (Point(1, 2), Point | Item),
        (SpecialItem("a", note="b"), Item),
        (Decimal("1.10"), Decimal),
        (dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.datetime | None),
        (2**80, int),
        (math.inf, float),
        (1, float),
        (b"x", bytes),
        ("x", typing.Literal["x", "y"]),
        (Tick(1), Tick),
        ((1, 2), typing.Sequence[int]),
        (dt.timedelta(1), dt.timedelta | dt.date),
    ],
    ids=repr,
)
def test_a_type_given_to_get_decodes_the_stored_value(value: Any, type_: Any) -> None:
    assert same(value, there_and_back(value, type=type_))


@pytest.mark.parametrize(
    ("value", "type_", "path"),
    [
        (["1"], list[int], "[0]"),
        ([True], list[int], "[0]"),
        ([1.0], list[int], "[0]"),
        ({"a": {"b": 1}}, dict[str, dict[str, str]], "['a']['b']"),
        ((1,), tuple[int, str], ""),
        ("z", typing.Literal["x", "y"], ""),
        (Point(1), Item, ""),
        ("RED", Mode, ""),
        ("2026-13-01", dt.date, ""),
        ([[]], set[list[int]], ""),
        (1, Point | Item, ""),
        (1, range, ""),
    ],
    ids=repr,
)
def test_a_type_that_does_not_fit_is_refused(value: Any, type_: Any, path: str) -> None:
    with pytest.raises(SerializationError) as caught:
        there_and_back(value, type=type_)
    assert caught.value.path == path


def is_value_or_refused(codec: Codec, data: bytes, type_: Any = Any) -> bool:
    """Decode a value. Return whether it was refused, or round-trips."""
    try:
        value = codec.decode_value(data, "k", type=type_)
    except SerializationError:
        return True
    again = codec.decode_value(codec.encode_value(value, "k").data, "k", type=type_)
    return again == value or repr(again) == repr(value)  # NaN is not equal to itself


@given(st.binary(max_size=40) | json_values.map(lambda value: repr(value).encode(errors="ignore")))
def test_random_bytes_are_a_serialization_error_or_a_value(data: bytes) -> None:
    for codec in (CODEC, PLAIN):
        assert is_value_or_refused(codec, data)


TAGS = [
    "int",
    "float",
    "bytes",
    "datetime",
    "date",
    "time",
    "timedelta",
    "uuid",
    "decimal",
    "tuple",
    "set",
    "frozenset",
    "dict",
    "object",
    "enum",
    "event",
    "union",
    "blob",
]


@given(
    st.sampled_from(TAGS),
    json_values
    | st.lists(
        st.sampled_from(["Item", "Color", "Tick", "RED", {}, {"n": 1}, 1, "../../etc/passwd"])
    ),
)
def test_random_content_of_a_tag_is_a_serialization_error_or_a_value(
    tag: str, content: Any
) -> None:
    data = orjson.dumps({"$" + tag: content})
    for type_ in (
        Any,
        Item,
        Color | Item,
        list[int],
        dict[int, int],
        Tick,
        dt.datetime,
        dt.timedelta,
        Decimal,
        bytes,
    ):
        for codec in (CODEC, PLAIN):
            assert is_value_or_refused(codec, data, type_)
