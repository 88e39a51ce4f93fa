"""Annotations, including postponed and local ones, say what a step accepts and returns."""

from __future__ import annotations

import functools
import re
import typing
import weakref
from typing import TYPE_CHECKING, Annotated, Any, Generic, Optional, TypeVar, Union

import attrs
import pytest

from blazen_trio._definitions.events import Delayed, Event, StopEvent
from blazen_trio._definitions.steps import StepDefinition, define_step, step

if TYPE_CHECKING:
    from collections.abc import Callable

    from nowhere import Context as HiddenContext

T = TypeVar("T")


@attrs.frozen
class A(Event):
    n: int = 0


@attrs.frozen
class B(Event):
    n: int = 0


@attrs.frozen
class Box(Event, Generic[T]):
    item: Any = None


class Context(Generic[T]):
    __step_context__ = True


AB = A | B


def define(function: Callable[..., Any]) -> StepDefinition:
    faults: list[str] = []
    definition = define_step(function, 0, faults)
    assert not faults
    assert definition is not None
    return definition


def faults_of(function: Callable[..., Any]) -> list[str]:
    faults: list[str] = []
    define_step(function, 0, faults)
    assert faults
    return faults


def with_annotations(parameter: Any, returned: Any) -> Callable[..., Any]:
    async def made(ev: Any) -> Any:
        return ev

    made.__annotations__ = {"ev": parameter, "return": returned}
    return step(made)


@pytest.mark.parametrize(
    ("annotation", "accepts", "is_join"),
    [
        (A, (A,), False),
        ("A", (A,), False),
        ("A | B", (A, B), False),
        ("AB", (A, B), False),
        ('A | "B"', (A, B), False),
        (Union[A, B], (A, B), False),  # noqa: UP007
        (Union[A, "B"], (A, B), False),
        (Optional[A], (A,), False),  # noqa: UP045
        (Annotated[A, "note"], (A,), False),
        ('Annotated[A | "B", "not a name"]', (A, B), False),
        ("Box[int]", (Box,), False),
        ("list[A]", (A,), True),
        (list[A], (A,), True),
        (list["A"], (A,), True),
        (typing.List[A], (A,), True),  # noqa: UP006
        ("list[A | B]", (A, B), True),
        ("list[A] | list[B]", (A, B), True),
    ],
)
def test_the_event_parameter_is_read(
    annotation: Any, accepts: tuple[Any, ...], is_join: bool
) -> None:
    definition = define(with_annotations(annotation, None))
    assert definition.accepts == accepts
    assert definition.is_join is is_join


@pytest.mark.parametrize(
    ("annotation", "emits", "list_emits", "flags"),
    [
        (None, (), (), "none"),
        ("None", (), (), "none"),
        ("A", (A,), (), ""),
        ("A | None", (A,), (), "none"),
        ("A | StopEvent", (A, StopEvent), (), ""),
        (Optional[A], (A,), (), "none"),  # noqa: UP045
        ("list[A]", (), (A,), "list"),
        ("list[A | B]", (), (A, B), "list"),
        ("list[A] | list[B]", (), (A, B), "list"),
        ("list[A] | B | None", (B,), (A,), "list none"),
        ("tuple[A, B]", (A, B), (), "tuple"),
        ("tuple[A, ...]", (A,), (), "tuple"),
        ("tuple[()]", (), (), "tuple"),
        ("tuple[A | B, Delayed[A]]", (A, B), (), "tuple"),
        ("Delayed[A]", (A,), (), ""),
        ("Delayed[A | B]", (A, B), (), ""),
        ("Delayed[A] | B", (A, B), (), ""),
        ("list[Delayed[A]]", (), (A,), "list"),
        ("list[Delayed[A] | B]", (), (A, B), "list"),
        ("Annotated[list[A], 1]", (), (A,), "list"),
        ("list[A] | tuple[A, B]", (A, B), (A,), "list tuple"),
    ],
)
def test_the_return_annotation_is_read(
    annotation: Any, emits: Any, list_emits: Any, flags: str
) -> None:
    definition = define(with_annotations(A, annotation))
    assert definition.emits == emits
    assert definition.list_emits == list_emits
    found = {
        "list": definition.returns_list,
        "tuple": definition.returns_tuple,
        "none": definition.returns_none,
    }
    assert {name for name, true in found.items() if true} == set(flags.split())


@pytest.mark.parametrize(
    ("parameter", "returned", "fault"),
    [
        (int, None, "parameter 'ev' is annotated int.*make int an @attrs.frozen subclass of Event"),
        ("list", None, r"parameter 'ev' is annotated list.*list\[SomeEvent\]"),
        ("list[int]", None, r"list\[int\].*make int an"),
        ("tuple[A, B]", None, "parameter 'ev' is annotated tuple"),
        ("Delayed[A]", None, "parameter 'ev' is annotated"),
        ("A | list[B]", None, "both single events and a list"),
        (None, None, "accepts no event"),
        ("Nowhere", None, "'Nowhere', but 'Nowhere' is not defined.*TYPE_CHECKING"),
        ("A |", None, "fails: SyntaxError"),
        ("A + B", None, "fails: TypeError"),
        ("A", int, "its return annotation is int.*make int an"),
        ("A", "Any", r"its return annotation is (typing\.)?Any,.*or None$"),
        ("A", "list", r"list\[SomeEvent\]"),
        ("A", "Delayed", r"Delayed\[SomeEvent\]"),
        ("A", "list[list[A]]", "lists can't be nested"),
        ("A", "list[A | None]", "its return annotation is list"),
        ("A", "tuple[A, int]", "its return annotation is tuple.*make int an"),
        ("A", "Missing | A", "'Missing' is not defined"),
    ],
)
def test_faults_name_the_step_the_place_and_what_was_found(
    parameter: Any, returned: Any, fault: str
) -> None:
    found = faults_of(with_annotations(parameter, returned))
    assert any("step 'made'" in one for one in found)
    assert any(re.search(fault, one) for one in found), found


def test_faults_of_both_annotations_are_reported_together() -> None:
    assert len(faults_of(with_annotations(int, int))) == 2


def test_local_classes_are_found_after_their_function_has_returned() -> None:
    def make() -> Callable[..., Any]:
        @attrs.frozen
        class Local(Event):
            n: int = 0

        @step
        async def local(ev: Local) -> list[Delayed[Local]]:
            return [Delayed(ev, 1)]

        return local

    definition = define(make())
    assert [one.__name__ for one in definition.accepts + definition.list_emits] == [
        "Local",
        "Local",
    ]


def test_a_class_defined_after_the_step_is_found_when_the_workflow_is_built() -> None:
    @step
    async def early(ev: Late) -> Late | None:
        return ev

    @attrs.frozen
    class Late(Event):
        n: int = 0

    assert define(early).accepts == (Late,)


def test_a_class_in_a_closure_is_found_once_it_is_defined() -> None:
    def make() -> Callable[..., Any]:
        @step
        async def early(ev: Late) -> Late:
            return Late(ev.n)

        @attrs.frozen
        class Late(Event):
            n: int = 0

        return early

    assert define(make()).emits[0].__name__ == "Late"


def test_names_of_the_class_body_are_found() -> None:
    class Service:
        @attrs.frozen
        class Job(Event):
            n: int = 0

        @step
        async def work(self, ev: Job) -> None:
            del ev

    assert define(Service().work).accepts == (Service.Job,)


def test_an_enclosing_name_shadows_the_modules() -> None:
    def make() -> tuple[Any, Callable[..., Any]]:
        @attrs.frozen
        class A(Event):
            pass

        @step
        async def work(ev: A) -> None:
            del ev

        return A, work

    inner, work = make()
    assert define(work).accepts == (inner,)
    assert inner is not A


def test_the_callers_names_are_not_visible_to_the_step() -> None:
    A = B  # noqa: N806, F841

    assert define(make_module_like()).accepts[0].__name__ == "A"


def make_module_like() -> Callable[..., Any]:
    @step
    async def work(ev: A) -> None:
        del ev

    return work


def test_no_frame_is_kept_alive() -> None:
    class Big:
        pass

    def make() -> tuple[Callable[..., Any], weakref.ref[Big]]:
        big = Big()

        @step
        async def work(ev: A) -> None:
            del ev

        return work, weakref.ref(big)

    work, big = make()
    assert define(work)
    assert big() is None


CONTEXT_SHAPES: dict[str, Callable[..., Any]] = {}


def shape(function: Callable[..., Any]) -> Callable[..., Any]:
    CONTEXT_SHAPES[function.__name__] = step(function)
    return function


@shape
def alone(ev: A) -> Any:
    return ev, None


@shape
def second(ev: A, ctx: Context) -> Any:  # type: ignore[type-arg]
    return ev, ctx


@shape
def first(ctx: Context[int], ev: A) -> Any:
    return ev, ctx


@shape
def other_name(ev: A, context: Context[int]) -> Any:
    return ev, context


@shape
def unannotated(ev: A, ctx) -> Any:  # type: ignore[no-untyped-def]
    return ev, ctx


@shape
def hidden(ev: A, ctx: HiddenContext) -> Any:
    return ev, ctx


@shape
def optional(ev: A, ctx: Context[int] | None = None) -> Any:
    return ev, ctx


@shape
def keyword_context(ev: A, *, ctx: Context[int]) -> Any:
    return ev, ctx


@shape
def keyword_event(ctx: Context[int], *, ev: A) -> Any:
    return ev, ctx


@shape
def keywords(*, ctx: Context[int], ev: A) -> Any:
    return ev, ctx


@shape
def keyword_alone(*, ev: A) -> Any:
    return ev, None


@shape
def positional_only(ctx: Context[int], ev: A, /) -> Any:
    return ev, ctx


@shape
def with_default(ev: A, factor: int = 2, *, ctx: Context[int], scale: int = 1) -> Any:
    assert (factor, scale) == (2, 1)
    return ev, ctx


@pytest.mark.parametrize("name", CONTEXT_SHAPES)
def test_the_context_is_passed_as_the_annotated_parameter(name: str) -> None:
    function = step(name=name, emits=())(
        functools.wraps(CONTEXT_SHAPES[name])(lambda *a, **k: CONTEXT_SHAPES[name](*a, **k))
    )
    definition = define(function)
    event = A()
    if definition.passes_context:
        assert definition.call(event, "context") == (event, "context")
    else:
        assert definition.call(event) == (event, None)


def test_common_signatures_are_called_without_an_adapter() -> None:
    @step
    async def alone(ev: A) -> None:
        del ev

    @step
    async def second(ev: A, ctx: Context[int]) -> None:
        del ev, ctx

    assert define(alone).call is alone
    assert define(second).call is second


@pytest.mark.parametrize(
    ("parameters", "fault"),
    [
        ("", "no parameter takes an event.*none"),
        ("ctx", r"no parameter takes an event \(found: ctx\)"),
        ("a: A, b: B", "'a', 'b' would each have to take an event"),
        ("ev: A, more", "parameter 'more' has no annotation"),
        ("ev: A, ctx, c: Context[int]", "both 'ctx' and 'c' take the context"),
        ("self, ev: A", "parameter 'self' has no annotation.*bound"),
        ("ev: A = None, b: B = None", "would each have to take an event"),
    ],
)
def test_errors_about_parameters_say_what_to_do(parameters: str, fault: str) -> None:
    names = dict(globals())
    exec(f"def odd({parameters}) -> None: ...", names)
    [found] = faults_of(step(names["odd"]))
    assert re.search(fault, found), found


def test_a_missing_return_annotation_is_a_fault() -> None:
    @step
    async def silent(ev: A):  # type: ignore[no-untyped-def]
        del ev

    assert "no return annotation" in faults_of(silent)[0]


def test_explicit_classes_replace_annotations() -> None:
    @step(accepts=[A, B], emits=[Delayed[A], list[B], None])
    async def bare(ev, ctx):  # type: ignore[no-untyped-def]
        return ev, ctx

    definition = define(bare)
    assert (definition.accepts, definition.emits, definition.list_emits) == ((A, B), (A,), (B,))
    assert definition.returns_none
    assert definition.passes_context


def test_explicit_joins_and_single_classes() -> None:
    @step(accepts=list[A], emits=tuple[A, B])
    async def bare(evs):  # type: ignore[no-untyped-def]
        return evs

    definition = define(bare)
    assert definition.is_join
    assert definition.returns_tuple
    assert definition.emits == (A, B)


def test_errors_about_explicit_classes_name_the_option() -> None:
    @step(accepts=int, emits=[str])
    async def bare(ev):  # type: ignore[no-untyped-def]
        return ev

    found = faults_of(bare)
    assert "accepts= is annotated int" in found[0]
    assert "emits= is str" in found[1]
