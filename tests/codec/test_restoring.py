"""Objects of users' classes round-trip, or are refused when they are encoded."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import functools
import sys
import zoneinfo
from dataclasses import InitVar
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar, Union

import attrs
import orjson
import pytest

from blazen_trio import Event, StartEvent, StopEvent, Workflow, step
from blazen_trio._codec.codec import PLAIN, Codec
from blazen_trio.errors import SerializationError

T = TypeVar("T")
Json = Union[None, bool, int, float, str, list["Json"], dict[str, "Json"]]  # noqa: UP007


@dataclasses.dataclass
class Total:
    rate: InitVar[int]
    total: int = dataclasses.field(init=False)

    def __post_init__(self, rate: int) -> None:
        self.total = 2 * rate


@dataclasses.dataclass(init=False)
class Parsed:
    x: int

    def __init__(self, text: str) -> None:
        self.x = int(text)


@attrs.define(init=False, slots=False)
class ParsedToo:
    x: int

    def __init__(self, text: str) -> None:
        self.x = int(text)


@dataclasses.dataclass
class Price:
    cents: int

    def __post_init__(self) -> None:
        self.cents *= 100


@attrs.frozen
class Labels:
    names: tuple[str, ...]

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "names", ("all", *self.names))


@attrs.frozen(cache_hash=True)
class Hashed:
    x: int


@attrs.define
class Lazy:
    x: int

    @functools.cached_property
    def double(self) -> int:
        return 2 * self.x


@dataclasses.dataclass
class LazyToo:
    x: int

    @functools.cached_property
    def double(self) -> int:
        return 2 * self.x


@attrs.define
class Trouble(Exception):  # noqa: N818
    code: int


class Spot(NamedTuple):
    x: int
    names: list[str] = []  # noqa: RUF012


class Movie(TypedDict):
    name: str
    year: NotRequired[int]
    parts: list[Movie]


@attrs.frozen
class Box(Generic[T]):
    content: T


OBJECTS = [
    Total(2),
    Parsed("7"),
    ParsedToo("7"),
    Price(5),
    Labels(("a",)),
    Hashed(1),
    Lazy(1),
    LazyToo(1),
    Spot(1, ["a"]),
    Box(1),
]
KNOWN = {cls.__name__: cls for cls in (*map(type, OBJECTS), Trouble)}


def carrier(type_: Any) -> type[Event]:
    fields = {"v": attrs.field(type=type_)}
    return attrs.make_class("Carrier", fields, bases=(Event,), frozen=True)


def round_trip(type_: Any, value: Any, known: dict[str, type] | None = None) -> Any:
    cls = carrier(type_)
    codec = Codec({"Carrier": cls}, KNOWN if known is None else known)
    codec.encode_event(cls(value))
    # Also by the code compiled for the first one.
    back: Any = codec.decode_event(codec.encode_event(cls(value)).data)
    return back.v


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("value", OBJECTS, ids=lambda value: type(value).__name__)
def test_an_object_is_restored_without_its_constructor(value: Any, declared: bool) -> None:
    back = round_trip(type(value) if declared else Any, value)
    assert back == value
    assert type(back) is type(value)
    assert getattr(back, "double", 2) == 2
    if not isinstance(value, Spot) and type(value).__hash__ is not None:
        assert hash(back) == hash(value)


def test_an_exception_keeps_its_arguments() -> None:
    back = round_trip(Trouble, Trouble(3))
    assert (back.code, back.args, str(back)) == (3, (3,), str(Trouble(3)))


def test_a_cached_property_is_computed_again() -> None:
    for value in (Lazy(1), LazyToo(1)):
        assert value.double == 2
        assert round_trip(Any, value).double == 2


def test_an_object_with_more_than_its_fields_is_refused() -> None:
    @dataclasses.dataclass
    class Cached:
        x: int

        def __post_init__(self) -> None:
            self.memo = {1: 2}

    with pytest.raises(SerializationError, match=r"not fields.*memo") as caught:
        round_trip(Cached, Cached(1))
    assert caught.value.path == "v"


def test_a_field_without_a_value_is_refused_by_name() -> None:
    @attrs.define
    class Half:
        x: int
        y: int = attrs.field(init=False)

    with pytest.raises(SerializationError, match="field y has no value") as caught:
        round_trip(Half, Half(1))
    assert caught.value.path == "v"


class Open(enum.IntEnum):
    OK = 200

    @classmethod
    def _missing_(cls, value: object) -> Open:
        member = int.__new__(cls, value)  # type: ignore[call-overload]
        member._name_, member._value_ = f"CODE_{value}", value
        return member


class OpenText(enum.StrEnum):
    A = "a"

    @classmethod
    def _missing_(cls, value: object) -> OpenText:
        member = str.__new__(cls, value)
        member._name_, member._value_ = str(value), value
        return member


@pytest.mark.parametrize("member", [Open(299), OpenText("b")])
@pytest.mark.parametrize("declared", [True, False])
def test_an_undeclared_enum_member_is_refused(member: Any, declared: bool) -> None:
    cls = type(member)
    with pytest.raises(SerializationError, match="is not a member that") as caught:
        round_trip(cls if declared else Any, member, {cls.__name__: cls})
    assert caught.value.path == "v"


class Color(enum.Enum):
    RED = 1
    BLUE = 2


def test_literals_of_enum_members_need_no_types() -> None:
    assert round_trip(Literal[Color.RED, Color.BLUE], Color.RED, {}) is Color.RED
    cls = carrier(Literal[Color.RED, "x"])

    @step(accepts=StartEvent, emits=cls)
    async def begin(ev: Any) -> Any: ...

    @step(accepts=cls, emits=StopEvent)
    async def end(ev: Any) -> Any: ...

    assert Workflow("w", [begin, end]).value_types == {"Color": Color}


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (list[int] | list[str], ["a"]),
        (list[str] | list[int], [1]),
        (dict[str, int] | dict[str, str], {"k": "a"}),
        (tuple[int, int] | tuple[str, str], ("a", "b")),
        (set[int] | set[str], {"a"}),
        (Box[int] | Box[str], Box("a")),
        (list[int | str] | str, [1, "a"]),
        (list[list[int] | list[str]] | int, [[1], ["a"]]),
    ],
    ids=str,
)
def test_union_members_that_differ_only_in_their_arguments_are_told_apart(
    type_: Any, value: Any
) -> None:
    assert round_trip(type_, value) == value


def test_union_members_have_the_same_names_in_every_python() -> None:
    cls = carrier(list[int | None] | str)
    data = Codec({"Carrier": cls}, {}).encode_event(cls([1])).data  # type: ignore[call-arg]
    assert orjson.loads(data)[1] == {"v": {"$union": ["list[int | NoneType]", [1]]}}


@attrs.frozen
class Document(Event):
    body: Json
    quoted: list["Json"]  # noqa: UP037


def test_a_recursive_alias_round_trips() -> None:
    @step
    async def begin(ev: StartEvent) -> Document: ...

    @step
    async def end(ev: Document) -> StopEvent: ...

    codec = Workflow("w", [begin, end]).codec
    event = Document({"a": [1, {"b": [None, "c"]}]}, [[], {}])
    assert codec.decode_event(codec.encode_event(event).data) == event
    with pytest.raises(SerializationError) as caught:
        codec.encode_event(Document({"a": [b"x"]}, []))
    assert caught.value.path == "body['a'][0]"


def test_trying_the_members_of_an_untagged_union_is_bounded() -> None:
    wire: Any = "x"
    for _ in range(60):
        wire = [wire]
    with pytest.raises(SerializationError):
        Codec({"Carrier": carrier(Nested)}, {}).decode_event(["Carrier", {"v": wire}])


Nested = Union[list["Nested"], tuple["Nested", ...], int]  # noqa: UP007


def test_a_typed_dict_is_checked_key_by_key() -> None:
    movie: Movie = {"name": "a", "parts": [{"name": "b", "year": 1, "parts": []}]}
    assert round_trip(Movie, movie) == movie
    for wrong, path in (
        ({"name": 1, "parts": []}, "v['name']"),
        ({"parts": []}, "v"),
        ({"name": "a", "parts": [{"name": "b", "parts": [], "more": 1}]}, "v['parts'][0]"),
    ):
        with pytest.raises(SerializationError) as caught:
            round_trip(Movie, wrong)
        assert caught.value.path == path


def test_a_named_tuple_of_collections_round_trips() -> None:
    pair = collections.namedtuple("pair", "a b")
    back = round_trip(pair, pair(1, [2]))
    assert (back, type(back)) == (pair(1, [2]), pair)
    assert round_trip(Any, pair(1, 2), {"pair": pair}) == pair(1, 2)


def test_time_zones_keep_their_names() -> None:
    named = dt.timezone(dt.timedelta(hours=1, seconds=5), "CET")
    for value in (
        dt.datetime(2026, 1, 1, 12, tzinfo=named),
        dt.datetime(2026, 1, 1, 12, tzinfo=named, fold=1),
        dt.time(12, tzinfo=dt.timezone(dt.timedelta(0), "Z")),
    ):
        back = round_trip(Any, value)
        assert (back, back.tzname(), back.fold, repr(back)) == (
            value,
            value.tzname(),
            value.fold,
            repr(value),
        )


def test_a_time_zone_read_from_a_file_is_refused() -> None:
    for folder in zoneinfo.TZPATH:
        path = Path(folder, "Europe/Berlin")
        if path.exists():
            with path.open("rb") as file:
                zone = zoneinfo.ZoneInfo.from_file(file, key="Nowhere")
            with pytest.raises(SerializationError, match="time zone"):
                PLAIN.encode_value(dt.datetime(2026, 1, 1, tzinfo=zone), "k")
            break


@pytest.mark.parametrize("value", ["/srv/data", 5, Path("/srv")])
def test_a_field_of_a_foreign_type_is_refused(value: Any) -> None:
    with pytest.raises(SerializationError, match="fields of type Path") as caught:
        round_trip(Path, value)
    assert caught.value.path == "v"


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_a_value_of_the_maximum_depth_can_be_nested_in_an_event() -> None:
    assert round_trip(Any, nested(190)) == nested(190)
    for levels in range(198, 260):
        try:
            data = PLAIN.encode_value(nested(levels), "k").data
        except SerializationError:
            assert levels > 200
        else:
            assert levels <= 201  # 200 from orjson 3.12 on, which writes one level less
            document: Any = orjson.loads(data)
            for _ in range(50):
                document = {"a": document}
            assert orjson.dumps(document)


@pytest.mark.parametrize(
    "members",
    [
        [{"$int": hex(n * (2**61 - 1))} for n in range(10, 2010)],
        [{"$decimal": str(n * (2**61 - 1))} for n in range(10, 2010)],
        [{"$object": ["Same", {"x": n}]} for n in range(2000)],
    ],
    ids=["int", "decimal", "object"],
)
def test_equal_members_of_a_set_are_refused_both_ways(members: list[Any]) -> None:
    @attrs.frozen(hash=False)
    class Same:
        x: int

        def __hash__(self) -> int:
            return 1

    codec = Codec({"StopEvent": StopEvent}, {"Same": Same})
    for wire in ({"$set": members}, {"$dict": [[one, 1] for one in members]}):
        with pytest.raises(SerializationError, match="the same hash"):
            codec.decode_value(orjson.dumps(wire), "k")
    with pytest.raises(SerializationError, match="the same hash"):
        codec.encode_value({Same(n) for n in range(150)}, "k")


def test_dynamic_objects_are_hashable() -> None:
    codec = Codec({"Document": Document}, {"Hashed": Hashed})
    data = codec.encode_value({Hashed(n) for n in range(3000)}, "k").data
    assert len(PLAIN.decode_value(data, "k")) == 3000
    events = orjson.dumps({"$set": [{"$event": ["Tick", {"n": [n]}]} for n in range(3000)]})
    assert len(PLAIN.decode_value(events, "k")) == 3000
    assert sys.getrecursionlimit() >= 1000


def test_pydantic_models_round_trip() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model(
        "Model", a=(int, ...), b=(list[Spot], []), when=(dt.datetime | None, None)
    )
    value = model(a=1, when=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    for type_ in (model, Any):
        back = round_trip(type_, value, {"Model": model})
        assert back == value
        assert back.model_dump(exclude_unset=True) == value.model_dump(exclude_unset=True)
    assert round_trip(model, model(a=1, b=[Spot(1)])).b == [Spot(1)]
    wrong = model.model_construct(a="x")
    with pytest.raises(SerializationError) as caught:
        round_trip(model, wrong)
    assert caught.value.path == "v.a"
    extra = pydantic.create_model("Extra", __config__={"extra": "allow"}, a=(int, ...))
    assert round_trip(extra, extra(a=1)) == extra(a=1)
    with pytest.raises(SerializationError, match="not fields"):
        round_trip(extra, extra(a=1, b=2))


def test_msgspec_structs_round_trip() -> None:
    msgspec = pytest.importorskip("msgspec")
    struct = msgspec.defstruct("Struct", [("a", int), ("b", list[Spot], [])], frozen=True)
    for type_ in (struct, Any):
        assert round_trip(type_, struct(1, [Spot(2)]), {"Struct": struct}) == struct(1, [Spot(2)])
    with pytest.raises(SerializationError) as caught:
        round_trip(struct, struct("x"))
    assert caught.value.path == "v.a"
    strict = msgspec.defstruct(
        "Strict", [("a", int)], namespace={"__post_init__": lambda self: None}
    )
    with pytest.raises(SerializationError, match="__post_init__"):
        round_trip(strict, strict(1))
