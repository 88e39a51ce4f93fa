"""A workflow as declared: its starts, routes, and the types it knows by name."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, ClassVar

import attrs
import pytest

from blazen_trio._definitions.definition import WorkflowDefinition
from blazen_trio._definitions.events import (
    Event,
    InputRequestEvent,
    InputResponseEvent,
    StartEvent,
    StepFailedEvent,
    StopEvent,
)
from blazen_trio._definitions.steps import step
from blazen_trio.errors import NoHandlerError


@attrs.frozen
class Parcel(StartEvent):
    number: int = 0


@attrs.frozen
class A(Event):
    pass


@attrs.frozen
class Special(A):
    pass


@attrs.frozen
class MoreSpecial(Special):
    event_type: ClassVar[str] = "more.special"


@attrs.frozen
class B(Event):
    pass


def made(name: str, accepts: Any, *emits: Any, **options: Any) -> Any:
    async def function(ev: Any) -> Any:
        return ev

    return step(name=name, accepts=accepts, emits=emits, **options)(function)


def workflow(*steps: Any, **options: Any) -> WorkflowDefinition:
    return WorkflowDefinition("w", steps, **options)


def test_options_and_their_defaults() -> None:
    default = workflow(made("ok", StartEvent, StopEvent))
    assert (default.name, default.version, default.timeout, default.durability) == (
        "w",
        "1",
        300.0,
        "sync",
    )
    assert (default.input_handler, default.publish_lifecycle, default.history) == (
        None,
        False,
        False,
    )
    assert (default.max_concurrency, default.external, default.types) == (None, (), ())
    given = workflow(
        made("ok", StartEvent, StopEvent),
        made("more", A, None),
        version="2",
        timeout=None,
        external=[A],
        types={B},
        history=True,
        durability="exit",
    )
    assert (given.version, given.timeout, given.durability) == ("2", None, "exit")
    assert (given.external, given.types, given.history) == ((A,), (B,), True)


def test_steps_keep_the_order_of_declaration() -> None:
    found = workflow(made("z", StartEvent, A), made("a", A, StopEvent), made("m", A, None))
    assert list(found.steps) == ["z", "a", "m"]
    assert [one.index for one in found.steps.values()] == [0, 1, 2]


def test_a_workflow_is_immutable() -> None:
    found = workflow(made("ok", StartEvent, StopEvent))
    with pytest.raises(AttributeError, match="workflow 'w' is immutable"):
        found.timeout = 3
    with pytest.raises(AttributeError, match="immutable"):
        del found.name
    assert found.timeout == 300.0
    assert repr(found) == "<WorkflowDefinition 'w' version '1', 1 steps>"
    for table in (found.steps, found.event_types, found.value_types):
        with pytest.raises(TypeError, match="does not support item assignment"):
            table["new"] = None  # type: ignore[index]


def test_a_subclass_can_add_methods() -> None:
    class Workflow(WorkflowDefinition):
        def run(self) -> str:
            return self.name

    assert Workflow("sub", [made("ok", StartEvent, StopEvent)]).run() == "sub"


def test_starts_are_the_accepted_start_events() -> None:
    assert workflow(
        made("a", StartEvent, A), made("b", Parcel, A), made("c", A, StopEvent)
    ).starts == (
        StartEvent,
        Parcel,
    )


def test_without_start_events_unemitted_internal_events_are_starts() -> None:
    found = workflow(
        made("a", A, B, StopEvent), made("b", B, None), made("f", StepFailedEvent, None)
    )
    assert found.starts == (A,)
    outside = workflow(made("a", A, StopEvent), made("b", B, None), external=[B])
    assert outside.starts == (A,)


def test_with_neither_every_accepted_event_is_a_start() -> None:
    found = workflow(
        made("a", A, B), made("b", B, A, StopEvent), made("c", InputResponseEvent, None)
    )
    assert found.starts == (A, B)


def test_plain_input_is_wrapped() -> None:
    found = workflow(made("ok", StartEvent, StopEvent))
    assert found.start_event({"n": 3}) == StartEvent({"n": 3})
    assert found.start_event(None) == StartEvent(None)
    assert found.can_emit_start(3)


def test_a_start_event_is_used_unchanged() -> None:
    order = Parcel(number=3)
    assert workflow(made("ok", StartEvent, StopEvent)).start_event(order) is order
    assert workflow(made("ok", Parcel, StopEvent)).start_event(order) is order
    special = MoreSpecial()
    assert workflow(made("ok", A, StopEvent)).start_event(special) is special


def test_an_input_of_any_other_event_class_is_refused() -> None:
    found = workflow(made("ok", Parcel, A), made("a", A, StopEvent))
    assert not found.can_emit_start(A())
    with pytest.raises(NoHandlerError, match="can't start with A: it starts with Parcel") as caught:
        found.start_event(A())
    assert caught.value.event_type == "A"


def test_plain_input_needs_a_step_that_takes_the_start_event() -> None:
    found = workflow(made("ok", Parcel, StopEvent))
    assert not found.can_emit_start({"n": 1})
    with pytest.raises(
        NoHandlerError, match=r"can't start with \{'n': 1\}: .*it starts with Parcel"
    ):
        found.start_event({"n": 1})


def test_a_route_goes_to_each_step_that_accepts_the_class_or_a_base() -> None:
    found = workflow(
        made("begin", StartEvent, A),
        made("special", Special, StopEvent),
        made("any", A, StopEvent),
        made("join", list[A | B], None),
        external=[B],
    )
    assert found.has_joins
    assert (found.targets(A).steps, found.targets(A).joins) == (("any", "join"), ("join",))
    assert found.targets(MoreSpecial).steps == ("special", "any", "join")
    assert found.targets(MoreSpecial) is found.targets(MoreSpecial)
    assert not found.targets(InputRequestEvent).steps
    assert found.targets(B).steps


def test_failures_go_to_the_handlers_that_name_their_step() -> None:
    found = workflow(
        made("begin", StartEvent, A),
        made("work", A, StopEvent),
        made("observe", Event, None),
        made("care", StepFailedEvent, StopEvent, handles=["work"]),
        made("rest", StepFailedEvent, StopEvent),
        made("join", list[StepFailedEvent], None, handles=["begin"]),
    )
    assert found.failure_targets("work").steps == ("care", "rest")
    assert found.failure_targets("begin").steps == ("rest", "join")
    assert found.failure_targets("begin").joins == ("join",)
    assert not found.failure_targets("rest").steps
    assert found.failure_targets("care").steps == ("rest",)


def test_event_types_contain_every_event_that_may_be_stored() -> None:
    found = workflow(
        made("begin", StartEvent, A, StopEvent), made("a", A, None), external=[B]
    ).event_types
    assert found["A"] is A
    assert found["B"] is B
    assert found["Special"] is Special
    assert found["more.special"] is MoreSpecial
    assert found["Parcel"] is Parcel
    for one in (StartEvent, StopEvent, InputRequestEvent, InputResponseEvent, StepFailedEvent):
        assert found[one.event_type] is one


def test_undeclared_subclasses_that_share_a_name_are_not_known() -> None:
    @attrs.frozen
    class Base(Event):
        pass

    def make() -> type[Base]:
        @attrs.frozen
        class Twin(Base):
            n: int = 0

        return Twin

    one, two = make(), make()
    steps = [made("begin", StartEvent, Base), made("base", Base, StopEvent)]
    assert "Twin" not in WorkflowDefinition("w", steps).event_types
    assert WorkflowDefinition("w", steps, types=[one]).event_types["Twin"] is one
    assert two.event_type == "Twin"


def test_a_declared_class_takes_precedence_over_an_undeclared_subclass() -> None:
    @attrs.frozen
    class Base(Event):
        pass

    @attrs.frozen
    class Impostor(Base):
        event_type: ClassVar[str] = "B"

    found = workflow(
        made("begin", StartEvent, Base), made("base", Base, B), made("b", B, StopEvent)
    )
    assert found.event_types["B"] is B
    assert Impostor not in found.event_types.values()


class Colour(enum.Enum):
    RED = 1


class Size(enum.Enum):
    BIG = 1


@dataclasses.dataclass
class Part:
    colour: Colour


@attrs.frozen
class Basket:
    parts: list[Part | None]


@attrs.frozen
class Bought(Event):
    baskets: dict[str, tuple[Basket, ...]]
    other: Any = None


def test_value_types_come_from_annotations_and_types() -> None:
    found = workflow(made("begin", StartEvent, Bought), made("b", Bought, StopEvent), types=[Size])
    assert found.value_types == {"Size": Size, "Basket": Basket, "Part": Part, "Colour": Colour}


def test_local_value_types_are_found() -> None:
    @attrs.frozen
    class Item:
        n: int

    @attrs.frozen
    class Local(Event):
        item: Item | Missing  # type: ignore[name-defined] # noqa: F821
        good: list[Item]

    found = workflow(made("begin", StartEvent, Local), made("b", Local, StopEvent))
    assert found.value_types == {"Item": Item}


def test_value_types_with_the_same_name_need_explicit_types() -> None:
    def make() -> Any:
        @attrs.frozen
        class Item:
            n: int

        return Item

    one, two = make(), make()
    event_class = attrs.make_class(
        "Two",
        {"one": attrs.field(type=one), "two": attrs.field(type=two)},
        bases=(Event,),
        frozen=True,
        slots=True,
    )
    steps = [made("begin", StartEvent, event_class), made("b", event_class, StopEvent)]
    assert "Item" not in WorkflowDefinition("w", steps).value_types
    assert WorkflowDefinition("w", steps, types=[two]).value_types["Item"] is two


def test_the_steps_of_two_instances_are_independent() -> None:
    class Service:
        @step
        async def fetch(self, ev: StartEvent) -> A:
            del ev
            return A()

        @step
        def save(self, ev: A) -> StopEvent:
            return StopEvent(ev)

    service = Service()
    found = workflow(service.fetch, service.save)
    assert [one.is_async for one in found.steps.values()] == [True, False]
    assert found.steps["save"].call(A()) == StopEvent(A())
