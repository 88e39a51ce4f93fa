"""Routing of a run's events.

A step's outputs are checked against its declarations. Events are matched with the steps and joins
that accept them, and answers with their questions.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from blazen_trio._definitions.definition import no_handler
from blazen_trio._definitions.events import (
    Delayed,
    Event,
    InputResponseEvent,
)
from blazen_trio._definitions.targets import Targets
from blazen_trio._state.safe_text import text_of
from blazen_trio.errors import InputResponseError, StepOutputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from blazen_trio._definitions.definition import WorkflowDefinition
    from blazen_trio._definitions.steps import StepDefinition
    from blazen_trio._state.model import Question, RunState

__all__ = [
    "Routing",
    "answer_to",
    "check_returned",
    "check_sent",
    "question_of",
    "unwrap",
]


def unwrap(output: Any) -> Any:
    """Return the event inside a `Delayed`, or any other output as it is."""
    return output.event if isinstance(output, Delayed) else output


def check_returned(step: StepDefinition, result: Any) -> tuple[Iterable[Any], list[Any] | None]:
    """Split a step's result into plain outputs and members of a fan-out.

    Returns:
        The plain outputs, and the members of the fan-out that a returned list opens (`None` if the
        result is not a list). Both may contain `Delayed` events.

    Raises:
        StepOutputError: The result is not an event, a list or tuple of events, or None; or it has a
            type that the step does not declare.
    """
    if result is None:
        return (), None
    if step.plain[type(result)]:
        return (result,), None
    if isinstance(result, (Event, Delayed)):
        check_plain(step, result, "returned")
        return (result,), None
    if type(result) is tuple:
        if not step.returns_tuple:
            raise _wrong(step, f"returned a tuple of {_names(result)}")
        for output in _samples(result):
            check_plain(step, output, "returned")
        return result, None
    if type(result) is list:
        if not step.returns_list:
            raise _wrong(step, f"returned a list of {_names(result)}")
        for event in map(unwrap, _samples(result)):
            if not isinstance(event, Event) or not step.listed[type(event)]:
                raise _wrong(step, f"returned a list that contains {_describe(event)}", event)
        return (), list(result)
    if inspect.iscoroutine(result):
        result.close()  # otherwise Python warns later, elsewhere, that it was never awaited
        raise _wrong(step, "returned a coroutine that was not awaited (a forgotten `await`?)")
    raise _wrong(step, f"returned {_describe(result)}")


def _samples(outputs: Sequence[Any]) -> Collection[Any]:
    """Return one output per class. Only classes are checked, and there may be very many outputs."""
    samples = dict(zip(map(type, outputs), outputs, strict=True))
    for cls in samples:
        if issubclass(cls, Delayed):
            return {type(unwrap(output)): output for output in outputs}.values()
    return samples.values()


def check_sent(step: StepDefinition, output: Any) -> None:
    """Check an event given to `ctx.send`.

    Raises:
        StepOutputError: It is not an event, or it has a type that the step does not declare.
    """
    check_plain(step, output, "sent")


def check_plain(step: StepDefinition, output: Any, verb: str) -> None:
    event = unwrap(output)
    if not isinstance(event, Event):
        raise _wrong(step, f"{verb} {_describe(event)}")
    if not step.plain[type(event)]:
        raise _wrong(step, f"{verb} {_describe(event)}", event)


def _twins(step: StepDefinition, value: Any) -> str:
    """Return a hint if the event's class has the name of a declared class, but is another class.

    Running a notebook cell again defines its classes again, for instance.
    """
    cls = type(value)
    if any(one.__name__ == cls.__name__ for one in (*step.emits, *step.list_emits)):
        return (
            f". There are two classes {cls.__name__}: if it was defined again, also define the "
            "step and build the workflow again"
        )
    return ""


def _wrong(step: StepDefinition, what: str, value: Any = None) -> StepOutputError:
    declared = [cls.__name__ for cls in step.emits] + [
        f"list[{cls.__name__}]" for cls in step.list_emits
    ]
    return StepOutputError(
        f"step {step.name!r} {what}, but it declares {' | '.join(declared) or 'no event at all'}: "
        "change what it returns or sends, or its return annotation (or `@step(emits=...)`). A list "
        "of events opens a fan-out and is declared as list[...], a tuple as tuple[...]; what "
        "`ctx.send` sends is declared outside of any list" + _twins(step, value),
        step_name=step.name,
        error_type="StepOutputError",
    )


def _describe(value: Any) -> str:
    return (
        f"{type(value).__name__} {text_of(value)[:80]!r}"
        if not isinstance(value, Event)
        else type(value).__name__
    )


def _names(values: Iterable[Any]) -> str:
    return ", ".join(sorted({type(unwrap(value)).__name__ for value in values})) or "nothing"


class Routing:
    """The routing table and graph of a workflow, shared by all its runs."""

    def __init__(self, definition: WorkflowDefinition) -> None:
        self.definition = definition
        self.targets = definition.targets
        self.known = definition.known_targets
        """The destinations of the classes of events that have been routed so far."""
        self.root_joins = tuple(step.name for step in definition.steps.values() if step.is_join)
        self.bounds = {
            name: step.max_concurrency
            for name, step in definition.steps.items()
            if step.max_concurrency is not None
        }
        """The `max_concurrency` of each step that has one."""
        self._later: dict[type[Event], Targets] = {}
        self._holds: dict[tuple[str, bool], frozenset[str]] = {}

    def later(self, cls: type[Event]) -> Targets:
        """Return the destinations of delayed events of this class before they are due.

        They go to no step yet, but the joins that will collect them wait for them.
        """
        targets = self._later.get(cls)
        if targets is None:
            targets = self._later[cls] = Targets(collects=self.targets(cls).joins)
        return targets

    def holds(self, node: str, *, root: bool) -> frozenset[str]:
        """Return the joins that a live item of this node holds back, in the root or a fan-out."""
        key = (node, root)
        held = self._holds.get(key)
        if held is None:
            held = self._holds[key] = self._find_holds(node, root=root)
        return held

    def _find_holds(self, node: str, *, root: bool) -> frozenset[str]:
        definition = self.definition
        if node in definition.steps:
            return definition.graph.step_holds(node, root)
        kind, _, name = node.partition(":")
        if kind == "member":
            return frozenset()
        cls = definition.event_types.get(name)
        if cls is None:
            # The class was created after the workflow was built, so its event may lead to any join
            # until it is routed.
            return frozenset(self.root_joins)
        return (
            definition.graph.event_holds(cls, root)
            if kind == "event"
            else definition.graph.question_holds(cls, root)
        )


def answer_to(
    run_id: str, asked: Collection[str], response: Any, answered: Collection[str] = ()
) -> InputResponseEvent:
    """Return a response as the answer to an open question.

    A plain value answers the only open question.

    Args:
        run_id: The run's id.
        asked: The `request_id`s of its open questions.
        response: An `InputResponseEvent`, or any value.
        answered: The `request_id`s of questions whose answers are on their way.

    Raises:
        InputResponseError: No question with its `request_id` is open; or it is a plain value, and
            the number of open questions is not one.
    """
    if isinstance(response, InputResponseEvent):
        request_id: object = response.request_id
        known = isinstance(request_id, str) and request_id in asked
        if known and request_id not in answered:
            return response
    open_ids = [each for each in asked if each not in answered]
    if isinstance(response, InputResponseEvent):
        raise InputResponseError(
            f"no question with request_id {response.request_id!r:.200} is open in run "
            f"{run_id!r}: it is unknown or already answered; open are "
            f"{sorted(open_ids) or 'none'}",
            run_id=run_id,
            request_id=str(response.request_id),
        )
    if len(open_ids) != 1:
        raise InputResponseError(
            f"run {run_id!r} has {len(open_ids)} open questions: name the one that is "
            "answered, with an InputResponseEvent that carries its request_id",
            run_id=run_id,
            request_id="",
        )
    return InputResponseEvent(open_ids[0], response)


def question_of(
    definition: WorkflowDefinition,
    state: RunState,
    response: InputResponseEvent,
    answered: Collection[str] = (),
) -> Question:
    """Return the open question that an answer is for. For `answered`, see `answer_to`.

    Raises:
        InputResponseError: No question with its `request_id` is open.
        NoHandlerError: No step accepts the answer.
    """
    request_id = answer_to(state.run_id, state.questions, response, answered).request_id
    if not definition.accepts(type(response)):
        raise no_handler(definition, response, state.run_id)
    return state.questions[request_id]
