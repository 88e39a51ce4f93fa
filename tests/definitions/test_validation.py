"""A workflow that can't work is refused when it is built, with all faults in one error."""

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
from blazen_trio.errors import WorkflowValidationError


@attrs.frozen
class A(Event):
    pass


@attrs.frozen
class B(Event):
    pass


@attrs.frozen
class Special(A):
    pass


def made(name: str, accepts: Any, *emits: Any, **options: Any) -> Any:
    async def function(ev: Any) -> Any:
        return ev

    return step(name=name, accepts=accepts, emits=emits, **options)(function)


OK = made("ok", StartEvent, StopEvent)


def faults(*steps: Any, **options: Any) -> tuple[str, ...]:
    with pytest.raises(WorkflowValidationError, match="workflow 'w' is not valid") as caught:
        WorkflowDefinition("w", steps, **options)
    return caught.value.errors


def fault(*steps: Any, **options: Any) -> str:
    [only] = faults(*steps, **options)
    return only


def is_valid(*steps: Any, **options: Any) -> bool:
    """Build the workflow, which raises if it is invalid. Return whether it has all its steps."""
    built = WorkflowDefinition("w", steps, **options)
    return len(built.steps) == len(steps)


def test_a_workflow_needs_steps() -> None:
    assert "no steps" in fault()


def test_steps_must_be_a_sequence() -> None:
    with pytest.raises(WorkflowValidationError, match="expected a sequence of steps"):
        WorkflowDefinition("w", OK)


def test_two_steps_with_the_same_name_are_refused() -> None:
    assert "two steps are named 'ok'" in fault(OK, made("ok", StartEvent, StopEvent))


def test_an_undecorated_function_is_refused() -> None:
    async def forgotten(ev: A) -> None:
        del ev

    assert "forgotten is not a step: declare it with @step" in fault(OK, forgotten)
    assert "int 3 is not a step" in fault(OK, 3)


def test_faults_of_one_step_do_not_hide_those_of_others() -> None:
    @step
    async def bad(ev: Event) -> int:
        return 3

    found = faults(made("begin", StartEvent, StopEvent), made("begin", A, B), bad, 3)
    assert [one for one in found if "two steps" in one]
    assert [one for one in found if "is int" in one]
    assert [one for one in found if "int 3 is not a step" in one]
    assert [one for one in found if "accepts A, which no step returns" in one]
    assert len(found) == 4


def test_a_faulty_step_is_reported_once_and_no_other_is_blamed() -> None:
    @step
    async def bad(ev: A) -> int:
        return 3

    assert "return annotation is int" in fault(made("begin", StartEvent, A), bad)


def test_an_emitted_event_that_no_step_accepts_is_refused() -> None:
    assert fault(made("begin", StartEvent, A, StopEvent)) == (
        "step 'begin' returns A, which no step accepts: add a step that takes it"
    )
    assert "returns B" in fault(made("begin", StartEvent, list[B], StopEvent))


def test_an_emitted_subclass_or_base_of_an_accepted_class_is_valid() -> None:
    assert is_valid(made("begin", StartEvent, Special), made("a", A, StopEvent))
    assert is_valid(made("begin", StartEvent, A), made("a", Special, StopEvent))


def test_stop_and_questions_need_no_acceptor_nor_answers_and_failures_an_emitter() -> None:
    class Ask(InputRequestEvent):
        pass

    class Done(StopEvent):
        pass

    class Answer(InputResponseEvent):
        pass

    assert is_valid(
        made("begin", StartEvent, Ask, Done),
        made("answered", Answer, StopEvent),
        made("failed", StepFailedEvent, StopEvent),
    )


def test_an_accepted_event_that_no_step_emits_is_refused() -> None:
    found = fault(OK, made("lonely", A, None))
    assert found.startswith("step 'lonely' accepts A, which no step returns")
    assert "external=[A]" in found
    assert is_valid(OK, made("lonely", A, None), external=[A])


def test_an_external_event_reaches_steps_that_accept_a_base_of_it() -> None:
    assert is_valid(OK, made("lonely", A, None), external=[Special])


def test_steps_behind_an_unreachable_one_are_not_reported_too() -> None:
    assert "'lonely' accepts A" in fault(OK, made("lonely", A, B), made("next", B, StopEvent))


def test_steps_that_are_reached_only_from_each_other_are_refused() -> None:
    found = faults(OK, made("a", A, B, StopEvent), made("b", B, A))
    assert [one.split(" can't be reached")[0] for one in found] == ["step 'a'", "step 'b'"]


def test_a_cycle_without_an_exit_is_refused() -> None:
    found = fault(made("begin", StartEvent, A), made("a", A, B), made("b", B, A))
    assert found.startswith("the cycle of 'a', 'b' has no exit")


def test_a_step_that_only_repeats_itself_is_refused() -> None:
    assert "the cycle of 'a' has no exit" in fault(made("begin", StartEvent, A), made("a", A, A))


@pytest.mark.parametrize("way_out", [StopEvent, None, InputRequestEvent, list[A], Event])
def test_a_cycle_with_an_exit_is_valid(way_out: Any) -> None:
    assert is_valid(made("begin", StartEvent, A), made("a", A, B), made("b", B, A, way_out))


def test_the_exit_may_be_a_step_after_the_cycle() -> None:
    assert is_valid(made("begin", StartEvent, A), made("a", A, A, B), made("b", B, StopEvent))


def test_a_join_that_no_event_reaches_is_refused() -> None:
    found = fault(OK, made("join", list[A], StopEvent))
    assert "joins list[A], but no fan-out can feed it" in found


def test_a_join_of_the_root_needs_no_list() -> None:
    assert is_valid(made("begin", StartEvent, A), made("join", list[A], StopEvent))
    assert is_valid(made("join", list[A], StopEvent))
    assert is_valid(OK, made("join", list[A], StopEvent), external=[A])


def test_two_classes_of_one_event_type_are_refused() -> None:
    @attrs.frozen
    class Other(Event):
        event_type: ClassVar[str] = "A"

    found = fault(made("begin", StartEvent, A), made("a", A, Other), made("b", Other, StopEvent))
    assert found.startswith("event_type 'A' is that of two classes")
    assert ".A and " in found
    assert "Other: set" in found
    assert "two classes" in fault(
        made("begin", StartEvent, A), made("a", A, StopEvent), types=[Other]
    )


def test_the_event_type_of_a_built_in_class_is_refused() -> None:
    @attrs.frozen
    class Mine(Event):
        event_type: ClassVar[str] = "StopEvent"

    assert "event_type 'StopEvent'" in fault(
        made("begin", StartEvent, Mine), made("mine", Mine, StopEvent)
    )


def test_a_step_that_accepts_the_stop_event_is_refused() -> None:
    assert "accepts StopEvent, but a StopEvent ends the run" in fault(
        OK, made("after", StopEvent, None)
    )


def test_invalid_handles_are_refused() -> None:
    assert "does not accept StepFailedEvent" in fault(
        made("begin", StartEvent, StopEvent, handles=["ok"]), OK
    )
    assert "'nobody', which is not a step of this workflow; the steps are 'ok', 'care'" in fault(
        OK, made("care", StepFailedEvent, StopEvent, handles=["nobody"])
    )
    handler = made("mend", StepFailedEvent, StopEvent)
    assert "when it fails, so does the run" in fault(
        OK, handler, made("care", StepFailedEvent, StopEvent, handles=["mend"])
    )
    assert "its own failures" in fault(
        OK, made("care", StepFailedEvent, StopEvent, handles=["care"])
    )


@attrs.define
class Changeable(Event):
    n: int = 0


class Bare(Event):
    n: int = 0


@dataclasses.dataclass(frozen=True)
class Data(Event):
    n: int = 0


class Marker(Event):
    event_type: ClassVar[str] = "marker"


@pytest.mark.parametrize(
    ("event_class", "expected"),
    [
        (Changeable, "Changeable is mutable: declare it with @attrs.frozen"),
        (Bare, "Bare has fields but is not an attrs class"),
        (Data, "Data has fields but is not an attrs class"),
    ],
)
def test_event_classes_must_be_frozen_attrs_classes(event_class: Any, expected: str) -> None:
    assert expected in fault(
        made("begin", StartEvent, event_class), made("next", event_class, StopEvent)
    )


def test_an_event_without_fields_need_not_be_attrs() -> None:
    assert is_valid(made("begin", StartEvent, Marker), made("next", Marker, StopEvent))


@pytest.mark.parametrize(
    "options",
    [
        {"version": 2},
        {"version": ""},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": "1"},
        {"timeout": float("inf")},
        {"input_handler": 3},
        {"max_concurrency": 0},
        {"durability": "never"},
        {"external": A},
        {"external": 3},
        {"external": [int]},
        {"types": [int]},
        {"types": "A"},
    ],
)
def test_invalid_options_are_named(options: dict[str, Any]) -> None:
    [name] = options
    found = fault(OK, **options)
    assert found.startswith(f"{name}=")
    assert "expected" in found


def test_an_invalid_name_is_refused() -> None:
    with pytest.raises(WorkflowValidationError, match="name=''"):
        WorkflowDefinition("", [OK])


def test_two_value_types_with_the_same_name_are_refused() -> None:
    one = enum.Enum("Colour", "RED")
    two = enum.Enum("Colour", "RED GREEN")
    assert "two classes 'Colour'" in fault(OK, types=[one, two])


def test_all_faults_are_reported_together() -> None:
    found = faults(
        made("begin", StartEvent, A),
        made("lonely", B, None),
        made("after", StopEvent, None),
        timeout=0,
        durability="x",
        types=[3],
    )
    assert len(found) == 6
