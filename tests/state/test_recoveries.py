"""A handler leads back to the failed step a bounded number of times, by whatever path."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from blazen_trio import (
    Context,
    Delayed,
    Event,
    InputRequestEvent,
    InputResponseEvent,
    NoHandlerError,
    StartEvent,
    StepFailedEvent,
    StopEvent,
    WorkflowValidationError,
    step,
)
from blazen_trio._codec.codec import Codec
from blazen_trio._codec.entries import decode_entry, encode_entry, seal_entry
from blazen_trio._codec.snapshot import decode_state, iter_state
from blazen_trio._definitions.definition import WorkflowDefinition
from blazen_trio._state.apply import apply_entry, drain, state_from_first
from blazen_trio._state.entry import Collected, Entry
from blazen_trio._state.lifecycle import begin
from blazen_trio._state.machine import Machine, Moment
from blazen_trio._state.model import (
    Delayed as DelayedItem,
    Delivery,
    Payload,
    Question,
    RunState,
    StoredError,
)
from blazen_trio._state.routing import Routing
from blazen_trio._state.status import RunStatus

MOMENT = Moment(1000.0, 0.0)


@attrs.frozen
class Work(Event):
    n: int = 0


@attrs.frozen
class Other(Event):
    n: int = 0


@attrs.frozen
class Member(Event):
    n: int = 0


@step
async def start(ev: StartEvent) -> Work | Other | tuple[Work, Work]:
    raise NotImplementedError


@step
async def fragile(ev: Work) -> StopEvent | Work | Other:
    raise NotImplementedError


@step
async def between(
    ev: Other, ctx: Context
) -> Work | Delayed[Work] | list[Member] | InputRequestEvent | None:
    raise NotImplementedError


@step
async def member(ev: Member) -> Member | None:
    raise NotImplementedError


@step
async def join(evs: list[Member]) -> Work:
    raise NotImplementedError


@step
async def answer(ev: InputResponseEvent) -> Work:
    raise NotImplementedError


def flow(most: int = 1, *more: Any) -> WorkflowDefinition:
    @step(max_recoveries=most)
    async def mend(ev: StepFailedEvent) -> Work | Other | None:
        raise NotImplementedError

    return WorkflowDefinition("flow", [start, fragile, between, member, join, answer, mend, *more])


class Harness:
    """A run that is folded and restored after each transition."""

    def __init__(self, definition: WorkflowDefinition | None = None) -> None:
        self.definition = definition or flow()
        self.codec = Codec(self.definition.event_types, {})
        machine, entry = begin(
            Routing(self.definition),
            "run",
            StartEvent(),
            Payload(b"{}"),
            None,
            self.codec.encode_event,
            MOMENT,
        )
        self.machine = Machine(Routing(self.definition), machine.state, 1)
        self.machine.slices = True
        self.machine.seal = seal_entry
        self.folded: RunState | None = None
        self.first = self.note(entry)[0]

    @property
    def state(self) -> RunState:
        return self.machine.state

    def note(self, entry: Entry) -> list[Any]:
        drain(entry.rest or ())
        again = decode_entry(*encode_entry(entry), self.codec)
        self.folded = self.folded or state_from_first(again)
        apply_entry(self.folded, again)
        here = b"".join(iter_state(self.state, inline=True))
        assert b"".join(iter_state(self.folded, inline=True)) == here
        assert b"".join(iter_state(decode_state(here, {}, self.codec), inline=True)) == here
        self.check()
        return list(entry.effects)

    def check(self) -> None:
        """Check that no count is kept for an item that is gone."""
        state = self.state
        buffered = [
            one.id
            for types in state.buffers.values()
            for events in types.values()
            for one in events.values()
        ]
        groups = [*state.fan_outs.values(), *([] if state.root is None else [state.root])]
        grouped = [item.id for group in groups for item in group]
        tables = (
            state.deliveries,
            state.delayed,
            {one.id: one for one in state.questions.values()},
        )
        there = {*buffered, *grouped, *state.fan_outs, *(id_ for table in tables for id_ in table)}
        assert state.recovered.keys() <= there

    def commit(
        self, item: Any, *events: Any, members: list[Any] | None = None, **more: Any
    ) -> list[Any]:
        assert isinstance(item, Delivery)

        def made(what: Any) -> Any:
            return self.machine.outputs(what, self.codec.encode_event, lambda: MOMENT.at + 1)

        listed = None if members is None else made(members)
        definition = self.definition.steps[item.step]
        return self.note(
            self.machine.committed(item, definition, made(events), listed, MOMENT, **more)
        )

    def fail(self, item: Any) -> Any:
        """Fail an item. Return the handler's delivery, or `None` if nothing handles the failure."""
        assert isinstance(item, Delivery)
        failure = StepFailedEvent(item.step, item.event, "ValueError", "no", 1)
        entry = self.machine.handled(item, failure, self.codec.encode_event, MOMENT)
        if entry is None:
            return None
        [handler] = self.note(entry)
        return handler

    def recovered(self, item: Any) -> dict[str, int]:
        return dict(self.state.recovered.get(item.id, {}))


@pytest.mark.parametrize("most", [1, 2, 5])
def test_a_handler_leads_back_at_most_max_recoveries_times(most: int) -> None:
    harness = Harness(flow(most))
    [work] = harness.commit(harness.first, Work())
    for count in range(most):
        assert harness.recovered(work) == ({"fragile": count} if count else {})
        [work] = harness.commit(harness.fail(work), Work())
    assert harness.fail(work) is None
    message = harness.machine.given_up(work)
    assert ("once" if most == 1 else f"{most} times") in message
    assert "max_recoveries" in message


def test_an_event_that_never_failed_is_not_counted() -> None:
    harness = Harness()
    [one, other] = harness.commit(harness.first, Work(1), Work(2))
    [one] = harness.commit(harness.fail(one), Work(1))
    assert harness.fail(one) is None
    assert harness.fail(other) is not None
    assert harness.machine.given_up(other) == ""


def test_each_step_is_counted_separately() -> None:
    harness = Harness()
    [work] = harness.commit(harness.first, Work())
    [other] = harness.commit(harness.fail(work), Other())
    [other] = harness.commit(harness.fail(other), Other())
    assert harness.recovered(other) == {"fragile": 1, "between": 1}
    assert harness.fail(other) is None


def test_a_handler_that_leads_elsewhere_is_not_bounded() -> None:
    @step(handles=[fragile])
    async def note(ev: StepFailedEvent) -> StopEvent:
        raise NotImplementedError

    definition = WorkflowDefinition("flow", [start, fragile, between, member, join, answer, note])
    assert definition.most_recoveries("fragile") is None
    assert flow(3).most_recoveries("fragile") == 3
    assert flow(3).most_recoveries("member") == 3, "through a join"
    assert flow(3).most_recoveries("mend") is None


def through_delayed(harness: Harness, handler: Any) -> Any:
    [other] = harness.commit(handler, Other())
    [late] = harness.commit(other, Delayed(Work(), 1.0))
    assert isinstance(late, DelayedItem)
    [work] = harness.note(harness.machine.due(late, MOMENT))
    return work


def through_question(harness: Harness, handler: Any) -> Any:
    [other] = harness.commit(handler, Other())
    [question] = harness.commit(other, InputRequestEvent("?", {}, "q"))
    assert isinstance(question, Question)
    response = InputResponseEvent("q", "yes")
    [answered] = harness.note(
        harness.machine.answered(response, harness.codec.encode_event, MOMENT)
    )
    [work] = harness.commit(answered, Work())
    return work


def through_join(harness: Harness, handler: Any) -> Any:
    [other] = harness.commit(handler, Other())
    members = harness.commit(other, members=[Member(n) for n in range(4)])
    made = [effect for one in members for effect in harness.commit(one, Member())]
    members = [one for one in made if one.step == "member"]
    while members:
        made += (more := [effect for one in members for effect in harness.commit(one)])
        members = [one for one in more if one.step == "member"]
    [joined] = [one for one in made if one.step == "join"]
    [work] = harness.commit(joined, Work())
    return work


def through_empty_join(harness: Harness, handler: Any) -> Any:
    [other] = harness.commit(handler, Other())
    [joined] = harness.commit(other, members=[])
    assert joined.event == ()
    [work] = harness.commit(joined, Work())
    return work


def through_collect(harness: Harness, handler: Any) -> Any:
    """Let an unrelated event complete the set."""
    [other] = harness.commit(handler, Other(1))
    types = ("Other", "Other")
    added = ("Other", other.event, harness.codec.encode_event(other.event))
    assert harness.commit(other, collected=[Collected(types, added, (), "between")]) == []
    [taken] = harness.state.buffers["between", types]["Other"]
    [fresh] = harness.note(harness.machine.received(Other(2), harness.codec.encode_event, MOMENT))
    assert harness.recovered(fresh) == {}
    [work] = harness.commit(fresh, Work(), collected=[Collected(types, None, (taken,), "between")])
    return work


def through_retry(harness: Harness, handler: Any) -> Any:
    [work] = harness.commit(handler, Work())
    harness.note(harness.machine.retried(work, MOMENT.at + 1, MOMENT.at, MOMENT))
    return work


def through_a_crash(harness: Harness, handler: Any) -> Any:
    [work] = harness.commit(handler, Work())
    data = b"".join(iter_state(harness.state, inline=False))
    harness.machine = Machine(Routing(harness.definition), decode_state(data, {}, harness.codec))
    harness.note(harness.machine.resumed(None, MOMENT))
    return harness.state.deliveries[work.id]


WAYS = [
    through_delayed,
    through_question,
    through_join,
    through_empty_join,
    through_collect,
    through_retry,
    through_a_crash,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_recovery_is_counted_on_every_path_back(way: Any) -> None:
    harness = Harness()
    [work] = harness.commit(harness.first, Work())
    work = way(harness, harness.fail(work))
    assert harness.recovered(work) == {"fragile": 1}
    assert harness.fail(work) is None
    assert list(harness.state.recovered) == [work.id]


def test_resuming_a_failed_run_resets_the_counts() -> None:
    harness = Harness()
    [work] = harness.commit(harness.first, Work())
    [work] = harness.commit(harness.fail(work), Work())
    harness.note(
        harness.machine.changed(
            "failed", RunStatus.FAILED, MOMENT, StoredError("StepFailedError", "no")
        )
    )
    harness.note(harness.machine.resumed(None, MOMENT))
    assert harness.fail(work) is not None


def test_the_end_of_a_run_clears_the_counts() -> None:
    harness = Harness()
    [work] = harness.commit(harness.first, Work())
    [work] = harness.commit(harness.fail(work), Work())
    harness.commit(work, StopEvent())
    assert harness.state.recovered == {}


def test_a_journal_without_counts_can_be_read() -> None:
    harness = Harness()
    [work] = harness.commit(harness.first, Work())
    failure = StepFailedEvent("fragile", work.event, "ValueError", "no", 1)
    entry = harness.machine.handled(work, failure, harness.codec.encode_event, MOMENT)
    assert entry is not None
    data, _ = encode_entry(entry)
    assert b',"v":"fragile"' in data
    back = decode_entry(data.replace(b',"v":"fragile"', b""), {}, harness.codec)
    assert harness.folded is not None
    apply_entry(harness.folded, back)
    assert harness.folded.recovered == {}


@pytest.mark.parametrize("late", [False, True])
def test_a_failure_sent_from_outside_is_refused(late: bool) -> None:
    harness = Harness()
    event: Any = StepFailedEvent("fragile", Work(), "ValueError", "no", 1)
    before = b"".join(iter_state(harness.state, inline=True))
    with pytest.raises(
        NoHandlerError, match=r"run 'run' takes no StepFailedEvent from outside.* of your own"
    ):
        harness.machine.received(
            Delayed(event, 1.0) if late else event, harness.codec.encode_event, MOMENT
        )
    assert b"".join(iter_state(harness.state, inline=True)) == before


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, None, "2"])
def test_an_invalid_bound_is_refused(wrong: Any) -> None:
    with pytest.raises(WorkflowValidationError, match="max_recoveries="):

        @step(max_recoveries=wrong)
        async def mend(ev: StepFailedEvent) -> None: ...


def test_a_bound_on_a_step_that_handles_no_failures_is_refused() -> None:
    @step(max_recoveries=2)
    async def wrong(ev: Work) -> StopEvent:
        raise NotImplementedError

    with pytest.raises(
        WorkflowValidationError, match=r"'wrong' has max_recoveries=.*on the step that handles"
    ):
        flow(1, wrong)
