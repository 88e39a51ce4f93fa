"""The run's state machine: what happens next is decided here, without I/O, clock or randomness.

Each method is one transition. It decides, encodes what it brings in (which may fail, and then nothing has happened),
applies it through `apply`, sees which joins are due by that, and returns the journal entry of all of it:

    what happens                         entry        item consumed     what takes its place
    -----------------------------------  -----------  ----------------  --------------------------------
    a run begins                         started      -                 the start event's deliveries
    a step has run                       committed    its delivery      its outputs; or the run stops
    a step failed, and is tried again    retried      -                 the same delivery, due later
    a step failed, a handler takes it    handled      its delivery      the StepFailedEvent's deliveries
    a step failed for good               failed       -                 - (the delivery stays undone)
    an event comes in from outside       received     -                 its deliveries, at the root's end
    a question is answered               answered     the question      the answer's deliveries
    a delayed event is due               due          the delayed one   its deliveries
    the run's status changes             the status   -                 -

Every path into the run's memory is one of these entries, so a crash between any two of them leaves a run that goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from blazen_trio._definitions.definition import no_handler
from blazen_trio._definitions.events import (
    Delayed,
    Event,
    InputRequestEvent,
    InputResponseEvent,
    StepFailedEvent,
    StopEvent,
)
from blazen_trio._state.apply import apply_body, fire, noted, state_from_first
from blazen_trio._state.entry import Collected, Entry, FanOutOpened, Output, Retry, Targets
from blazen_trio._state.status import RunStatus
from blazen_trio.errors import InputResponseError, NoHandlerError, StepOutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence

    from blazen_trio._definitions.steps import StepDefinition
    from blazen_trio._state.model import Cell, Delayed as DelayedItem, Delivery, FanOut, Payload, RunState, StoredError
    from blazen_trio._state.routing import Routing

    Encode = Callable[[Event], Payload] | None

__all__ = ["Machine", "Moment", "begin"]


class Moment(NamedTuple):
    """When a transition happens: UTC (seconds since the epoch), and the run's time so far (seconds)."""

    at: float
    elapsed: float


def begin(
    routing: Routing,
    run_id: str,
    event: Event,
    metadata: Payload,
    timeout: float | None,
    encode: Encode,
    moment: Moment,
    trace: Mapping[str, str] | None = None,
) -> tuple[Machine, Entry]:
    """Begin a run with its start event; `timeout` in seconds; `trace`: where it belongs in a trace."""
    definition = routing.definition
    entry = Entry(1, "started", moment.at, moment.elapsed)
    entry.created = {
        "run_id": run_id,
        "workflow": definition.name,
        "workflow_version": definition.version,
        "metadata": metadata,
        "root": definition.has_joins,
        "timeout": timeout,
    }
    if trace is not None:
        entry.created["trace"] = trace
    entry.status = RunStatus.RUNNING
    entry.epoch = 0
    machine = Machine(routing, state_from_first(entry))
    entry.outputs = machine.outputs([event], encode, lambda: moment.at)
    machine.finish(entry)
    return machine, entry


class Machine:
    """Decides the transitions of one run of one workflow."""

    __slots__ = ("definition", "routing", "seal", "state")

    def __init__(self, routing: Routing, state: RunState) -> None:
        self.routing = routing
        self.definition = routing.definition
        self.state = state
        self.seal: Callable[[Entry], None] | None = None
        """Encodes all of an entry that may fail to be encoded (`seal_entry`), before the entry is
        applied; set by whoever stores the entries."""

    # Outputs

    def outputs(self, events: Iterable[Any], encode: Encode, now: Callable[[], float]) -> list[Output]:
        """Events (some `Delayed`) on their way into the run, encoded. `now` tells UTC, asked only for delayed ones.

        Raises:
            SerializationError: One of them can't be stored.
            ValueError: One asks a question under the `request_id` of another.
        """
        outputs: list[Output] = []
        known = self.routing.known
        asked: set[str] = set()
        for event in events:
            targets = known.get(type(event))
            if targets is not None and targets.plain:
                outputs.append(Output(event, None if encode is None else encode(event), targets))
            else:
                outputs.append(self._unusual(event, encode, now, asked))
        return outputs

    def _unusual(self, event: Any, encode: Encode, now: Callable[[], float], asked: set[str]) -> Output:
        """One that is delayed, asks a question or stops the run, or the first of its class."""
        inner = event.event if isinstance(event, Delayed) else event
        payload = None if encode is None else encode(inner)
        if isinstance(inner, InputRequestEvent):
            self._check_request(inner, asked)
        if inner is not event:
            return Output(inner, payload, due=now() + event.seconds)
        request_id = event.request_id if isinstance(event, InputRequestEvent) else None
        return Output(event, payload, self.routing.targets(type(event)), request_id=request_id)

    def _check_request(self, event: InputRequestEvent, asked: set[str]) -> None:
        if event.request_id in self.state.questions or event.request_id in asked:
            msg = (
                f"the request_id {event.request_id!r} of a {type(event).__name__} is that of another open question: give each "
                "an id of its own, or leave request_id out to get a new one"
            )
            raise ValueError(msg)
        asked.add(event.request_id)

    # Transitions

    def committed(
        self,
        delivery: Delivery,
        step: StepDefinition,
        outputs: list[Output] | tuple[()],
        members: list[Output] | None,
        moment: Moment,
        cells: dict[str, Cell | None] | None = None,
        collected: list[Collected] | tuple[()] = (),
    ) -> Entry:
        """A step has run: its delivery is done, its outputs are routed, its writes apply; or it stops the run.

        Args:
            outputs: What it sent and returned plainly, in that order.
            members: The members of the fan-out that it returned; `None`: no list.
            cells: Its state writes; `None` deletes.
            collected: What it did to its collect buffers.
        """
        entry = Entry(self.state.seq + 1, "committed", moment.at, moment.elapsed)
        entry.step = step.name
        entry.done = delivery.id
        entry.cells = cells
        entry.collected = collected
        for output in outputs:
            if not output.targets.plain and _stops(output):
                return self._stopped(entry, output, outputs, members)
        if members is not None:
            for output in members:
                if not output.targets.plain and _stops(output):
                    return self._stopped(entry, output, outputs, members)
            if outputs:
                # Each was looked at by itself; between the two an id may be there twice, too.
                asked: set[str] = set()
                for output in (*outputs, *members):
                    if not output.targets.plain and isinstance(output.event, InputRequestEvent):
                        self._check_request(output.event, asked)
            graph = self.definition.graph
            joins = graph.fired_joins(step.list_emits)
            if joins:
                self._check_collectable(step, members, joins)
                entry.fan_out = FanOutOpened(joins, members, graph.joins_if_any(step.list_emits))
            else:
                # Nothing ever asks for these members' order or end: no fan-out has to be kept.
                outputs = [*outputs, *members]
        group = delivery.group
        if outputs and group is not self.state.root:
            self._check_collectable(step, outputs, () if group is None else group.pending)
        entry.outputs = outputs
        return self.finish(entry)

    def _stopped(
        self, entry: Entry, stop: Output, outputs: Sequence[Output], members: Sequence[Output] | None
    ) -> Entry:
        entry.kind = "completed"
        entry.status = RunStatus.COMPLETED
        entry.stop, entry.stop_payload = stop.event, stop.payload
        entry.outputs = [
            Output(output.event, output.payload) for output in (*outputs, *(members or ())) if output is not stop
        ]
        return self.finish(entry)

    def _check_collectable(self, step: StepDefinition, outputs: Iterable[Output], pending: Container[str]) -> None:
        for output in outputs:
            # A delayed one is routed only when it is due, which would be too late to tell its step.
            joins = output.targets.joins if output.due is None else self.routing.targets(type(output.event)).joins
            for join in joins:
                if join not in pending:
                    raise StepOutputError(
                        f"step {step.name!r} made a {output.event.event_type} that the join {join!r} can't collect any "
                        "more: no declared path leads from the elements of the fan-out to it. Declare in the return "
                        "annotations on the way what the steps really emit",
                        step_name=step.name,
                        error_type="StepOutputError",
                    )

    def retried(self, delivery: Delivery, due: float, since: float, moment: Moment) -> Entry:
        """A failed delivery is to be tried again when it is due (UTC)."""
        entry = Entry(self.state.seq + 1, "retried", moment.at, moment.elapsed)
        entry.step = delivery.step
        entry.retry = Retry(delivery.id, delivery.attempt + 1, due, since)
        return self.finish(entry)

    def handled(self, delivery: Delivery, failure: StepFailedEvent, encode: Encode, moment: Moment) -> Entry | None:
        """A failure goes to the steps that accept it. `None`: there are none."""
        route = self.definition.failure_handlers(delivery.step)
        events = delivery.event if isinstance(delivery.event, tuple) else (delivery.event,)
        if not route or any(isinstance(event, StepFailedEvent) for event in events):
            # A handler's own failure goes to nobody, or two handlers could go on for ever.
            return None
        entry = Entry(self.state.seq + 1, "handled", moment.at, moment.elapsed)
        entry.step = delivery.step
        entry.done = delivery.id
        takers = tuple(name for name in self.definition.steps if name in route.steps or name in route.joins)
        entry.outputs = [Output(failure, None if encode is None else encode(failure), Targets(takers, route.joins))]
        return self.finish(entry)

    def received(self, event: Any, encode: Encode, moment: Moment) -> Entry:
        """An event comes in from outside, to the end of the root.

        Raises:
            NoHandlerError: No step accepts it.
        """
        inner = event.event if isinstance(event, Delayed) else event
        if not self.routing.targets(type(inner)).steps:
            raise self.no_handler(inner)
        entry = Entry(self.state.seq + 1, "received", moment.at, moment.elapsed)
        entry.outputs = self.outputs([event], encode, lambda: moment.at)
        return self._woken(entry)

    def rejected(self, moment: Moment) -> Entry:
        """An event came in from a sender who could not know that nothing accepts it: only the history tells."""
        return self.finish(Entry(self.state.seq + 1, "rejected", moment.at, moment.elapsed))

    def answered(self, response: InputResponseEvent, encode: Encode, moment: Moment) -> Entry:
        """A question is answered; the answer takes its place.

        Raises:
            InputResponseError: No question of this `request_id` is open.
            NoHandlerError: No step accepts the answer.
        """
        question = self.state.questions.get(response.request_id)
        if question is None:
            raise InputResponseError(
                f"no question with request_id {response.request_id!r} is open in run {self.state.run_id!r}: it is "
                f"unknown or answered already; open are {sorted(self.state.questions) or 'none'}",
                run_id=self.state.run_id,
                request_id=response.request_id,
            )
        if not self.routing.targets(type(response)).steps:
            raise self.no_handler(response)
        entry = Entry(self.state.seq + 1, "answered", moment.at, moment.elapsed)
        entry.done = question.id
        entry.outputs = self.outputs([response], encode, lambda: moment.at)
        return self._woken(entry)

    def due(self, delayed: DelayedItem, moment: Moment) -> Entry:
        """A delayed event's time has come. A question whose id another open one has by now is not opened a second time."""
        entry = Entry(self.state.seq + 1, "due", moment.at, moment.elapsed)
        entry.done = delayed.id
        event = delayed.event
        if isinstance(event, StopEvent):
            entry.kind = "completed"
            entry.status = RunStatus.COMPLETED
            entry.stop, entry.stop_payload = event, delayed.payload
            return self.finish(entry)
        targets = self.routing.targets(type(event))
        request_id = event.request_id if isinstance(event, InputRequestEvent) else None
        if request_id in self.state.questions:
            request_id = None
        entry.outputs = [Output(event, delayed.payload, targets, request_id=request_id)]
        return self._woken(entry)

    def changed(
        self,
        kind: str,
        status: RunStatus,
        moment: Moment,
        error: StoredError | None = None,
    ) -> Entry:
        """The run's status changes: paused, unpaused, waiting, woken, cancelled, failed, timed_out, stalled."""
        entry = Entry(self.state.seq + 1, kind, moment.at, moment.elapsed)
        entry.status = status
        entry.error = error
        return self.finish(entry)

    def resumed(self, timeout: float | None, moment: Moment, trace: Mapping[str, str] | None = None) -> Entry:
        """A process goes on with the run: a new epoch, so that no id is ever given twice."""
        state = self.state
        entry = Entry(state.seq + 1, "resumed", moment.at, moment.elapsed)
        entry.epoch = state.epoch + 1
        entry.status = RunStatus.RUNNING
        entry.created = {
            "workflow_version": self.definition.version,
            "root": self.definition.has_joins,
            "timeout": timeout,
        }
        if trace is not None and state.trace is None:
            entry.created["trace"] = trace
        return self.finish(entry)

    def _woken(self, entry: Entry) -> Entry:
        if self.state.status is RunStatus.WAITING:
            entry.status = RunStatus.RUNNING
        return self.finish(entry)

    def no_handler(self, event: Event) -> NoHandlerError:
        return no_handler(self.definition, event, self.state.run_id)

    # Joins

    def finish(self, entry: Entry) -> Entry:
        """Apply an entry, and fire the joins that are due by it.

        Raises:
            SerializationError: It can't be encoded; nothing of it is applied then.
        """
        if self.seal is not None:
            # Once it is applied it must be stored, so nothing that may fail is left for later.
            self.seal(entry)
        state = self.state
        done = apply_body(state, entry)
        if state.stop is not None:
            return entry
        group = state.root if done is None else done.group
        fired: list[tuple[int, str]] = []
        if entry.fan_out is not None:
            self._fire_due(state.fan_outs[next(reversed(state.fan_outs))], fired, entry)
        if group is not None and (done is None or done.node not in group.live):
            # While there is another item of this node, nothing that it holds back can be due, nor anything else new.
            self._fire_due(group, fired, entry)
        if fired:
            entry.fired = fired
        return entry

    def _fire_due(self, group: FanOut, fired: list[tuple[int, str]], entry: Entry) -> None:
        root = group.id == 0
        joins = [j for j in self.routing.root_joins if "member:" + j in group.live] if root else list(group.pending)
        for join in joins:
            if not any(join in self.routing.holds(node, root=root) for node in group.live) and not (
                root and self._comes_later(join, joins)
            ):
                fired.append((group.id, join))
                place = None if root else group.pending[join]
                delivery = fire(self.state, group.id, join)
                if delivery is not None:
                    noted(entry, delivery)
                elif place is not None and place.group is not None:
                    # What it would have returned held joins back there.
                    self._fire_due(place.group, fired, entry)

    def _comes_later(self, join: str, due: Sequence[str]) -> bool:
        """Whether another root join that is due with this one leads to it: what that one returns is to be collected first.

        Which of the two became due first would be a matter of time. Two that lead to each other go in order of declaration.
        """
        holds = self.routing.holds
        return any(join in holds(one, root=True) and one not in holds(join, root=True) for one in due if one != join)

    # What a run that has come to rest is waiting for

    def half_collected(self) -> tuple[str, ...]:
        """What waits in joins and collect buffers for more, a sentence each."""
        lines = []
        for (step, types), by_type in self.state.buffers.items():
            have = ", ".join(f"{len(events)} {name}" for name, events in by_type.items() if events)
            lines.append(f"step {step!r} collects [{', '.join(types)}] and has {have}")
        for fan_out in (*self.state.fan_outs.values(), *([self.state.root] if self.state.root else [])):
            for node, count in fan_out.live.items():
                if node.startswith("member:"):
                    lines.append(f"join {node[7:]!r} has collected {count}")
        return tuple(lines)


def _stops(output: Output) -> bool:
    return isinstance(output.event, StopEvent) and output.due is None
