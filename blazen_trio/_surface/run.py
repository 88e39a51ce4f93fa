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
    """The handle of a run that this process drives.

    `async with` gives it for the object that `Workflow.run` or a resume method returns. Every async
    method is a checkpoint. When a method that acts on the run returns, its effect is on disk (if
    the run has a store). If it raises `Cancelled`, it had no effect.
    """

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._state = handle.state
        handle.held = weakref.ref(self)

    @classmethod
    def of(cls, handle: Handle) -> Run:
        """Return the `Run` of this handle if it is still referenced, or a new one. Internal."""
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
        """The run's status."""
        return self._state.status

    @property
    def due(self) -> dt.datetime | None:
        """The earliest time that the run waits for, in UTC; `None` if it waits for none."""
        times = [item.due for item in self._state.deliveries.values() if item.due is not None]
        times += [item.due for item in self._state.delayed.values()]
        soonest = min(times, default=None)
        return None if soonest is None else dt.datetime.fromtimestamp(soonest, dt.UTC)

    @property
    def input_requests(self) -> tuple[InputRequestEvent, ...]:
        """The open questions, oldest first."""
        return tuple(
            question.event  # type: ignore[misc]
            for question in self._state.questions.values()
        )

    def history(self) -> list[HistoryRecord]:
        """Return the run's history so far, across all processes that have driven it.

        Without `history=True`, it contains only the start, the end and the failures.
        """
        return list(self._handle.records)

    def stream(self, buffer: int = 256) -> EventStream:
        """Return a stream of the events published from now on, which ends with the `StopEvent`.

        Args:
            buffer: The number of events by which the reader may fall behind. Beyond it, the oldest
                are lost and replaced by a `Lagged`.

        Raises:
            ValueError: `buffer` is not a number of at least 1.
        """
        return self._core.broadcast.subscribe(buffer)

    async def result(self) -> Any:
        """Wait for the run's result.

        Raises:
            StepFailedError, RunTimeoutError, RunStalledError, RunCancelledError: The run ended
                without a result; a new exception on each call, with the same cause.
            InputRequiredError: The run waits for an answer, and can't continue without it.
            RunPausedError: The run is paused.
            StoreError, StaleRunError: This process could not continue the run.
        """
        core = self._core
        core.pins += 1  # `pinned` inlined, which saves three objects per waiting task
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
        return await self.result_when_left()

    async def result_when_left(self) -> Any:  # noqa: ASYNC910  # its waits are over
        """Return or raise as `result` does, for a run that this process has left. Internal."""
        if (error := await self._outcome()) is not None:
            raise error
        return result_of(self._state.stop)

    async def _outcome(self) -> BaseException | None:
        """Return why a run that was left has no result; `None` if it has completed."""
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
        return RunFinishedError.left(self.run_id, status, "resume it")

    async def _paused_error(self) -> RunPausedError:
        advice = "unpause it, or resume its snapshot"
        return RunPausedError.paused(self.run_id, await self._image(), advice)

    async def _input_required(self, questions: list[InputRequestEvent]) -> InputRequiredError:
        self._handle.told = True
        return InputRequiredError.waiting(self.run_id, questions, await self._image())

    async def _image(self) -> Snapshot:
        from blazen_trio._codec.snapshot import Snapshot

        core = self._core
        # In this order: the run continues while the image is written, so `settle` afterwards covers
        # all that is in it. The other way round, the snapshot could be ahead of the disk.
        snapshot = Snapshot.from_pieces(core.state, await core.standstill.image(inline=True))
        self._check_failure()
        if core.journal is not None and core.control.phase is not Phase.LEFT:
            await self._acknowledged()
        return snapshot

    # Acting on it

    async def snapshot(self) -> Snapshot:
        """Return a snapshot of the whole run without stopping it.

        If the run has a store, everything in the snapshot is on disk.

        Raises:
            StoreError, StaleRunError: The state could not be written to the store.
        """
        await trio.lowlevel.checkpoint()
        with self._pinned():
            return await self._image()

    async def pause(self, grace: float | None = None) -> Snapshot:
        """Pause the run until `unpause`: no new step starts, and steps in flight finish.

        Cancelling this call unpauses the run, unless another caller has paused it too.

        Args:
            grace: Seconds after which steps in flight are cancelled, to be run again later; `None`:
                wait as long as they take.

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
                # True also if another task has unpaused the run by now, which dropped our hold.
                # This call would otherwise wait for a pause that no one requests any more.
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
                await _wait_unpaused(core)  # noqa: ASYNC102  # shielded, for one commit or two
                raise

    async def unpause(self) -> None:
        """Continue a paused run. Does nothing if the run is not paused.

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
            key: An idempotency key. A second event with the same key, from any sender, is refused
                until the run is deleted.

        Returns:
            `False` if the key was used before, so the event was not taken; else `True`.

        Raises:
            NoHandlerError: No step accepts the event.
            InputResponseError: The event answers a question that is not open.
            RunFinishedError: The run has ended.
            SerializationError: The event can't be stored.
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
            # Through the inbox, which has all keys. On return, the store has handed over our row.
            data = pack_event(core.codec, event)
            if await core.journal.store.post(self.run_id, EVENT, data, key=key) is None:
                return False
        elif key is not None:
            if core.has_key(key):
                return False
            core.use_key(key)
        with trio.CancelScope(shield=True):
            # Messages that others have sent before are taken first. Shielded: the event is posted,
            # and the wait is short, since inbox messages are taken in short commits.
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
            response: An `InputResponseEvent` or one of a subclass. While exactly one question is
                open, any plain value.

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
                # An InputResponseEvent is checked later: its key, if used before, decides first.
                response = answer_to(core.state.run_id, core.state.questions, response)
            with trio.CancelScope(shield=True):
                await core.wait_mail_taken()  # as in `_send`
                await core.standstill.opened()
            self._check_alive("answered")
            heard = await self._acknowledged(answer(core, response, key=key))
        await trio.lowlevel.cancel_shielded_checkpoint()
        return heard is not False

    def cancel(self, reason: str | None = None) -> None:
        """Cancel the run: its steps are cancelled and awaited, and pending work stays pending.

        Does nothing if the run has ended.

        Args:
            reason: A text for people, stored with the run.
        """
        check_reason(reason)
        core = self._core
        if core.control.accepts and core.control.cancel_reason is None:
            self._handle.cancelled_here = True
            core.cancel(None if reason is None else text_of(reason))

    async def _acknowledged(self, transition: Awaitable[T] | None = None) -> T | None:
        """Await a transition, wait until it and all before it are on disk; return its result."""
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
            advice = f"it can't be {what} through this handle. Resume it, or use its id"
            raise RunFinishedError.left(self.run_id, status, advice)
        error = RunFinishedError.ended(self.run_id, status, f"it can't be {what}")
        if status is not RunStatus.COMPLETED:
            self._handle.told = True
            error.__cause__ = ended_error(core.state, core.cause)
        raise error

    # The end of the block

    async def block_error(self) -> BaseException | None:
        """Return the error that the end of the block raises: one that no caller has got yet.

        Called once the run is left.
        """
        failure, status = self._core.control.failure, self.status
        if self._handle.told or (
            status in (RunStatus.COMPLETED, RunStatus.PAUSED) and failure is None
        ):
            return None
        if status is RunStatus.CANCELLED and self._handle.cancelled_here and failure is None:
            return None
        if not status.ended and failure is None and not self._state.questions:
            return None  # It waits for an event from outside, which another process may send.
        return await self._outcome()

    @property
    def undelivered_failure(self) -> BaseException | None:
        """The engine's own failure, if no caller has got it yet."""
        failure = self._core.control.failure
        return None if failure is None or self._handle.told else engine_error(failure, self.run_id)


def _is_told(core: RunCore) -> bool:
    """Return whether `result` can return or raise: the run is left, paused, or asks a question."""
    control = core.control
    phase = control.phase
    if phase is Phase.LEFT:
        return True
    if control.cancel_reason is not None or control.failure is not None:
        return False  # the run is about to be left
    return phase is Phase.PAUSED or (phase is Phase.PARKED and bool(unanswered(core)))


async def _wait_unpaused(core: RunCore) -> None:
    """Wait until a run without holds has continued, on disk. Shielded, for one commit or two."""
    core.wake()

    def goes_on() -> bool:
        # The status is that in memory. The phase changes once the status is on disk.
        paused = core.control.phase is Phase.PAUSED or core.state.status is RunStatus.PAUSED
        return not paused or bool(core.control.holds) or not core.control.accepts

    with trio.CancelScope(shield=True):
        await core.changes.wait_until(goes_on)
