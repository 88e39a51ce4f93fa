"""One step of a workflow tried alone, as a run would run and commit it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence  # noqa: TC003  # part of the public signature
from typing import Any

import attrs
import trio

from blazen_trio._clock import wall_clock
from blazen_trio._codec.codec import PLAIN, Codec
from blazen_trio._definitions.events import Delayed, Event, StartEvent
from blazen_trio._definitions.steps import StepDefinition, is_step, step_name
from blazen_trio._dispatch.calls import run_bounded
from blazen_trio._dispatch.core import RunCore
from blazen_trio._dispatch.observers import Broadcast, Recorder
from blazen_trio._dispatch.standstill import Standstill
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
    """What came of one step, tried alone.

    Attributes:
        outputs: The events that it sent, then those that it returned alone or in a tuple; a `Delayed` one as such.
        members: The events in the list that it returned, in order; `None`: it returned no list.
        state: The run's key/value state after the commit.
        published: What it published, in order.
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
    """Run one step of a workflow once, alone, and commit it as a run with a store would, in memory::

        trial = await try_step(shop, charge, Order(7), state={"balance": 10})
        assert trial.outputs == (Charged(7),)
        assert trial.state == {"balance": 3}

    What it hands over is checked, encoded and routed by the engine, so a mistake raises what would fail the run. No other
    step runs, nothing is retried, and no failure is handled. The step's timeout holds.

    Args:
        workflow: The workflow.
        step: The step, or its name in the workflow.
        event: What it is given; for a join, the events that it collected.
        state: The run's key/value state before the step.
        metadata: What the step reads as `ctx.metadata`.

    Raises:
        ValueError: The workflow has no such step.
        TypeError: The step does not accept this event.
        StepOutputError: It returned or sent what it does not declare.
        StepTimeoutError: It took longer than its timeout.
        StateConflictError: It changed a value of the state in place, and did not set it.
        SerializationError: The state, the metadata or what it handed over can't be stored.
        Exception: Whatever the step itself raises.
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
    """Keeps all that is published: a stream would drop what exceeds its buffer."""

    def __init__(self) -> None:
        super().__init__()
        self._events: list[Event] = []

    def publish(self, event: Event) -> None:
        self._events.append(event)

    def taken(self) -> tuple[Event, ...]:
        return tuple(self._events)


def _find(workflow: Workflow, step: str | Callable[..., Any]) -> StepDefinition:
    if not isinstance(step, str) and not is_step(step):
        msg = f"try_step() takes a step of the workflow or its name, found {step!r:.80}"
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
            msg = f"step {step.name!r} is a join: give it a list of {accepted}, found {event!r:.80}"
            raise TypeError(msg)
        found: tuple[Any, ...] = tuple(event)
    else:
        found = (event,)
    for one in found:
        if not isinstance(one, step.accepts):
            msg = f"step {step.name!r} accepts {accepted}, found {one!r:.80}"
            raise TypeError(msg)
    return found if step.is_join else found[0]


def _begin(
    workflow: Workflow, codec: Codec, state: Mapping[str, Any], metadata: Mapping[str, Any]
) -> Machine:
    """A run that has begun, with this state."""
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
    """A delivery to this step, at the root's end, whatever would have led to it in a run."""
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
    """Commit the attempt. Returns what it handed over: plain outputs, and members of a fan-out."""
    machine, encode, now = core.machine, core.codec.encode_event, core.clock.now
    returned, listed = check_returned(step, result)
    handed_over = (*transaction.sent, *returned)
    members = None if listed is None else machine.outputs(listed, encode, now)
    outputs = machine.outputs(handed_over, encode, now)
    cells, collected = transaction.cells(), transaction.collected(encode)
    machine.committed(transaction.delivery, step, outputs, members, core.moment(), cells, collected)
    return handed_over, None if listed is None else tuple(listed)


def _value(codec: Codec, key: str, cell: Cell) -> Any:
    subject = f"state key {key!r}"
    try:
        return codec.decode_value(cell.payload.data, subject)
    except SerializationError:
        # Of a class that only `ctx.get(key, type=...)` knows.
        return PLAIN.decode_value(cell.payload.data, subject)
