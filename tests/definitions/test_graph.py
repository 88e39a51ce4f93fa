"""The graph of a workflow: the joins that a fan-out fires, and that a live item holds back."""

from __future__ import annotations

import itertools
from typing import Any

import attrs

from blazen_trio._definitions.definition import WorkflowDefinition
from blazen_trio._definitions.events import (
    Delayed,
    Event,
    InputRequestEvent,
    InputResponseEvent,
    StartEvent,
    StepFailedEvent,
    StopEvent,
)
from blazen_trio._definitions.graph import Graph
from blazen_trio._definitions.steps import step


@attrs.frozen
class A(Event):
    pass


@attrs.frozen
class B(Event):
    pass


@attrs.frozen
class C(Event):
    pass


@attrs.frozen
class D(Event):
    pass


@attrs.frozen
class E(Event):
    pass


@attrs.frozen
class Special(B):
    pass


@attrs.frozen
class Ask(InputRequestEvent):
    pass


@attrs.frozen
class Answer(InputResponseEvent):
    pass


def made(name: str, accepts: Any, *emits: Any, handles: list[str] | None = None) -> Any:
    async def function(ev: Any) -> Any:
        return ev

    return step(name=name, accepts=accepts, emits=emits, handles=handles)(function)


def graph(*steps: Any) -> Graph:
    return WorkflowDefinition("graph", steps).graph


def test_a_fan_out_fires_the_joins_that_its_elements_lead_to() -> None:
    found = graph(
        made("begin", StartEvent, list[A]),
        made("work", A, B, C),
        made("more", C, D),
        made("other", list[D], StopEvent),
        made("join", list[B], StopEvent),
    )
    assert found.fired_joins((A,)) == ("other", "join")
    assert found.fired_joins((C,)) == ("other",)
    assert found.fired_joins((B,)) == ("join",)
    assert found.fired_joins(()) == ()


def test_an_element_may_be_collected_directly() -> None:
    found = graph(made("begin", StartEvent, list[A]), made("join", list[A], StopEvent))
    assert found.fired_joins((A,)) == ("join",)
    assert found.event_holds(A, False) == {"join"}


def test_delayed_and_tuple_elements_are_followed() -> None:
    found = graph(
        made("begin", StartEvent, list[Delayed[A]]),
        made("work", A, Delayed[B]),
        made("pair", B, tuple[C, D]),
        made("join", list[C | D], StopEvent),
    )
    assert found.fired_joins((A,)) == ("join",)


def nested() -> Graph:
    return graph(
        made("begin", StartEvent, list[A]),
        made("split", A, list[B]),
        made("work", B, C),
        made("inner", list[C], D),
        made("outer", list[D], StopEvent),
    )


def test_an_outer_fan_out_does_not_fire_the_join_of_an_inner_one() -> None:
    found = nested()
    assert found.fired_joins((A,)) == ("outer",)
    assert found.fired_joins((B,)) == ("inner",)


def test_the_outcome_of_an_inner_fan_out_holds_the_outer_join_back() -> None:
    found = nested()
    assert found.step_holds("split", False) == {"outer"}
    assert found.step_holds("inner", False) == {"outer"}, "a pending join already is a delivery"
    assert found.step_holds("work", False) == {"inner"}, "what a join returns leaves its level"
    assert found.step_holds("outer", False) == frozenset()


def test_joins_of_three_nested_fan_outs() -> None:
    found = graph(
        made("begin", StartEvent, list[A]),
        made("one", A, list[B]),
        made("two", B, list[C]),
        made("join_c", list[C], D),
        made("join_d", list[D], E),
        made("join_e", list[E], StopEvent),
    )
    assert found.fired_joins((C,)) == ("join_c",)
    assert found.fired_joins((B,)) == ("join_d",)
    assert found.fired_joins((A,)) == ("join_e",)


def test_a_recursive_fan_out_and_its_join() -> None:
    found = graph(
        made("begin", StartEvent, list[A]),
        made("split", A, list[A], B),
        made("merge", list[B], B, StopEvent),
    )
    assert found.fired_joins((A,)) == ("merge",)
    assert found.step_holds("split", False) == {"merge"}
    assert found.step_holds("merge", False) == {"merge"}, (
        "the inner merge returns into the outer fan-out"
    )


def test_a_recursive_fan_out_whose_leaves_come_only_from_its_own_joins() -> None:
    found = graph(
        made("begin", StartEvent, list[A]),
        made("split", A, list[A], None),
        made("merge", list[A], A, StopEvent),
    )
    assert found.fired_joins((A,)) == ("merge",)


def test_a_join_may_start_another_fan_out() -> None:
    found = graph(
        made("begin", StartEvent, list[A]),
        made("join_a", list[A], list[B]),
        made("join_b", list[B], C),
        made("last", C, StopEvent),
        made("top", list[C], StopEvent),
    )
    assert found.fired_joins((A,)) == ("join_a",)
    assert found.fired_joins((B,)) == ("join_b",)
    assert found.step_holds("join_a", True) == {"top"}


def test_a_subclass_or_a_base_of_a_declared_class_is_followed() -> None:
    found = graph(
        made("begin", StartEvent, list[B]),
        made("join", list[Special], StopEvent),
        made("rest", B, None),
    )
    assert found.fired_joins((B,)) == ("join",), "a B may be a Special"
    assert found.event_holds(Special, False) == {"join"}
    assert found.event_holds(B, False) == frozenset(), "this event is exactly a B"


def test_a_failure_leads_to_what_its_handler_returns() -> None:
    found = graph(
        made("begin", StartEvent, list[A]),
        made("work", A, C),
        made("log", C, None),
        made("care", StepFailedEvent, B, handles=["work"]),
        made("join", list[B], StopEvent),
    )
    assert found.fired_joins((A,)) == ("join",)
    assert found.step_holds("work", False) == {"join"}
    assert found.step_holds("log", False) == frozenset(), "the handler does not name this step"
    assert found.step_holds("care", False) == {"join"}
    assert found.joins_if_any((A,)) == (), "the join also fires if nothing failed"


def test_a_failure_of_an_outer_step_does_not_fire_an_inner_join_with_nothing() -> None:
    found = graph(
        made("begin", StartEvent, list[A]),
        made("split", A, list[B]),
        made("work", B, C),
        made("inner", list[C], D),
        made("outer", list[D], StopEvent),
        made("care", StepFailedEvent, C, handles=["split", "work"]),
    )
    assert found.fired_joins((A,)) == ("inner", "outer")
    assert found.joins_if_any((A,)) == ("inner",)
    assert found.fired_joins((B,)) == ("inner",)
    assert found.joins_if_any((B,)) == ()


def test_a_join_may_collect_failures() -> None:
    found = graph(
        made("begin", StartEvent, list[A]),
        made("work", A, C),
        made("log", C, None),
        made("join", list[C | StepFailedEvent], StopEvent),
    )
    assert found.step_holds("work", False) == {"join"}
    assert found.step_holds("log", False) == {"join"}
    assert found.step_holds("join", False) == frozenset(), "a join does not collect its own failure"


def test_a_step_that_accepts_every_event_is_not_a_failure_handler() -> None:
    found = graph(
        made("begin", StartEvent, list[A]),
        made("work", A, None),
        made("observe", Event, B),
        made("join", list[B], StopEvent),
    )
    assert found.handlers["work"] == []


def test_a_question_leads_to_the_answers_that_steps_accept() -> None:
    found = graph(
        made("begin", StartEvent, list[A]),
        made("ask", A, Ask),
        made("answered", Answer, B),
        made("join", list[B], StopEvent),
        made("elsewhere", list[C], None),
        made("c", D, C),
        made("d", StartEvent, D),
    )
    assert found.fired_joins((A,)) == ("join",)
    assert found.step_holds("ask", False) == {"join"}
    assert found.question_holds(Ask, False) == {"join"}
    assert found.question_holds(InputRequestEvent, True) == {"join"}
    assert found.event_holds(Ask, False) == {"join"}, "a delayed question"
    assert found.event_holds(Answer, False) == {"join"}


def test_the_outcome_of_a_root_join_stays_at_the_root() -> None:
    found = graph(
        made("begin", StartEvent, A, tuple[A, A]),
        made("join_a", list[A], B),
        made("work", B, C),
        made("join_c", list[C], StopEvent),
    )
    assert found.step_holds("begin", True) == {"join_a", "join_c"}
    assert found.step_holds("begin", False) == {"join_a"}
    assert found.event_holds(A, True) == {"join_a", "join_c"}
    assert found.step_holds("join_a", True) == {"join_c"}


def test_a_path_through_a_root_join_does_not_hold_that_join_back() -> None:
    found = graph(
        made("begin", StartEvent, A),
        made("join", list[A], B, StopEvent),
        made("again", B, A),
    )
    assert found.step_holds("begin", True) == {"join"}
    assert found.step_holds("again", True) == {"join"}
    assert found.step_holds("join", True) == {"join"}, (
        "its own delivery returns a B, which leads to an A"
    )


def test_a_path_only_through_the_root_join_itself_does_not_count() -> None:
    found = graph(
        made("begin", StartEvent, A, C),
        made("join", list[A], B, StopEvent),
        made("other", list[B], A, StopEvent),
        made("side", C, None),
    )
    assert found.step_holds("side", True) == frozenset()
    assert found.event_holds(B, True) == {"join", "other"}
    assert found.event_holds(A, True) == {"join", "other"}


def test_a_stop_event_and_an_unknown_step_hold_nothing_back() -> None:
    found = graph(
        made("begin", StartEvent, StopEvent),
        made("observe", Event, None),
        made("all", list[Event], StopEvent),
    )
    assert found.event_holds(StopEvent, False) == frozenset()
    assert found.step_holds("gone", True) == frozenset()
    assert found.event_holds(A, False) == {"all"}


def test_a_long_chain_needs_no_deep_stack() -> None:
    classes = [
        attrs.make_class(f"Link{n}", [], bases=(Event,), frozen=True, slots=False)
        for n in range(300)
    ]
    steps = [made("begin", StartEvent, list[classes[0]])]  # type: ignore[valid-type]
    steps += [made(f"s{n}", one, two) for n, (one, two) in enumerate(itertools.pairwise(classes))]
    steps.append(made("join", list[classes[-1]], StopEvent))  # type: ignore[valid-type]
    found = graph(*steps)
    assert found.fired_joins((classes[0],)) == ("join",)
    assert found.step_holds("s0", True) == {"join"}
