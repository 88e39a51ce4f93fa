"""The handle of a run that this process drives."""

from __future__ import annotations

import datetime as dt
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from blazen_trio._codec.messages import EVENT, pack_event
from blazen_trio._concurrency import protected_methods
from blazen_trio._definitions.events import Delayed, Event, InputRequestEvent, InputResponseEvent
from blazen_trio._dispatch.control import Phase, Stop
from blazen_trio._dispatch.inbox import answer, nobody_has_answered, unanswered
from blazen_trio._dispatch.transitions import settle
from blazen_trio._state.routing import answer_to
from blazen_trio._state.safe_text import text_of
from blazen_trio._state.status import RunStatus
from blazen_trio._surface.outcome import ended_error, engine_error, result_of
from blazen_trio._surface.run_arguments import check_event, check_grace, check_key, check_reason
from blazen_trio.errors import (
    InputRequiredError,
    RunFinishedError,
    RunPausedError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from blazen_trio._codec.snapshot import Snapshot
    from blazen_trio._dispatch.core import RunCore
    from blazen_trio._dispatch.observers import EventStream
    from blazen_trio._state.entry import HistoryRecord
    from blazen_trio._surface.outcome import Handle

__all__ = ["Run"]

T = TypeVar("T")


@protected_methods
class Run:
    """A run, as long as this process drives it. Made by entering what `Workflow.run` and the resume verbs return.

    Every async method is a checkpoint. When one that acts on the run returns, what it did is on disk, if the run has a store;
    `Cancelled` out of it means that it did not happen.
    """

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._state = handle.state
        handle.held = weakref.ref(self)

    @classmethod
    def of(cls, handle: Handle) -> Run:
        """Return the one `Run` that somebody has, or a new one. For the engine's own use."""
        held: Run | None = None if handle.held is None else handle.held()
        return held or cls(handle)

    def __repr__(self) -> str:
        return f"<Run {self.run_id!r} of {self._state.workflow!r}, {self.status.value}>"

    @property
    def _core(self) -> RunCore:
        return self._handle.core

    @contextmanager
    def _pinned(self) -> Iterator[RunCore]:
        core = self._core
        with core.pinned():
            yield core

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._state.run_id

    @property
    def status(self) -> RunStatus:
        """Where the run stands."""
        return self._state.status

    @property
    def due(self) -> dt.datetime | None:
        """The soonest time that the run waits for, UTC; `None`: it does not wait for a time."""
        times = [item.due for item in self._state.deliveries.values() if item.due is not None]
        times += [item.due for item in self._state.delayed.values()]
        soonest = min(times, default=None)
        return None if soonest is None else dt.datetime.fromtimestamp(soonest, dt.UTC)

    @property
    def input_requests(self) -> tuple[InputRequestEvent, ...]:
        """The open questions, oldest first."""
        return tuple(question.event for question in self._state.questions.values())  # type: ignore[misc]

    def history(self) -> list[HistoryRecord]:
        """What has happened to the run so far, in all processes that drove it: all of it with `history=True`,
        otherwise the start, the end and the failures.
        """
        return list(self._handle.records)

    def stream(self, buffer: int = 256) -> EventStream:
        """What the run publishes from now on; ends when the run does, with its `StopEvent` last.

        Args:
            buffer: How many events it may fall behind before it loses the oldest (and gets a `Lagged` for them).
        """
        return self._core.broadcast.subscribe(buffer)

    async def result(self) -> Any:
        """Wait for the run's result.

        Raises:
            StepFailedError, RunTimeoutError, RunStalledError, RunCancelledError: It ended without one; a new exception on
                each call, with the same cause.
            InputRequiredError: It waits for an answer, and nothing else in it can go on.
            RunPausedError: It is paused.
            StoreError, StaleRunError: It could not be driven on.
        """
        core = self._core
        core.pins += 1  # as `pinned`, which would be three more objects for each of all who wait
        try:
            await core.changes.wait_until(lambda: _is_told(core))
            while core.control.phase is Phase.PARKED and not await nobody_has_answered(core):
                await core.changes.wait_until(lambda: _is_told(core))
            if core.control.phase is Phase.PAUSED:
                raise await self._paused_error()
            if core.control.phase is Phase.PARKED:
                raise await self._input_required(unanswered(core))
        finally:
            core.pins -= 1
        if (error := await self._outcome()) is not None:
            raise error
        return result_of(self._state.stop)

    async def _outcome(self) -> BaseException | None:
        """Return, of a run that is driven no more, why it has no result."""
        core, status = self._core, self.status
        self._handle.told = True
        if core.control.failure is not None:
            return engine_error(core.control.failure, self.run_id)
        if status is RunStatus.COMPLETED:
            return None
        if status.ended:
            return ended_error(core.state, core.cause)
        if status is RunStatus.PAUSED:
            return await self._paused_error()
        if questions := unanswered(core):
            return await self._input_required(questions)
        msg = f"run {self.run_id!r} is not driven here any more: resume it"
        return RunFinishedError(msg, run_id=self.run_id, status=status)

    async def _paused_error(self) -> RunPausedError:
        msg = f"run {self.run_id!r} is paused: unpause it, or resume its snapshot"
        return RunPausedError(msg, run_id=self.run_id, snapshot=await self._image())

    async def _input_required(self, questions: list[InputRequestEvent]) -> InputRequiredError:
        msg = f"run {self.run_id!r} waits for an answer to {questions[0].prompt!r:.200}"
        if len(questions) > 1:
            msg += f" and {len(questions) - 1} more"
        self._handle.told = True
        snapshot = await self._image()
        return InputRequiredError(msg, run_id=self.run_id, requests=questions, snapshot=snapshot)

    async def _image(self) -> Snapshot:
        from blazen_trio._codec.snapshot import Snapshot

        core = self._core
        # In this order: the run goes on meanwhile, and what is returned must not be ahead of the disk.
        snapshot = Snapshot.from_pieces(core.state, await core.standstill.image(inline=True))
        self._check_failure()
        if core.journal is not None and core.control.phase is not Phase.LEFT:
            await self._acknowledged()
        return snapshot

    # Acting on it

    async def snapshot(self) -> Snapshot:
        """All there is to know of the run, without stopping it; everything in it is on disk, if the run has a store.

        Raises:
            StoreError, StaleRunError: What the store has of the run ends before that.
        """
        await trio.lowlevel.checkpoint()
        with self._pinned():
            return await self._image()

    async def pause(self, grace: float | None = None) -> Snapshot:
        """Let no new step start, let those in flight finish, and stay so until `unpause`.

        Cancelling this call unpauses, unless somebody else has paused the run, too.

        Args:
            grace: Seconds after which steps in flight are cancelled, to be run again; `None`: as long as they take.

        Raises:
            RunFinishedError: The run has ended.
        """
        await trio.lowlevel.checkpoint()
        check_grace(grace)
        with self._pinned() as core:
            self._check_alive("paused")
            hold = core.control.hold()
            core.wake()

            def paused() -> bool:
                # Also where somebody has let it go on already: only what is paused is unpaused.
                phase, holds = core.control.phase, core.control.holds
                return phase in (Phase.PAUSED, Phase.LEFT) or hold not in holds

            try:
                with trio.move_on_after(float("inf") if grace is None else grace):
                    await core.changes.wait_until(paused)
                if not paused():
                    core.stop_steps(Stop.PAUSED)
                    await core.changes.wait_until(paused)
                self._check_alive("paused")
                return await self._image()
            except BaseException:
                core.control.let_go((hold,))
                await _wait_unpaused(core)  # noqa: ASYNC102  # shields itself, for as long as a commit takes
                raise

    async def unpause(self) -> None:
        """Let a paused run go on; nothing happens to one that is not paused.

        Raises:
            RunFinishedError: The run has ended.
        """
        await trio.lowlevel.checkpoint()
        with self._pinned() as core:
            self._check_alive("unpaused")
            if core.state.status is RunStatus.PAUSED:
                core.control.let_go(core.control.holds)
                await _wait_unpaused(core)
                self._check_failure()

    async def send(self, event: Event | Delayed[Any], *, key: str | None = None) -> bool:
        """Send an event into the run, to the steps that accept it.

        Args:
            event: The event; `Delayed` to have it delivered later.
            key: Names the event: another one with the same key, from whomever, is refused, for as long as the run is kept.

        Returns:
            Whether it was taken; `False` only for a key that was used before.

        Raises:
            NoHandlerError: No step accepts it.
            InputResponseError: It answers a question that is not open.
            RunFinishedError: The run has ended.
            SerializationError: It can't be stored.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if key is not None:
            check_key(key)
        inner = check_event(event)
        if isinstance(inner, InputResponseEvent):
            return await self._answer(inner, key)
        with self._pinned() as core:
            self._check_alive("sent to")
            if not core.machine.routing.targets(type(inner)).steps:
                raise core.machine.no_handler(inner)
            taken = await self._send(core, event, inner, key)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return taken

    async def _send(
        self, core: RunCore, event: Event | Delayed[Any], inner: Event, key: str | None
    ) -> bool:
        if key is not None and core.journal is not None:
            # Through the inbox, which knows all keys. The store has given us the row when this returns.
            data = pack_event(core.codec, event)
            if await core.journal.store.post(self.run_id, EVENT, data, key=key) is None:
                return False
        elif key is not None:
            if core.has_key(key):
                return False
            core.use_key(key)
        with trio.CancelScope(shield=True):
            # What others have sent before comes before. Mail is taken in short commits, each of which ends.
            await core.wait_mail_taken()
        if key is None or core.journal is None:
            await core.standstill.opened()
            self._check_alive("sent to")
            entry = core.machine.received(event, core.encode, core.moment())
            await self._acknowledged(settle(core, entry, "event_received", inner.event_type))
        else:
            self._check_failure()
        return True

    async def respond(self, response: Any) -> None:
        """Answer an open question.

        Args:
            response: An `InputResponseEvent` (or of a subclass); or, while exactly one question is open, any plain value.

        Raises:
            InputResponseError: No such question is open.
            NoHandlerError: No step accepts the answer.
            RunFinishedError: The run has ended.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._answer(response, None)

    async def _answer(self, response: Any, key: str | None) -> bool:
        with self._pinned() as core:
            self._check_alive("answered")
            if not isinstance(response, InputResponseEvent):
                # Another one may have a key that was used before, and is looked at by that first.
                response = answer_to(core.state, response)
            with trio.CancelScope(shield=True):
                await core.wait_mail_taken()  # as in `_send`
                await core.standstill.opened()
            self._check_alive("answered")
            heard = await self._acknowledged(answer(core, response, key=key))
        await trio.lowlevel.cancel_shielded_checkpoint()
        return heard is not False

    def cancel(self, reason: str | None = None) -> None:
        """Cancel the run: its steps are cancelled and awaited, and what is undone stays so. Nothing happens to one that
        has ended.

        Args:
            reason: A text for people, stored with the run.
        """
        check_reason(reason)
        core = self._core
        if core.control.accepts and core.control.cancel_reason is None:
            self._handle.cancelled_here = True
            core.cancel(None if reason is None else text_of(reason))

    async def _acknowledged(self, transition: Awaitable[T] | None = None) -> T | None:
        """Make a transition, and wait until it and all before it is on disk. Return what it does."""
        journal = self._core.journal
        made = None
        try:
            if transition is not None:
                made = await transition
            if journal is not None:
                await journal.settle()
        except Exception as failure:
            if journal is None or failure is not journal.failure:
                raise
            self._handle.told = True
            raise engine_error(failure, self.run_id) from (failure.__cause__ or failure)
        return made

    def _check_failure(self) -> None:
        failure = self._core.control.failure
        if failure is not None:
            self._handle.told = True
            raise engine_error(failure, self.run_id)

    def _check_alive(self, what: str) -> None:
        core, status = self._core, self.status
        self._check_failure()
        if core.control.accepts:
            return
        if not status.ended:
            msg = f"run {self.run_id!r} is not driven here any more: it can't be {what} through this handle"
            raise RunFinishedError(msg, run_id=self.run_id, status=status)
        error = RunFinishedError(
            f"run {self.run_id!r} has ended ({status.value}): it can't be {what}",
            run_id=self.run_id,
            status=status,
        )
        if status is not RunStatus.COMPLETED:
            self._handle.told = True
            error.__cause__ = ended_error(core.state, core.cause)
        raise error

    # The end of the block

    async def block_error(self) -> BaseException | None:
        """Return what the end of the block owes its caller: what nobody has been told yet. Called once the run is left."""
        failure, status = self._core.control.failure, self.status
        if self._handle.told or (
            status in (RunStatus.COMPLETED, RunStatus.PAUSED) and failure is None
        ):
            return None
        if status is RunStatus.CANCELLED and self._handle.cancelled_here and failure is None:
            return None
        if not status.ended and failure is None and not self._state.questions:
            return None  # It waits for an event from outside, which others may send.
        return await self._outcome()

    @property
    def undelivered_failure(self) -> BaseException | None:
        """The engine's own failure, if nobody has been told of it."""
        failure = self._core.control.failure
        return None if failure is None or self._handle.told else engine_error(failure, self.run_id)


def _is_told(core: RunCore) -> bool:
    """Return whether the run has come to where its result, or why there is none, can be told."""
    control = core.control
    phase = control.phase
    if phase is Phase.LEFT:
        return True
    if control.cancel_reason is not None or control.failure is not None:
        return False  # it is about to be left
    return phase is Phase.PAUSED or (phase is Phase.PARKED and bool(unanswered(core)))


async def _wait_unpaused(core: RunCore) -> None:
    """Wait until a run that nobody wants paused any more goes on, on disk: it takes one commit or two, and is not to be taken back."""
    core.wake()

    def goes_on() -> bool:
        # The status is the one in memory; the phase follows when that is on disk.
        paused = core.control.phase is Phase.PAUSED or core.state.status is RunStatus.PAUSED
        return not paused or bool(core.control.holds) or not core.control.accepts

    with trio.CancelScope(shield=True):
        await core.changes.wait_until(goes_on)
