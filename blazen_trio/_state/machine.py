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

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from blazen_trio._definitions.definition import no_handler
from blazen_trio._definitions.events import (
    Delayed,
    Event,
    InputRequestEvent,
    InputResponseEvent,
    StepFailedEvent,
    StopEvent,
)
from blazen_trio._state.apply import SLICE, apply_head, drain
from blazen_trio._state.entry import Collected, Entry, FanOutOpened, Output, Retry, Targets
from blazen_trio._state.joins import check_collectable, firing_due
from blazen_trio._state.routing import question_of
from blazen_trio._state.status import RunStatus
from blazen_trio.errors import NoHandlerError

if TYPE_CHECKING:
    from collections.abc import (
        Callable,
        Collection,
        Generator,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )

    from blazen_trio._definitions.steps import StepDefinition
    from blazen_trio._state.model import (
        Cell,
        Delayed as DelayedItem,
        Delivery,
        FanOut,
        Item,
        Payload,
        RunState,
        StoredError,
    )
    from blazen_trio._state.routing import Routing

    Encode = Callable[[Event], Payload] | None

__all__ = ["Machine", "Moment"]

_ENCODED: Final = 16
"""How many events are encoded in one piece: each takes many times what it takes to apply it."""


class Moment(NamedTuple):
    """When a transition happens: UTC (seconds since the epoch), and the run's time so far (seconds)."""

    at: float
    elapsed: float


class Machine:
    """Decides the transitions of one run of one workflow.

    Args:
        routing: The workflow's.
        state: The run's state.
        most: How many items are dealt with in one slice of a wide transition.
    """

    __slots__ = ("_most", "definition", "routing", "seal", "slices", "state")

    def __init__(self, routing: Routing, state: RunState, most: int = SLICE) -> None:
        self.routing = routing
        self.definition = routing.definition
        self.state = state
        self._most = most
        self.slices = False
        """Whether a wide transition applies its first slice only at once, leaving `entry.rest` to
        its caller. Until that has come to its end, nothing else may be asked of the machine; what
        can be read in the state meanwhile are its cells and its status."""
        self.seal: Callable[[Entry], None] | None = None
        """Encodes all of an entry that may fail to be encoded (`seal_entry`), before the entry is
        applied; set by whoever stores the entries."""

    # Outputs

    def outputs(
        self,
        events: Iterable[Any],
        encode: Encode,
        now: Callable[[], float],
        asked: set[str] | None = None,
    ) -> list[Output]:
        """Return events (some `Delayed`) on their way into the run, encoded.

        Args:
            events: The events.
            encode: Encodes one; `None`: they are not stored.
            now: Tells UTC; asked only for delayed ones.
            asked: The `request_id`s of the questions before them; those of these are added.

        Raises:
            SerializationError: One of them can't be stored.
            ValueError: One asks a question under the `request_id` of another.
        """
        outputs: list[Output] = []
        known = self.routing.known
        if asked is None:
            asked = set()
        for event in events:
            targets = known.get(type(event))
            if targets is not None and targets.plain:
                outputs.append(Output(event, None if encode is None else encode(event), targets))
            else:
                outputs.append(self._unusual(event, encode, now, asked))
        return outputs

    def making(
        self, events: Sequence[Any], encode: Encode, now: Callable[[], float]
    ) -> Generator[None, None, list[Output]]:
        """Return what `outputs` does, in slices: for the members of a wide fan-out.

        No other transition may happen between the first slice and the one that brings them in.
        """
        outputs: list[Output] = []
        asked: set[str] = set()
        for start in range(0, len(events), _ENCODED):
            outputs += self.outputs(events[start : start + _ENCODED], encode, now, asked)
            yield
        return outputs

    def _unusual(
        self, event: Any, encode: Encode, now: Callable[[], float], asked: set[str]
    ) -> Output:
        """One that is delayed, asks a question or stops the run, or the first of its class."""
        inner = event.event if isinstance(event, Delayed) else event
        payload = None if encode is None else encode(inner)
        if isinstance(inner, InputRequestEvent):
            self._check_request(inner, asked)
        if inner is not event:
            return Output(
                inner, payload, self.routing.later(type(inner)), due=now() + event.seconds
            )
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
        outputs: Sequence[Output],
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
            if output.targets.stops:
                return self._stopped(entry, output, outputs, members)
        if members is not None:
            # There may be very many: what is looked at one by one are the kinds of them.
            kinds: Collection[Targets] = {output.targets for output in members}
            if any(kind.stops for kind in kinds):
                stop = next(output for output in members if output.targets.stops)
                return self._stopped(entry, stop, outputs, members)
            if outputs and not all(kind.plain for kind in kinds):
                # Each was looked at by itself; between the two an id may be there twice, too.
                asked: set[str] = set()
                for output in (*outputs, *members):
                    if isinstance(output.event, InputRequestEvent):
                        self._check_request(output.event, asked)
            graph = self.definition.graph
            joins = graph.fired_joins(step.list_emits)
            if joins:
                check_collectable(step, kinds, joins, members)
                entry.fan_out = FanOutOpened(joins, members, graph.joins_if_any(step.list_emits))
            else:
                # Nothing ever asks for these members' order or end: no fan-out has to be kept.
                outputs = [*outputs, *members]
        group = delivery.group
        if outputs and group is not self.state.root:
            kinds = (outputs[0].targets,) if len(outputs) == 1 else {one.targets for one in outputs}
            check_collectable(step, kinds, () if group is None else group.pending, outputs)
        entry.outputs = outputs
        return self.finish(entry)

    def _stopped(
        self,
        entry: Entry,
        stop: Output,
        outputs: Sequence[Output],
        members: Sequence[Output] | None,
    ) -> Entry:
        entry.kind = "completed"
        entry.status = RunStatus.COMPLETED
        entry.stop, entry.stop_payload = stop.event, stop.payload
        entry.outputs = [output for output in (*outputs, *(members or ())) if output is not stop]
        return self.finish(entry)

    def retried(self, delivery: Delivery, due: float, since: float, moment: Moment) -> Entry:
        """A failed delivery is to be tried again when it is due (UTC)."""
        entry = Entry(self.state.seq + 1, "retried", moment.at, moment.elapsed)
        entry.step = delivery.step
        entry.retry = Retry(delivery.id, delivery.attempt + 1, due, since)
        return self.finish(entry)

    def handled(
        self, delivery: Delivery, failure: StepFailedEvent, encode: Encode, moment: Moment
    ) -> Entry | None:
        """A failure goes to the steps that accept it. `None`: there are none, or they have
        recovered it as often as they may (`given_up` tells).
        """
        route = self.definition.failure_handlers(delivery.step)
        events = delivery.event if isinstance(delivery.event, tuple) else (delivery.event,)
        if not route or any(isinstance(event, StepFailedEvent) for event in events):
            # A handler's own failure goes to nobody, or two handlers could go on for ever.
            return None
        if self.given_up(delivery):
            return None
        entry = Entry(self.state.seq + 1, "handled", moment.at, moment.elapsed)
        entry.step = delivery.step
        entry.done = delivery.id
        entry.recovers = delivery.step
        takers = tuple(
            name for name in self.definition.steps if name in route.steps or name in route.joins
        )
        entry.outputs = [
            Output(
                failure, None if encode is None else encode(failure), Targets(takers, route.joins)
            )
        ]
        return self.finish(entry)

    def given_up(self, delivery: Delivery) -> str:
        """Tell why this delivery's failure is not handed to handlers once more, as the end of an
        error's message; empty where that is not the reason.
        """
        most = self.definition.most_recoveries(delivery.step)
        recovered = self.state.recovered.get(delivery.id)
        count = recovered.get(delivery.step, 0) if recovered else 0
        if most is None or count < most:
            return ""
        times = "once" if count == 1 else f"{count} times"
        return (
            f"; a handler has led back to it {times} already, which is as often as it may: mend the "
            "step, or let the handler's @step say a greater max_recoveries"
        )

    def received(self, event: Any, encode: Encode, moment: Moment) -> Entry:
        """An event comes in from outside, to the end of the root.

        Raises:
            NoHandlerError: No step accepts it, or it is one that only the engine makes.
        """
        inner = event.event if isinstance(event, Delayed) else event
        if isinstance(inner, StepFailedEvent):
            # It would start a handler for a failure that never happened, and is not counted.
            raise NoHandlerError(
                f"run {self.state.run_id!r} takes no {inner.event_type} from outside: the engine makes "
                "one when a step has failed. Send an event of your own that says what happened",
                run_id=self.state.run_id,
                event_type=inner.event_type,
            )
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
        question = question_of(self.definition, self.state, response)
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

    def resumed(
        self, timeout: float | None, moment: Moment, trace: Mapping[str, str] | None = None
    ) -> Entry:
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
        """Apply an entry, and fire the joins due by it; of a wide one perhaps its first slice only.

        Raises:
            SerializationError: It can't be encoded; nothing of it is applied then.
        """
        if self.seal is not None:
            # Once it is applied it must be stored, so nothing that may fail is left for later.
            self.seal(entry)
        done, rest = apply_head(self.state, entry, self._most)
        group = self.state.root if done is None else done.group
        # While there is another item of its node, nothing that an item held back can be due.
        if rest is None and (group is None or (done is not None and done.node in group.live)):
            return entry
        slices = self._finishing(entry, rest, group, done)
        if not self.slices:
            drain(slices)
        elif next(slices, self) is None:
            entry.rest = slices
        return entry

    def _finishing(
        self, entry: Entry, rest: Iterator[None] | None, group: FanOut | None, done: Item | None
    ) -> Generator[None, None, None]:
        if rest is not None:
            yield from rest
        state = self.state
        fired: list[tuple[int, str]] = []
        if entry.fan_out is not None:
            opened = state.fan_outs[next(reversed(state.fan_outs))]
            yield from firing_due(self.routing, state, opened, entry, fired, self._most)
        if group is not None and (done is None or done.node not in group.live):
            yield from firing_due(self.routing, state, group, entry, fired, self._most)
        if fired:
            entry.fired = fired
        entry.rest = None
