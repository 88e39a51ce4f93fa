"""The trial of one step alone, which runs and commits it as a run would."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence  # noqa: TC003  # in the public signature
from typing import Any

import attrs
import trio

from blazen_trio._clock import wall_clock
from blazen_trio._codec.codec import PLAIN, Codec
from blazen_trio._definitions.events import Delayed, Event, StartEvent
from blazen_trio._definitions.steps import StepDefinition, is_step, step_name
from blazen_trio._dispatch.attempts import Attempt
from blazen_trio._dispatch.calls import run_bounded
from blazen_trio._dispatch.core import RunCore
from blazen_trio._dispatch.observers import Broadcast, Recorder
from blazen_trio._dispatch.schedule import Standstill
from blazen_trio._dispatch.transaction import Transaction, make_cell
from blazen_trio._state.lifecycle import begin
from blazen_trio._state.machine import Machine, Moment
from blazen_trio._state.model import Cell, Delivery
from blazen_trio._state.routing import check_returned
from blazen_trio._surface.context import Context
from blazen_trio._surface.workflow import Workflow  # noqa: TC001  # part of the public signature
from blazen_trio.errors import SerializationError

__all__ = ["StepTrial", "try_step"]


@attrs.frozen
class StepTrial:
    """The outcome of a step that was tried alone.

    Attributes:
        outputs: The events that the step sent, then those that it returned alone or in a tuple. A
            delayed event is a `Delayed`.
        members: The events in the list that the step returned, in order; `None`: it returned none.
        state: The run's key/value state after the commit.
        published: The events that the step published, in order.
    """

    outputs: tuple[Event | Delayed[Any], ...]
    members: tuple[Event | Delayed[Any], ...] | None
    state: dict[str, Any]
    published: tuple[Event, ...]


async def try_step(
    workflow: Workflow,
    step: str | Callable[..., Any],
    event: Event | Sequence[Event],
    *,
    state: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> StepTrial:
    """Run one step of a workflow once, alone, and commit it in memory.

    The commit is checked as that of a run with a store::
        trial = await try_step(shop, charge, Order(7), state={"balance": 10})
        assert trial.outputs == (Charged(7),)
        assert trial.state == {"balance": 3}

    The engine checks, encodes and routes the step's outputs, so a mistake raises the error that
    would fail the run. No other step runs, nothing is retried, and no failure is handled. The
    step's timeout applies.

    Args:
        workflow: The workflow.
        step: The step, or its name in the workflow.
        event: The event for the step; for a join, the events that it has collected.
        state: The run's key/value state before the step.
        metadata: The metadata of the run, `ctx.metadata`.

    Raises:
        ValueError: The workflow has no such step.
        TypeError: The step does not accept this event.
        StepOutputError: The step returned or sent an event that it does not declare.
        StepTimeoutError: The step took longer than its timeout.
        StateConflictError: The step changed a state value in place, and did not set it.
        SerializationError: The state, the metadata or an output can't be stored.
        Exception: Any exception that the step itself raises.
    """
    await trio.lowlevel.checkpoint()
    definition = _find(workflow, step)
    given = _check_accepted(definition, event)
    codec: Codec = workflow.codec
    machine = _begin(workflow, codec, state or {}, metadata or {})
    delivery = _deliver(machine, definition, given)
    published = _Published()
    core = _core(machine, codec, published)
    transaction = Transaction(delivery, machine.state, codec)
    argument: Any = list(given) if isinstance(given, tuple) else given
    arguments = (argument, Context(core, transaction)) if definition.passes_context else (argument,)
    try:
        result = await run_bounded(definition, arguments)
    finally:
        transaction.closed = True
    outputs, members = _commit(core, definition, transaction, result)
    return StepTrial(
        outputs,
        members,
        {key: _value(codec, key, cell) for key, cell in machine.state.cells.items()},
        published.taken(),
    )


class _Published(Broadcast):
    """A broadcast that keeps all events; a stream would drop those that exceed its buffer."""

    def __init__(self) -> None:
        super().__init__()
        self._events: list[Event] = []

    def publish(self, event: Event) -> None:
        self._events.append(event)

    def taken(self) -> tuple[Event, ...]:
        return tuple(self._events)


def _find(workflow: Workflow, step: str | Callable[..., Any]) -> StepDefinition:
    if not isinstance(step, str) and not is_step(step):
        msg = f"try_step() takes a step of the workflow or its name, got {step!r:.80}"
        raise TypeError(msg)
    name = step_name(step)
    if name not in workflow.steps:
        msg = f"workflow {workflow.name!r} has no step {name!r}; it has {', '.join(workflow.steps)}"
        raise ValueError(msg)
    return workflow.steps[name]


def _check_accepted(step: StepDefinition, event: Any) -> Event | tuple[Event, ...]:
    accepted = ", ".join(cls.__name__ for cls in step.accepts)
    if step.is_join:
        if not isinstance(event, list | tuple):
            msg = f"step {step.name!r} is a join: pass a list of {accepted}, got {event!r:.80}"
            raise TypeError(msg)
        found: tuple[Any, ...] = tuple(event)
    else:
        found = (event,)
    for one in found:
        if not isinstance(one, step.accepts):
            msg = f"step {step.name!r} accepts {accepted}, got {one!r:.80}"
            raise TypeError(msg)
    return found if step.is_join else found[0]


def _begin(
    workflow: Workflow, codec: Codec, state: Mapping[str, Any], metadata: Mapping[str, Any]
) -> Machine:
    """Return the machine of a run that has started, with this state."""
    machine, _ = begin(
        workflow.routing,
        "trial",
        StartEvent(),
        codec.encode_value(dict(metadata), "metadata"),
        None,
        codec.encode_event,
        Moment(wall_clock().now(), 0.0),
    )
    for key, value in state.items():
        if type(key) is not str:
            msg = f"a key of the run's state must be a str, got {key!r:.80}"
            raise TypeError(msg)
        machine.state.cells[key] = make_cell(codec, key, value)
    return machine


def _deliver(machine: Machine, step: StepDefinition, event: Event | tuple[Event, ...]) -> Delivery:
    """Add a delivery to this step at the end of the run's root, and return it."""
    state = machine.state
    delivery = Delivery(state.next_id, step.name, event, None)
    state.next_id += 1
    state.deliveries[delivery.id] = delivery
    if state.root is not None:
        state.root.insert(delivery, state.root)
    return delivery


def _core(machine: Machine, codec: Codec, broadcast: Broadcast) -> RunCore:
    recorder = Recorder(broadcast, history=False, lifecycle=False, stored=False)
    standstill = Standstill(machine.state, codec, recorder)
    return RunCore(
        machine,
        codec,
        None,
        broadcast,
        recorder,
        standstill,
        wall_clock(),
        input_handler=None,
        make_context=Context,
    )


def _commit(
    core: RunCore, step: StepDefinition, transaction: Transaction, result: Any
) -> tuple[tuple[Any, ...], tuple[Any, ...] | None]:
    """Commit the attempt, and return its plain outputs and the members of its fan-out."""
    encode = core.codec.encode_event
    returned, listed = check_returned(step, result)
    members = None if listed is None else core.machine.outputs(listed, encode, core.clock.now)
    Attempt(core, transaction.delivery, step, transaction).decide(returned, members, encode)
    handed_over = (*transaction.sent, *returned)
    return handed_over, None if listed is None else tuple(listed)


def _value(codec: Codec, key: str, cell: Cell) -> Any:
    subject = f"state key {key!r}"
    try:
        return codec.decode_value(cell.payload.data, subject)
    except SerializationError:
        # Its class is known only to a `ctx.get(key, type=...)`.
        return PLAIN.decode_value(cell.payload.data, subject)
