"""The control of a driven run: every combination of requests and situation, without Trio."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from blazen_trio._dispatch.control import (
    PHASES,
    Control,
    Leave,
    Next,
    Phase,
    decide,
    mermaid,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

DRIVEN = [Phase.WORKING, Phase.PAUSED, Phase.PARKED]


@attrs.frozen
class Now:
    """A situation and a phase."""

    phase: Phase = Phase.WORKING
    in_flight: bool = False
    deciding: bool = False
    out_of_time: bool = False
    ready: bool = False
    due: bool = False
    timers: bool = False
    questions: bool = False
    asking: bool = False
    unanswered: bool = False
    external: bool = False
    stored: bool = False
    slot: bool = True
    may_rest: bool = False


FLAGS = [field.name for field in attrs.fields(Now) if field.type == "bool"]
ENDS = {Next.CANCEL, Next.TIME_OUT, Next.STALL}
STARTS = {Next.RUN, Next.GET_SLOT, Next.WAKE, Next.TAKE_DUE}
"""The actions that lead to the start of another step."""
RESTS = {Next.PARK, Next.REST, Next.PAUSE, Next.LEAVE}


def asked(
    *,
    phase: Phase = Phase.WORKING,
    held: bool = False,
    cancelled: bool = False,
    leave: Leave = Leave.NEVER,
) -> Control:
    control = Control()
    control.enter(phase)
    if held:
        control.hold()
    if cancelled:
        control.cancel("why")
    control.leave_at(leave)
    return control


def every() -> Iterator[tuple[dict[str, Any], Control, Now, Next]]:
    """Iterate over all requests in all situations: 5 times 4 requests, 3 phases, 2**13 flags."""
    values = [
        dict(zip(FLAGS, each, strict=True))
        for each in itertools.product((False, True), repeat=len(FLAGS))
    ]
    for phase, leave in itertools.product(DRIVEN, Leave):
        situations = [Now(phase, **flags) for flags in values]
        for held, cancelled in itertools.product((False, True), repeat=2):
            requests: dict[str, Any] = {"held": held, "cancelled": cancelled, "leave": leave}
            control = asked(phase=phase, **requests)
            for now in situations:
                yield requests, control, now, decide(control, now)


def test_the_decision_for_every_combination_keeps_the_promises() -> None:
    """One loop, since half a million parametrized tests would take too long."""
    broken: dict[str, Any] = {}

    def promise(name: str, kept: bool, *where: Any) -> None:
        if not kept:
            broken.setdefault(name, where)

    for requests, control, now, following in every():
        held, cancelled, leave = requests["held"], requests["cancelled"], requests["leave"]
        where = (requests, now, following)
        stopped = held or cancelled or leave is Leave.AFTER_STEPS
        promise("halted says so", control.halted is (stopped or now.phase is Phase.PAUSED), where)
        if following in STARTS:
            promise("no step starts in a stopped run", not stopped, where)
            promise("no step starts in a paused run", now.phase is not Phase.PAUSED, where)
            promise("no step starts out of time", not now.out_of_time, where)
        if following in ENDS | RESTS:
            promise("steps in flight are waited for", not now.in_flight, where)
        if following in RESTS | {Next.STALL}:
            promise("decisions are durable first", not now.deciding, where)
        if following in {Next.PARK, Next.REST, Next.STALL}:
            promise("ready and due deliveries run first", not (now.ready or now.due), where)
        if following is Next.STALL and not (
            leave >= Leave.ONCE_ASKED and now.phase is Phase.PARKED
        ):
            promise(
                "a stalled run expects nothing",
                not (now.timers or now.questions or now.external),
                where,
            )
        if following is Next.LEAVE:
            promise("only a run asked to leave does", leave > Leave.NEVER, where)
        if following is Next.REST:
            promise(
                "only a run that may rest does", now.may_rest and now.phase is Phase.PARKED, where
            )
        if following is Next.RUN:
            promise("a running run has a slot", now.slot and now.ready, where)
        if following is Next.GET_SLOT:
            promise("a run with a slot requests none", not now.slot, where)
        if following is Next.CANCEL:
            promise("only a cancelled run is cancelled", cancelled, where)
        if following is Next.TIME_OUT:
            promise("only a run that is out of time times out", now.out_of_time, where)
        if following is Next.PAUSE:
            promise("only a held run is paused", held and now.phase is not Phase.PAUSED, where)
    assert broken == {}


def test_ready_deliveries_run_unless_something_was_requested() -> None:
    """A ready delivery runs if no step is in flight and no commit or request is pending."""
    for requests, _, now, following in every():
        if requests["held"] or requests["cancelled"]:
            continue
        if now.in_flight or now.deciding or requests["leave"] is Leave.AFTER_STEPS:
            continue
        if now.phase is Phase.PAUSED:
            assert following in {Next.UNPAUSE, Next.TIME_OUT}
        elif now.ready or now.due or now.out_of_time:
            assert following in STARTS | {Next.TIME_OUT}


W, P, K = DRIVEN
TABLE = [
    # what was asked, the situation, what comes next
    ({}, {"ready": True}, Next.RUN),
    ({}, {"ready": True, "slot": False}, Next.GET_SLOT),
    ({}, {"ready": True, "in_flight": True}, Next.RUN),
    ({}, {"in_flight": True}, Next.WAIT),
    ({}, {"deciding": True}, Next.WAIT),
    ({}, {"due": True, "timers": True, "ready": True}, Next.TAKE_DUE),
    ({}, {}, Next.STALL),
    ({}, {"external": True}, Next.PARK),
    ({}, {"timers": True}, Next.PARK),
    ({}, {"questions": True}, Next.PARK),
    ({}, {"questions": True, "asking": True}, Next.WAIT),
    ({"phase": K}, {"questions": True, "unanswered": True}, Next.WAIT),
    ({"phase": K}, {"external": True, "may_rest": True}, Next.REST),
    ({"phase": K}, {"ready": True}, Next.WAKE),
    ({"phase": K, "leave": Leave.ONCE_ASKED}, {"questions": True, "unanswered": True}, Next.LEAVE),
    ({"phase": K, "leave": Leave.ONCE_ASKED}, {"timers": True, "stored": True}, Next.WAIT),
    ({"phase": K, "leave": Leave.ONCE_ASKED}, {"external": True, "stored": True}, Next.WAIT),
    ({"phase": K, "leave": Leave.ONCE_ASKED}, {"external": True}, Next.STALL),
    ({"phase": K, "leave": Leave.ONCE_WAITING}, {"external": True, "stored": True}, Next.LEAVE),
    ({"phase": K, "leave": Leave.ONCE_WAITING}, {"timers": True, "stored": True}, Next.WAIT),
    ({"phase": K, "leave": Leave.AT_REST}, {"timers": True, "stored": True}, Next.LEAVE),
    ({"leave": Leave.AT_REST}, {"ready": True}, Next.RUN),
    ({"leave": Leave.AFTER_STEPS}, {"ready": True}, Next.LEAVE),
    ({"leave": Leave.AFTER_STEPS}, {"ready": True, "in_flight": True}, Next.WAIT),
    ({"held": True}, {"ready": True}, Next.PAUSE),
    ({"held": True}, {"ready": True, "in_flight": True}, Next.WAIT),
    ({"phase": P, "held": True}, {"ready": True}, Next.WAIT),
    ({"phase": P, "held": True, "leave": Leave.ONCE_ASKED}, {"ready": True}, Next.LEAVE),
    ({"phase": P}, {"ready": True}, Next.UNPAUSE),
    ({"cancelled": True, "held": True}, {"ready": True, "in_flight": True}, Next.WAIT),
    ({"cancelled": True, "held": True}, {"ready": True}, Next.CANCEL),
    ({}, {"out_of_time": True, "ready": True}, Next.TIME_OUT),
    ({"held": True}, {"out_of_time": True}, Next.TIME_OUT),
    ({"held": True}, {"out_of_time": True, "in_flight": True}, Next.WAIT),
]


@pytest.mark.parametrize(("requests", "situation", "following"), TABLE)
def test_the_next_action(
    requests: dict[str, Any], situation: dict[str, bool], following: Next
) -> None:
    phase = requests.get("phase", Phase.WORKING)
    assert decide(asked(**requests), Now(phase, **situation)) is following


# Requests


def test_holds_are_independent() -> None:
    control = Control()
    mine, yours = control.hold(), control.hold()
    control.let_go((mine,))
    control.let_go((mine,))
    assert control.holds == (yours,)
    assert control.halted
    control.let_go(control.holds)
    assert not control.halted


def test_only_the_first_reason_to_cancel_or_fail_counts() -> None:
    control = Control()
    assert control.cancel("first")
    assert not control.cancel("second")
    assert control.cancel_reason == ("first",)
    first = OSError()
    assert control.fail(first)
    assert not control.fail(KeyError())
    assert control.failure is first


def test_a_later_request_never_makes_the_run_stay_longer() -> None:
    for before, after in itertools.product(Leave, Leave):
        control = asked(leave=before)
        control.leave_at(after)
        assert control.leave is max(before, after)


# Phases


@pytest.mark.parametrize(("before", "after"), list(itertools.product(Phase, Phase)))
def test_only_the_listed_phases_may_follow_a_phase(before: Phase, after: Phase) -> None:
    control = Control()
    control.phase = before
    if after is before or after in PHASES[before]:
        control.enter(after)
        assert control.phase is after
        assert control.in_ended is (after is Phase.ENDED and before is not after)
    else:
        with pytest.raises(AssertionError, match=before.value):
            control.enter(after)


def test_every_phase_can_be_reached_and_all_but_the_last_can_be_left() -> None:
    assert set().union(*PHASES.values()) == set(Phase)
    lasts = {phase for phase, following in PHASES.items() if not following}
    assert lasts == {Phase.LEFT, Phase.RESTING}


def test_a_run_that_is_being_left_accepts_no_transition() -> None:
    for phase in Phase:
        control = Control()
        control.phase = phase
        assert control.accepts is (phase in DRIVEN)
        assert control.cancel(None) is (phase in DRIVEN)


def test_a_run_that_this_process_can_not_continue_accepts_no_transition() -> None:
    control = Control()
    assert control.fail(OSError())
    assert not control.accepts
    assert control.halted


def test_the_documentation_shows_the_diagram_of_the_phases() -> None:
    page = Path(__file__).parents[2] / "docs" / "internals" / "driving.md"
    assert f"```mermaid\n{mermaid()}\n```" in page.read_text()
