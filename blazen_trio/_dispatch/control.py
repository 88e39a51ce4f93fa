"""The control of a run that is being driven: its phase, the requests made of it, and `decide`.

Nothing in this module waits, reads a clock or imports Trio. A task that wants something of the run
changes a request and wakes the dispatcher. Only the dispatcher calls `decide`, and acts on the
answer. A request can therefore arrive at any moment, alongside any other: one function resolves all
combinations.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "PHASES",
    "Control",
    "Hold",
    "Leave",
    "Next",
    "Phase",
    "Situation",
    "Stop",
    "decide",
    "mermaid",
]


class Phase(enum.Enum):
    """A run's phase in the process that drives it. (Its status is what is stored.)"""

    __hash__ = object.__hash__  # members are singletons, and Enum's hash is a slow Python function

    WORKING = "working"
    """Steps run, or may run as soon as they can."""
    PAUSED = "paused"
    """The run is paused, on disk; no step starts until it is unpaused."""
    PARKED = "parked"
    """The run waits, on disk, for a time or for something from outside."""
    ENDED = "ended"
    """A transition has ended the run in memory; nothing of it commits after that."""
    CLOSING = "closing"
    """This process writes what is committed and releases the run; nothing more is decided."""
    RESTING = "resting"
    """The run waits without a task; its host resumes it."""
    LEFT = "left"
    """This process no longer drives the run."""


PHASES: Final[dict[Phase, frozenset[Phase]]] = {
    Phase.WORKING: frozenset({Phase.PAUSED, Phase.PARKED, Phase.ENDED, Phase.CLOSING}),
    Phase.PAUSED: frozenset({Phase.WORKING, Phase.ENDED, Phase.CLOSING}),
    Phase.PARKED: frozenset(
        {Phase.WORKING, Phase.PAUSED, Phase.RESTING, Phase.ENDED, Phase.CLOSING}
    ),
    Phase.ENDED: frozenset({Phase.CLOSING, Phase.LEFT}),
    Phase.CLOSING: frozenset({Phase.LEFT}),
    Phase.RESTING: frozenset(),
    Phase.LEFT: frozenset(),
}
"""The phases that may follow each phase.

A resting run is resumed with another dispatcher, so no phase follows `RESTING`. `ENDED` to `LEFT`
is for a run of which nothing is left to write.
"""


class Leave(enum.IntEnum):
    """The moment at which this process leaves a run that has not ended.

    Members are ordered: a later request never makes the run stay longer.
    """

    NEVER = 0
    ONCE_ASKED = 1
    """On a pause or a question, since no one is left to unpause or answer the run."""
    ONCE_WAITING = 2
    """Also on a wait for events only, since its holder in this process is gone."""
    AT_REST = 3
    """On any wait or pause. A worker takes a waiting run once what it waits for has arrived."""
    AFTER_STEPS = 4
    """At the end of the steps in flight; no further step starts."""


class Stop(enum.Enum):
    """The reason for cancelling the steps in flight, which Trio's `Cancelled` reports."""

    ENDED = "the run has ended"
    CANCELLED = "the run was cancelled"
    PAUSED = "the run is being paused"
    DRAINED = "the runtime is closing, and its steps in flight are out of time"
    FAILED = "the engine can't continue the run"


class Next(enum.Enum):
    """The dispatcher's next action."""

    CANCEL = "cancel"
    """End the run as cancelled."""
    TIME_OUT = "time out"
    """End the run as timed out: its timeout is used up."""
    PAUSE = "pause"
    """Record that the run is paused."""
    UNPAUSE = "unpause"
    """Record that the run continues."""
    LEAVE = "leave"
    """Release the run in its present status."""
    TAKE_DUE = "take due"
    """Route the delayed events that are due, and make the due retries ready."""
    WAKE = "wake"
    """Record that the run no longer waits."""
    GET_SLOT = "get slot"
    """Ask the host for a slot, and wait."""
    RUN = "run"
    """Have a step task started if none is coming, and wait."""
    STALL = "stall"
    """End the run as stalled: nothing is left to do, and nothing can arrive."""
    PARK = "park"
    """Record that the run waits."""
    REST = "rest"
    """End the run's task; the host resumes the run."""
    WAIT = "wait"
    """Wait for a signal, or until the next timer is due."""


class Situation(Protocol):
    """The input of `decide` besides the requests. It does not change while `decide` looks at it."""

    @property
    def in_flight(self) -> bool:
        """Return whether step tasks are at work."""

    @property
    def deciding(self) -> bool:
        """Return whether a decided transition is on its way to the disk."""

    @property
    def out_of_time(self) -> bool:
        """Return whether the run has used up its timeout."""

    @property
    def ready(self) -> bool:
        """Return whether deliveries are ready to run."""

    @property
    def due(self) -> bool:
        """Return whether a timer is due."""

    @property
    def timers(self) -> bool:
        """Return whether there is a timer, due or not."""

    @property
    def questions(self) -> bool:
        """Return whether questions are open."""

    @property
    def asking(self) -> bool:
        """Return whether the input handler is at work on a question."""

    @property
    def unanswered(self) -> bool:
        """Return whether a question is open that the input handler is not at work on."""

    @property
    def external(self) -> bool:
        """Return whether events may arrive from outside."""

    @property
    def stored(self) -> bool:
        """Return whether the run has a store."""

    @property
    def slot(self) -> bool:
        """Return whether the run has a slot, or needs none."""

    @property
    def may_rest(self) -> bool:
        """Return whether the run's host lets it wait without a task."""


class Hold:
    """One request to pause the run. Holds are independent: giving one up does not undo another."""

    __slots__ = ()


class Control:
    """The requests that other tasks have made of a run, and its phase.

    Attributes:
        phase: The run's phase.
        holds: The requests to pause it.
        cancel_reason: A 1-tuple with the reason for cancelling it; `None`: no one has asked for it.
        failure: Why this process can't continue the run: the store failed, the run was lost, or
            user code broke out of the engine.
        leave: When this process leaves it.
        halted: Whether no further step may start; updated with every change.
        in_ended: Whether the run has ended, at least in memory, and is not being left yet.
    """

    __slots__ = ("cancel_reason", "failure", "halted", "holds", "in_ended", "leave", "phase")

    def __init__(self) -> None:
        self.phase = Phase.WORKING
        self.holds: tuple[Hold, ...] = ()
        self.cancel_reason: tuple[str | None] | None = None
        self.failure: BaseException | None = None
        self.leave = Leave.NEVER
        self.halted = self.in_ended = False

    def _changed(self) -> None:
        phase = self.phase
        self.in_ended = phase is Phase.ENDED
        self.halted = (
            phase not in _STEPS_MAY_START
            or bool(self.holds)
            or self.cancel_reason is not None
            or self.failure is not None
            or self.leave is Leave.AFTER_STEPS
        )

    def enter(self, phase: Phase) -> None:
        """Enter a phase.

        Raises:
            AssertionError: The phase can't follow the present one, which is a bug.
        """
        if phase is not self.phase:
            assert phase in PHASES[self.phase], (
                f"a run that is {self.phase.value} can't become {phase.value}"
            )
            self.phase = phase
            self._changed()

    @property
    def accepts(self) -> bool:
        """True while this process drives the run, which has not ended and is not being left."""
        return self.phase in _ALIVE and self.failure is None

    @property
    def stays(self) -> bool:
        """True while the run accepts transitions and this process keeps driving it for now."""
        return self.accepts and self.leave < Leave.AT_REST

    @property
    def gone(self) -> bool:
        """True once no task drives the run by this object: it was left, or waits without a task."""
        return self.phase in (Phase.LEFT, Phase.RESTING)

    # Requests. The caller wakes the dispatcher.

    def hold(self) -> Hold:
        """Request a pause. The run stays paused until every hold is given up."""
        hold = Hold()
        self.holds = (*self.holds, hold)
        self._changed()
        return hold

    def let_go(self, holds: Iterable[Hold]) -> None:
        """Give up these holds."""
        gone = tuple(holds)
        self.holds = tuple(hold for hold in self.holds if hold not in gone)
        self._changed()

    def cancel(self, reason: str | None) -> bool:
        """Request cancellation. Return `False` if the run has ended, or a cancel came before."""
        if self.phase not in _ALIVE or self.cancel_reason is not None:
            return False
        self.cancel_reason = (reason,)
        self._changed()
        return True

    def fail(self, failure: BaseException) -> bool:
        """Record why this process can't continue the run; the first reason counts.

        Returns:
            `False` if there is a reason already, or the run has been left.
        """
        if self.failure is not None or self.phase is Phase.LEFT:
            return False
        self.failure = failure
        self._changed()
        return True

    def leave_at(self, leave: Leave) -> None:
        """Leave the run at that moment, if no earlier one was requested."""
        self.leave = max(self.leave, leave)
        self._changed()


_ALIVE: Final = (Phase.WORKING, Phase.PAUSED, Phase.PARKED)
_STEPS_MAY_START: Final = (Phase.WORKING, Phase.PARKED)


def decide(control: Control, now: Situation) -> Next:
    """Return the next action for a run that accepts transitions (`Control.accepts`).

    Every combination of requests and situation has one answer.
    """
    busy = now.in_flight or now.deciding
    if control.cancel_reason is not None:
        # Ends do not wait for `deciding`: the journal keeps the order of entries, so the end is
        # written behind the transition that is on its way.
        return Next.WAIT if now.in_flight else Next.CANCEL
    if now.out_of_time:
        # Before holds and leaving: a run that is paused or left instead would have no time left
        # when it continues.
        return Next.WAIT if now.in_flight else Next.TIME_OUT
    if control.holds:
        if control.phase is not Phase.PAUSED:
            return Next.WAIT if busy else Next.PAUSE
        return Next.LEAVE if control.leave >= Leave.ONCE_ASKED and not busy else Next.WAIT
    if control.phase is Phase.PAUSED:
        # Before leaving: no worker takes a run that is paused on disk.
        return Next.UNPAUSE
    if control.leave is Leave.AFTER_STEPS:
        return Next.WAIT if busy else Next.LEAVE
    if now.due:
        return Next.TAKE_DUE
    if now.ready:
        return _run(control, now)
    return Next.WAIT if busy else _wait(control, now)


def _run(control: Control, now: Situation) -> Next:
    if control.phase is Phase.PARKED:
        return Next.WAKE
    return Next.RUN if now.slot else Next.GET_SLOT


def _wait(control: Control, now: Situation) -> Next:
    """Return the next action when nothing is ready, in flight or on its way to the disk."""
    if not (now.timers or now.questions or now.external):
        return Next.STALL
    if now.asking:
        return Next.WAIT
    if control.phase is not Phase.PARKED:
        return Next.PARK
    if control.leave >= Leave.AT_REST:
        return Next.LEAVE
    if now.may_rest:
        return Next.REST
    if control.leave >= Leave.ONCE_ASKED:
        if now.unanswered:
            return Next.LEAVE
        if not now.timers:
            # All that the run waits for has to be sent in.
            if not now.stored:
                return Next.STALL
            if control.leave >= Leave.ONCE_WAITING:
                return Next.LEAVE
    return Next.WAIT


def mermaid() -> str:
    """Return the phases as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.WORKING.value}"]
    for before, following in PHASES.items():
        lines += [f"    {before.value} --> {after.value}" for after in Phase if after in following]
    lines += [f"    {last.value} --> [*]" for last, following in PHASES.items() if not following]
    return "\n".join(lines)
