"""`@step` leaves the function unchanged, and checks options immediately."""

from __future__ import annotations

import functools
from typing import Any

import attrs
import pytest

from blazen_trio._definitions.events import Event, StepFailedEvent
from blazen_trio._definitions.retry import RetryPolicy
from blazen_trio._definitions.steps import StepDefinition, define_step, is_step, step, step_name
from blazen_trio.errors import WorkflowValidationError


@attrs.frozen
class A(Event):
    n: int = 0


@attrs.frozen
class Special(A):
    pass


@attrs.frozen
class B(Event):
    pass


def define(function: Any) -> StepDefinition:
    faults: list[str] = []
    definition = define_step(function, 3, faults)
    assert faults == []
    assert definition is not None
    return definition


async def test_a_decorated_step_is_still_a_plain_function() -> None:
    async def plain(ev: A) -> A:
        return A(ev.n + 1)

    marked = step(plain)
    assert marked is plain
    assert await marked(A(1)) == A(2)


def test_a_definition_has_the_options_of_the_step() -> None:
    policy = RetryPolicy()

    @step(name="other", timeout=3, retry=policy, max_concurrency=2, handles=["x"])
    def work(ev: StepFailedEvent) -> None:
        del ev

    definition = define(work)
    assert step_name(work) == definition.name == "other"
    assert (definition.index, definition.timeout, definition.retry) == (3, 3, policy)
    assert (definition.max_concurrency, definition.handles, definition.is_async) == (
        2,
        ("x",),
        False,
    )


def test_handles_takes_steps_too() -> None:
    @step(name="fetching")
    async def fetch(ev: A) -> None:
        del ev

    @step(handles=(fetch, "save"))
    async def care(ev: StepFailedEvent) -> None:
        del ev

    assert define(care).handles == ("fetching", "save")


@pytest.mark.parametrize(
    "options",
    [
        {"name": ""},
        {"name": 3},
        {"name": "event:A"},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": "3"},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"timeout": True},
        {"retry": 3},
        {"max_concurrency": 0},
        {"max_concurrency": 1.5},
        {"handles": "fetch"},
        {"handles": [3]},
    ],
)
def test_options_are_checked_when_the_step_is_decorated(options: dict[str, Any]) -> None:
    with pytest.raises(WorkflowValidationError) as caught:
        step(**options)(lambda ev: ev)
    [fault] = caught.value.errors
    [name] = options
    assert fault.startswith(f"{name}=")
    assert "expected" in fault


def test_all_invalid_options_are_reported_together() -> None:
    with pytest.raises(WorkflowValidationError) as caught:
        step(timeout=0, max_concurrency=0)(lambda ev: ev)
    assert len(caught.value.errors) == 2


async def async_generator(ev: A) -> Any:  # noqa: ASYNC900  # refused, which is what is tested
    yield ev


def generator(ev: A) -> Any:
    yield ev


@pytest.mark.parametrize(
    ("candidate", "fault"),
    [
        (functools.partial(print), "functools.partial can't be a step"),
        (A, "for functions and methods"),
        (print, "for functions and methods"),
        ("name", "for functions and methods.*'name'"),
        (async_generator, "generator function"),
        (generator, "generator function"),
    ],
)
def test_only_functions_can_be_steps(candidate: Any, fault: str) -> None:
    with pytest.raises(WorkflowValidationError, match=fault):
        step(candidate)


def test_a_function_can_be_only_one_step() -> None:
    @step
    async def once(ev: A) -> None:
        del ev

    with pytest.raises(WorkflowValidationError, match="already a step, named 'once'"):
        step(name="twice")(once)


class Service:
    """A class with a step of each kind of method."""

    def __init__(self, add: int) -> None:
        self.add = add

    @step(timeout=2)
    async def fetch(self, ev: A) -> A:
        return A(ev.n + self.add)

    @step
    @staticmethod
    def static(ev: A) -> A:
        return ev

    @staticmethod
    @step
    def inner_static(ev: A) -> A:
        return ev

    @step
    @classmethod
    def of_class(cls, ev: A) -> tuple[Any, A]:
        return cls, ev

    @classmethod
    @step(emits=())
    def inner_of_class(cls, ev: A) -> tuple[Any, A]:
        return cls, ev


async def test_bound_methods_are_steps_of_their_instance() -> None:
    one, two = define(Service(1).fetch), define(Service(2).fetch)
    assert (one.name, one.is_async, one.timeout) == ("fetch", True, 2)
    assert await one.call(A(1)) == A(2)
    assert await two.call(A(1)) == A(3)


def test_static_and_class_methods_are_steps() -> None:
    assert define(Service.static).call(A(1)) == A(1)
    assert define(Service(1).inner_static).call(A(1)) == A(1)
    assert define(Service.inner_of_class).call(A(1)) == (Service, A(1))
    assert is_step(Service(1).of_class)


def test_the_error_of_an_unbound_method_says_to_bind_it() -> None:
    faults: list[str] = []
    assert define_step(Service.fetch, 0, faults) is None
    assert "[service.fetch]" in faults[0]


def test_a_step_works_below_and_above_another_decorator() -> None:
    def logged(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return function(*args)

        return wrapper

    @logged
    @step(name="below")
    async def below(ev: A) -> B:
        return B()

    @step
    @logged
    async def above(ev: A) -> B:
        return B()

    for function in (below, above):
        definition = define(function)
        assert definition.call is function
        found = definition.wraps_async, definition.accepts, definition.emits
        assert found == (True, (A,), (B,))


def test_an_async_wrapper_of_a_plain_function_is_async() -> None:
    def plain(ev: A) -> B:
        return B()

    @step
    @functools.wraps(plain)
    async def wrapper(*args: Any) -> Any:
        return plain(*args)

    assert define(wrapper).is_async


def test_a_wrapped_partial_keeps_its_own_annotations() -> None:
    @functools.wraps(functools.partial(print))
    def work(ev: A) -> None:
        del ev

    assert is_step(step(work))


def test_a_declared_class_stands_for_its_subclasses() -> None:
    @step
    async def work(ev: A) -> A | list[B]:
        return ev

    definition = define(work)
    for _ in range(2):  # the second result is cached
        assert definition.plain[A]
        assert definition.plain[Special]
        assert not definition.plain[B]
        assert not definition.plain[Event]
        assert definition.listed[B]
        assert not definition.listed[A]
