"""The run's state machine, which decides the next transition without I/O, clock or randomness.

Each method is one transition. It decides, and encodes the events that it adds; if that fails,
nothing has happened. It then applies the transition through `apply`, finds the joins that become
due, and returns the journal entry of all of it:

    what happens                       entry       item consumed     what takes its place
    ---------------------------------  ----------  ----------------  -------------------------------
    a run starts                       started     -                 the start event's deliveries
    a step has run                     committed   its delivery      its outputs; or the run stops
    a step failed and will be retried  retried     -                 the same delivery, due later
    a step failed, a handler takes it  handled     its delivery      deliveries of a StepFailedEvent
    a step failed for good             failed      -                 - (the delivery stays pending)
    an event arrives from outside      received    -                 its deliveries, at root's end
    a question is answered             answered    the question      the answer's deliveries
    a delayed event is due             due         the event         its deliveries
    the run's status changes           the status  -                 -

Only these entries change a run's memory, so a crash between any two of them leaves a run that can
continue.
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
from blazen_trio._state.entry import Collected, Entry, FanOutOpened, Output, Retry
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
    from blazen_trio._definitions.targets import Targets
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
"""Events encoded per slice. Encoding an event takes many times as long as applying it."""


class Moment(NamedTuple):
    """The time of a transition: UTC in seconds since the epoch, and the run's elapsed seconds."""

    at: float
    elapsed: float


class Machine:
    """The state machine of one run of one workflow.

    Args:
        routing: The workflow's routing.
        state: The run's state.
        most: The maximum number of items per slice of a wide transition.
    """

    __slots__ = ("_most", "definition", "routing", "seal", "slices", "state")

    def __init__(self, routing: Routing, state: RunState, most: int = SLICE) -> None:
        self.routing = routing
        self.definition = routing.definition
        self.state = state
        self._most = most
        self.slices = False
        """If true, a wide transition applies only its first slice at once, and leaves the rest to
        its caller as `entry.rest`. Until that has ended, the state is half applied: no other
        transition may be made, and only the state's cells and status may be read."""
        self.seal: Callable[[Entry], None] | None = None
        """Encodes, before an entry is applied, everything in it whose encoding can fail
        (`seal_entry`). Set by the code that stores the entries."""

    # Outputs

    def outputs(
        self,
        events: Iterable[Any],
        encode: Encode,
        now: Callable[[], float],
        asked: set[str] | None = None,
    ) -> list[Output]:
        """Return events as outputs: encoded, and with their destinations.

        Args:
            events: The events; some may be `Delayed`.
            encode: The function that encodes an event; `None` if they are not stored.
            now: The clock, UTC in seconds since the epoch. Called only for delayed events.
            asked: The `request_id`s of earlier questions, to which those of these events are added.

        Raises:
            SerializationError: An event can't be stored.
            ValueError: A question has the `request_id` of another question.
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
        """Return the result of `outputs`, in slices, for the members of a wide fan-out.

        No other transition may happen from the first slice until these members are added: it could
        open a question with a `request_id` that was checked and found free here.
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
        """Make the output of a delayed event, question or `StopEvent`, or the first of a class."""
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
                f"the request_id {event.request_id!r} of a {type(event).__name__} is that of "
                "another open question: give each question an id of its own, or leave request_id "
                "out to get a new one"
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
        """Commit a step: its delivery is done, its outputs and writes apply, or the run stops.

        Args:
            outputs: The events that it sent, then those that it returned outside a list.
            members: The members of the list that it returned; `None` if it returned no list.
            cells: Its state writes by key; `None` deletes the key.
            collected: Its changes to its collect buffers.

        Raises:
            StepOutputError: No join can collect one of the outputs.
            ValueError: Two of its questions have the same `request_id`.
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
            # There may be very many members, so their distinct kinds are checked, not each one.
            kinds: Collection[Targets] = {output.targets for output in members}
            if any(kind.stops for kind in kinds):
                stop = next(output for output in members if output.targets.stops)
                return self._stopped(entry, stop, outputs, members)
            if outputs and not all(kind.plain for kind in kinds):
                # Outputs and members were each checked for duplicate ids by themselves. The same
                # id may still be in both.
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
                # No join needs the order or the end of these members, so no fan-out is opened.
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
        """Retry a failed delivery at `due`. Its first attempt started at `since` (both UTC)."""
        entry = Entry(self.state.seq + 1, "retried", moment.at, moment.elapsed)
        entry.step = delivery.step
        entry.retry = Retry(delivery.id, delivery.attempt + 1, due, since)
        return self.finish(entry)

    def handled(
        self, delivery: Delivery, failure: StepFailedEvent, encode: Encode, moment: Moment
    ) -> Entry | None:
        """Pass a failure to the steps that accept it.

        Returns `None` if there are none, or if they have recovered the step as often as they may
        (see `given_up`).
        """
        handlers = self.definition.failure_targets(delivery.step)
        events = delivery.event if isinstance(delivery.event, tuple) else (delivery.event,)
        if not handlers.steps or any(isinstance(event, StepFailedEvent) for event in events):
            # A handler's own failure is passed to no other handler, or two handlers could keep
            # passing failures to each other for ever.
            return None
        if self.given_up(delivery):
            return None
        entry = Entry(self.state.seq + 1, "handled", moment.at, moment.elapsed)
        entry.step = delivery.step
        entry.done = delivery.id
        entry.recovers = delivery.step
        payload = None if encode is None else encode(failure)
        entry.outputs = [Output(failure, payload, handlers)]
        return self.finish(entry)

    def given_up(self, delivery: Delivery) -> str:
        """Return why this failure is not handed to handlers again, as the end of an error message.

        Returns an empty string if the failure may still be handled as far as recoveries go.
        """
        most = self.definition.most_recoveries(delivery.step)
        recovered = self.state.recovered.get(delivery.id)
        count = recovered.get(delivery.step, 0) if recovered else 0
        if most is None or count < most:
            return ""
        times = "once" if count == 1 else f"{count} times"
        return (
            f"; a handler has already led back to it {times}, which is its limit: fix the step, or "
            "set a greater max_recoveries in the handler's @step"
        )

    def received(self, event: Any, encode: Encode, moment: Moment) -> Entry:
        """Take an event from outside. Its deliveries go to the end of the root.

        Raises:
            NoHandlerError: No step accepts it, or only the engine may create such an event.
        """
        inner = event.event if isinstance(event, Delayed) else event
        if isinstance(inner, StepFailedEvent):
            # It would start a handler for a failure that never happened, and is not counted.
            raise NoHandlerError(
                f"run {self.state.run_id!r} takes no {inner.event_type} from outside: the engine "
                "creates one when a step has failed. Send an event class of your own instead",
                run_id=self.state.run_id,
                event_type=inner.event_type,
            )
        if not self.routing.targets(type(inner)).steps:
            raise self.no_handler(inner)
        entry = Entry(self.state.seq + 1, "received", moment.at, moment.elapsed)
        entry.outputs = self.outputs([event], encode, lambda: moment.at)
        return self._woken(entry)

    def rejected(self, moment: Moment) -> Entry:
        """Drop an inbox event that can't be routed or decoded. Only the history records it."""
        return self.finish(Entry(self.state.seq + 1, "rejected", moment.at, moment.elapsed))

    def answered(self, response: InputResponseEvent, encode: Encode, moment: Moment) -> Entry:
        """Answer a question. The answer takes its place.

        Raises:
            InputResponseError: No question with this `request_id` is open.
            NoHandlerError: No step accepts the answer.
        """
        question = question_of(self.definition, self.state, response)
        entry = Entry(self.state.seq + 1, "answered", moment.at, moment.elapsed)
        entry.done = question.id
        entry.outputs = self.outputs([response], encode, lambda: moment.at)
        return self._woken(entry)

    def due(self, delayed: DelayedItem, moment: Moment) -> Entry:
        """Route a delayed event. A question whose id is open by now is not opened a second time."""
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
        """Change only the run's status.

        `kind` is paused, unpaused, waiting, woken, cancelled, timed_out, or failed (or stalled).
        """
        entry = Entry(self.state.seq + 1, kind, moment.at, moment.elapsed)
        entry.status = status
        entry.error = error
        return self.finish(entry)

    def resumed(
        self, timeout: float | None, moment: Moment, trace: Mapping[str, str] | None = None
    ) -> Entry:
        """Resume the run with a new epoch, so that ids lost in a crash are never assigned again.

        Otherwise another delivery could get an idempotency key that a service has already seen.
        """
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
        """Apply an entry and fire the joins that become due.

        With `slices`, only the first slice of a wide entry is applied; `entry.rest` has the rest.

        Raises:
            SerializationError: The entry can't be encoded. Nothing of it is applied.
        """
        if self.seal is not None:
            # An applied entry must be stored. If encoding it failed later, memory would be ahead of
            # the disk, and later entries would refer to items that no journal contains.
            self.seal(entry)
        done, rest = apply_head(self.state, entry, self._most)
        group = self.state.root if done is None else done.group
        # As long as another item of the same node is live, it holds back the same joins, so none of
        # them can be due.
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
