"""How a run is driven, as a state machine: where it stands, what was asked of it, and what comes next.

Nothing here waits, reads a clock or knows Trio. Whoever asks for something changes a request and wakes the dispatcher;
the dispatcher alone asks `decide` what comes next, and does it. So a request that comes at any moment, in any order,
beside any other, meets one table of answers.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

import attrs

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
    """Where a run stands in the process that drives it."""

    __hash__ = object.__hash__  # that of Enum is a Python function, and each is there once

    WORKING = "working"
    """Steps run, or may run as soon as they can."""
    PAUSED = "paused"
    """It is paused, on disk; no step starts until it is unpaused."""
    PARKED = "parked"
    """It waits, on disk, for a time or for something from outside."""
    ENDED = "ended"
    """A transition has ended it in memory; nothing of it commits after that."""
    CLOSING = "closing"
    """This process writes what is committed, and gives the run back; nothing is decided any more."""
    RESTING = "resting"
    """It waits without a task; whoever hosts it goes on with it."""
    LEFT = "left"
    """This process drives it no more."""


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
"""The phases that may follow each. A rested run goes on with another dispatcher, so nothing but the end follows here.
`ENDED` to `LEFT` is a run that had completed before this process read it: there is nothing to write."""


class Leave(enum.IntEnum):
    """When this process leaves a run that has not ended. What is asked later never makes it stay longer."""

    NEVER = 0
    ONCE_ASKED = 1
    """Where it is paused or asks a question: nobody is there to unpause or answer."""
    ONCE_WAITING = 2
    """Besides, where all that it waits for has to be sent in: whoever held it here is gone."""
    AT_REST = 3
    """As soon as it rests, whatever it waits for: somebody takes it up when that comes."""
    AFTER_STEPS = 4
    """As soon as the steps in flight have ended; no other starts."""


class Stop(enum.Enum):
    """Why the steps in flight are cancelled. Its value is the reason that Trio's `Cancelled` tells."""

    ENDED = "the run has ended"
    CANCELLED = "the run was cancelled"
    PAUSED = "the run is being paused"
    DRAINED = "the runtime is closing, and the time for its steps in flight is over"
    FAILED = "the engine can't go on with the run"


class Next(enum.Enum):
    """What the dispatcher does next."""

    STOP = "stop"
    """The run has ended, or can't go on here."""
    CANCEL = "cancel"
    """End the run as cancelled."""
    TIME_OUT = "time out"
    """End it as timed out: its timeout is used up."""
    PAUSE = "pause"
    """Write down that it is paused."""
    UNPAUSE = "unpause"
    """Write down that it goes on."""
    LEAVE = "leave"
    """Give it back, as it stands."""
    TAKE_DUE = "take due"
    """Route the delayed events, and let the retries run, whose time has come."""
    WAKE = "wake"
    """Write down that it waits no more."""
    GET_SLOT = "get slot"
    """Ask for a slot among its host's runs, and wait."""
    RUN = "run"
    """See to it that a step task begins, and wait."""
    STALL = "stall"
    """End it as stalled: nothing is left to do, and nothing can come."""
    PARK = "park"
    """Write down that it waits."""
    REST = "rest"
    """Leave its task; its host goes on with it."""
    WAIT = "wait"
    """Wait until something changes, or a time comes."""


@attrs.frozen
class Situation:
    """All that decides what comes next, besides the requests.

    Attributes:
        phase: Where the run stands.
        in_flight: Whether step tasks are at work.
        deciding: Whether something is decided, and on its way to the disk.
        out_of_time: Whether the run has used up its timeout.
        ready: Whether deliveries are ready to run.
        due: Whether the time of something has come.
        timers: Whether anything waits for a time.
        questions: Whether questions are open.
        asking: Whether the input handler is at work on one.
        unanswered: Whether one is open that nobody is at work on.
        external: Whether events may come from outside.
        stored: Whether the run has a store.
        slot: Whether the run has a slot, or needs none.
        may_rest: Whether its host lets it wait without a task.
    """

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


class Hold:
    """Somebody's wish that the run be paused. Each is there by itself: one who gives up does not undo another's."""

    __slots__ = ()


class Control:
    """The requests that others have made of a run, and its phase.

    Attributes:
        phase: Where the run stands.
        holds: Those who want it paused.
        cancel_reason: A 1-tuple with the reason for which it is to be cancelled; `None`: it is not.
        failure: Why this process can't go on with it: the store failed, the run was lost, or user code broke out.
        leave: When this process leaves it.
        halted: Whether no further step may start; kept up to date by every change.
        ended: Whether the run has ended, in memory at least, and is not being left yet.
    """

    __slots__ = ("cancel_reason", "ended", "failure", "halted", "holds", "leave", "phase")

    def __init__(self) -> None:
        self.phase = Phase.WORKING
        self.holds: tuple[Hold, ...] = ()
        self.cancel_reason: tuple[str | None] | None = None
        self.failure: BaseException | None = None
        self.leave = Leave.NEVER
        self.halted = self.ended = False

    def _changed(self) -> None:
        self.ended = self.phase is Phase.ENDED
        self.halted = (
            self.phase not in _STEPS_MAY_START
            or bool(self.holds)
            or self.cancel_reason is not None
            or self.failure is not None
            or self.leave is Leave.AFTER_STEPS
        )

    def enter(self, phase: Phase) -> None:
        """Stand there from now on.

        Raises:
            AssertionError: That phase can't follow: a bug.
        """
        if phase is not self.phase:
            assert phase in PHASES[self.phase], (
                f"a run that is {self.phase.value} can't become {phase.value}"
            )
            self.phase = phase
            self._changed()

    @property
    def accepts(self) -> bool:
        """Whether transitions may still happen here: it is driven, has not ended, and is not being left."""
        return self.phase in _ALIVE and self.failure is None

    @property
    def stays(self) -> bool:
        """Whether it accepts transitions, and will go on to be driven here for now."""
        return self.accepts and self.leave < Leave.AT_REST

    @property
    def gone(self) -> bool:
        """Whether nobody drives the run by this any more: it was left, or waits without a task."""
        return self.phase in (Phase.LEFT, Phase.RESTING)

    # Requests. Whoever makes one wakes the dispatcher.

    def hold(self) -> Hold:
        """Want it paused."""
        hold = Hold()
        self.holds = (*self.holds, hold)
        self._changed()
        return hold

    def let_go(self, holds: Iterable[Hold]) -> None:
        """Take these wishes back."""
        gone = tuple(holds)
        self.holds = tuple(hold for hold in self.holds if hold not in gone)
        self._changed()

    def cancel(self, reason: str | None) -> bool:
        """Want it cancelled. Return whether that is news: it had not ended, and nobody had asked before."""
        if self.phase not in _ALIVE or self.cancel_reason is not None:
            return False
        self.cancel_reason = (reason,)
        self._changed()
        return True

    def fail(self, failure: BaseException) -> bool:
        """This process can't go on with it. Return whether that is news; only the first reason counts."""
        if self.failure is not None or self.phase is Phase.LEFT:
            return False
        self.failure = failure
        self._changed()
        return True

    def leave_at(self, leave: Leave) -> None:
        """Leave it then, if not before."""
        self.leave = max(self.leave, leave)
        self._changed()


_ALIVE: Final = (Phase.WORKING, Phase.PAUSED, Phase.PARKED)
_STEPS_MAY_START: Final = (Phase.WORKING, Phase.PARKED)


def decide(control: Control, now: Situation) -> Next:
    """Return what comes next. Every combination of requests and situation has one answer."""
    if now.phase not in _ALIVE or control.failure is not None:
        return Next.STOP
    busy = now.in_flight or now.deciding
    if control.cancel_reason is not None:
        return Next.WAIT if now.in_flight else Next.CANCEL
    if now.out_of_time:
        # Also where it was to be paused, or drained: it would go on without any time left.
        return Next.WAIT if now.in_flight else Next.TIME_OUT
    if control.holds:
        if now.phase is not Phase.PAUSED:
            return Next.WAIT if busy else Next.PAUSE
        return Next.LEAVE if control.leave >= Leave.ONCE_ASKED and not busy else Next.WAIT
    if now.phase is Phase.PAUSED:
        return Next.UNPAUSE
    if control.leave is Leave.AFTER_STEPS:
        return Next.WAIT if busy else Next.LEAVE
    if now.due:
        return Next.TAKE_DUE
    if now.ready:
        return _run(now)
    return Next.WAIT if busy else _wait(control, now)


def _run(now: Situation) -> Next:
    if now.phase is Phase.PARKED:
        return Next.WAKE
    return Next.RUN if now.slot else Next.GET_SLOT


def _wait(control: Control, now: Situation) -> Next:
    """Nothing is ready, in flight or on its way."""
    if not (now.timers or now.questions or now.external):
        return Next.STALL
    if now.asking:
        return Next.WAIT
    if now.phase is not Phase.PARKED:
        return Next.PARK
    if control.leave >= Leave.AT_REST:
        return Next.LEAVE
    if now.may_rest:
        return Next.REST
    if control.leave >= Leave.ONCE_ASKED:
        if now.unanswered:
            return Next.LEAVE
        if not now.timers:
            # All that it waits for has to be sent in.
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
