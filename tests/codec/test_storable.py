"""Event fields whose values can never be stored are refused when the workflow is built."""

from __future__ import annotations

import abc
import collections
import dataclasses
import fractions
import io
import logging
import numbers
import pathlib
import re
import typing
from collections.abc import Awaitable, Callable, Generator, Hashable, Iterator, Sized
from typing import IO, Any, Generic, NamedTuple, Protocol, TypedDict, TypeVar

import attrs
import msgspec
import pydantic
import pytest
import trio

from blazen_trio import (
    Event,
    MemoryStore,
    SerializationError,
    StartEvent,
    StopEvent,
    UnstorableFieldWarning,
    Workflow,
    step,
)

T = TypeVar("T")


class Plain:
    def __init__(self, a: int) -> None:
        self.a = a


class Text(str):
    __slots__ = ()


class Speaks(Protocol):
    def speak(self) -> str: ...


class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self) -> float: ...


@attrs.frozen
class Square(Shape):
    side: float

    def area(self) -> float:
        return self.side**2

    def speak(self) -> str:
        return "square"


@attrs.frozen
class Box(Generic[T]):
    inside: T


@attrs.frozen
class Holder:
    box: Box[Plain]


Json = dict[str, "Json"] | list["Json"] | str | None


@attrs.frozen
class Tree:
    children: list[Tree]
    leaf: Plain | None = None


class Keys(TypedDict):
    good: int
    bad: Callable[[], int]


class Good(TypedDict):
    x: int


class Pair(NamedTuple):
    first: int
    second: logging.Logger


class Point(NamedTuple):
    x: int
    y: tuple[int, ...]


@dataclasses.dataclass
class Own:
    a: int

    def __init__(self, a: int) -> None:
        self.a = a


class Model(pydantic.BaseModel):
    model_config = {"arbitrary_types_allowed": True}
    path: pathlib.Path
    plain: Plain


class Struct(msgspec.Struct):
    handle: IO[str]


def built(type_: Any) -> tuple[Workflow, type[Event]]:
    """Return a workflow with an event that has a field of this type."""
    cls = attrs.make_class("Carries", {"it": attrs.field(type=type_)}, bases=(Event,), frozen=True)

    @step(accepts=[StartEvent], emits=[cls])
    async def begin(ev: Any) -> Any:
        return cls(ev.data) if not isinstance(ev.data, Give) else cls(ev.data.it)

    @step(accepts=[cls], emits=[StopEvent])
    async def end(ev: Any) -> StopEvent:
        return StopEvent([ev.it])

    return Workflow("carrying", [begin, end], types=[Square, Give, Own, Point]), cls


@attrs.frozen
class Give:
    it: Any


@pytest.mark.parametrize(
    ("type_", "where", "named"),
    [
        (Plain, "it", "Plain"),
        (Text, "it", "Text"),
        (Callable[[int], int], "it", "Callable"),
        (typing.Callable, "it", "Callable"),
        (Iterator[int], "it", "Iterator"),
        (Generator[int, None, None], "it", "Generator"),
        (Awaitable[int], "it", "Awaitable"),
        (IO[bytes], "it", "IO"),
        (io.TextIOWrapper, "it", "TextIOWrapper"),
        (pathlib.Path, "it", "Path"),
        (re.Pattern, "it", "Pattern"),
        (type[Square], "it", "type"),
        (ValueError, "it", "ValueError"),
        (complex, "it", "complex"),
        (fractions.Fraction, "it", "Fraction"),
        (collections.deque[int], "it", "deque"),
        (collections.OrderedDict, "it", "OrderedDict"),
        (trio.Nursery, "it", "Nursery"),
        (list[Plain], "it", "Plain"),
        (dict[str, tuple[int, Plain]], "it", "Plain"),
        (typing.Annotated[Plain, "what"], "it", "Plain"),
        (Plain | Iterator[int], "it", "Plain"),
        (list[Plain] | dict[str, Box[Plain]], "it", "Plain"),
        (Box[Plain], "it.inside", "Plain"),
        (Holder, "it.box.inside", "Plain"),
        (Keys, "it.bad", "Callable"),
        (Pair, "it.second", "Logger"),
        (Model, "it.path", "Path"),
        (Struct, "it.handle", "IO"),
    ],
    ids=str,
)
def test_a_field_that_can_never_be_stored_is_reported_when_the_workflow_is_built(
    type_: Any, where: str, named: str
) -> None:
    with pytest.warns(UnstorableFieldWarning) as caught:
        built(type_)
    [fault] = [str(each.message) for each in caught]
    assert f"'carrying': event 'Carries': the field Carries.{where} is annotated " in fault
    assert caught[0].filename == __file__
    assert named in fault.partition(": no value")[0]
    assert "or Any, if" in fault


def test_all_faults_are_reported_together() -> None:
    @attrs.frozen
    class Two(Event):
        a: Plain
        b: int
        c: Iterator[int]

    @step(accepts=[StartEvent], emits=[Two])
    async def begin(ev: Any) -> Any: ...

    @step(accepts=[Two], emits=[StopEvent])
    async def end(ev: Any) -> Any: ...

    with pytest.warns(UnstorableFieldWarning) as caught:
        Workflow("w", [begin, end])
    assert [str(each.message).partition("the field ")[2].split()[0] for each in caught] == [
        "Two.a",
        "Two.c",
    ]


async def test_a_run_without_a_store_accepts_such_fields() -> None:
    with pytest.warns(UnstorableFieldWarning):
        workflow, _ = built(Plain)
    value = Plain(1)
    assert await workflow.run(value) == [value]
    with pytest.raises(SerializationError, match="Plain"):
        await workflow.run(value, store=MemoryStore())


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Any, Square(2.0)),
        (object, [1, (2,)]),
        (T, {"a": {1}}),
        (Speaks, Square(2.0)),
        (Shape, Square(2.0)),
        (list[Shape], [Square(1.0)]),
        (Shape | None, None),
        (Hashable, (1, 2)),
        (Sized, "text"),
        (typing.Reversible[int], [1, 2]),
        (numbers.Integral, 5),
        (numbers.Number, 5.5),
        (typing.LiteralString, "a"),
        (Plain | None, None),
        (Plain | int, 5),
        (Tree, Tree([Tree([])])),
        (Box[int], Box(5)),
        (Json, {"a": [None, {"b": "c"}]}),
        (Good, {"x": 1}),
        (Point, Point(1, (2, 3))),
        (Own, Own(3)),
        (typing.Iterable[int], (1, 2)),
    ],
    ids=str,
)
async def test_a_field_that_may_be_storable_is_accepted_and_round_trips(
    type_: Any, value: Any
) -> None:
    workflow, cls = built(type_)
    event = cls(value)
    again = workflow.codec.decode_event(workflow.codec.encode_event(event).data)
    assert again == event
    assert type(again.it) is type(value)
    assert await workflow.run(Give(value), store=MemoryStore()) == [value]


def test_a_value_that_is_not_of_the_abstract_class_is_refused() -> None:
    workflow, cls = built(Shape)
    with pytest.raises(SerializationError, match="expected Shape"):
        workflow.codec.encode_event(cls(5))
    with pytest.raises(SerializationError, match="expected Shape"):
        workflow.codec.decode_event(b'["Carries",{"it":5}]')
