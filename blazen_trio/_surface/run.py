"""The handle of a run that this process drives."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import trio

from blazen_trio._definitions.events import Delayed, Event, InputRequestEvent, InputResponseEvent
from blazen_trio._state.status import RunStatus
from blazen_trio._state.texts import text_of
from blazen_trio._surface.arguments import check_grace, check_id, check_reason
from blazen_trio._surface.outcome import ended_error, engine_error, result_of
from blazen_trio.errors import InputRequiredError, InputResponseError, RunFinishedError, RunPausedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from blazen_trio._codec.snapshot import Snapshot
    from blazen_trio._dispatch.dispatcher import Dispatcher
    from blazen_trio._dispatch.streams import EventStream
    from blazen_trio._state.history import HistoryRecord

__all__ = ["Run", "attach"]


class Run:
    """A run, as long as this process drives it. Made by entering what `Workflow.run` and the resume verbs return.

    Every async method is a checkpoint. When one that acts on the run returns, what it did is on disk, if the run has a store;
    `Cancelled` out of it means that it did not happen.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._driven: Dispatcher | Callable[[], Dispatcher] = dispatcher
        self._state = dispatcher.state
        self._records = dispatcher.recorder.records
        self._delivered = False
        self._cancelled_here = False

    def __repr__(self) -> str:
        return f"<Run {self.run_id!r} of {self._state.workflow!r}, {self.status.value}>"

    @property
    def _dispatcher(self) -> Dispatcher:
        """What drives it; a run that rests is brought back."""
        if callable(self._driven):
            self._driven = self._driven()
        return self._driven

    @contextmanager
    def _pinned(self) -> Iterator[Dispatcher]:
        d = self._dispatcher
        with d.pinned():
            yield d

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._state.run_id

    @property
    def status(self) -> RunStatus:
        """Where the run stands."""
        return self._state.status

    @property
    def input_requests(self) -> tuple[InputRequestEvent, ...]:
        """The open questions, oldest first."""
        return tuple(question.event for question in self._state.questions.values())  # type: ignore[misc]

    def history(self) -> list[HistoryRecord]:
        """What has happened to the run so far, in all processes that drove it: all of it with `history=True`,
        otherwise the start, the end and the failures.
        """
        return list(self._records)

    def stream(self, buffer: int = 256) -> EventStream:
        """What the run publishes from now on; ends when the run does, with its `StopEvent` last.

        Args:
            buffer: How many events it may fall behind before it loses the oldest (and gets a `Lagged` for them).
        """
        return self._dispatcher.broadcast.subscribe(buffer)

    async def result(self) -> Any:
        """Wait for the run's result.

        Raises:
            StepFailedError, RunTimeoutError, RunStalledError, RunCancelledError: It ended without one; a new exception on
                each call, with the same cause.
            InputRequiredError: It waits for an answer, and nothing else in it can go on.
            RunPausedError: It is paused.
            StoreError, StaleRunError: It could not be driven on.
        """
        await trio.lowlevel.checkpoint()
        d = self._dispatcher
        d.pins += 1  # as `pinned`, which would be two more objects for each of all who wait
        try:
            while not d.detached:
                if d.paused:
                    raise await self._paused_error()
                if d.parked and (questions := d.inputs.open_questions()):
                    raise await self._input_required(questions)
                await d.changed.wait()
        finally:
            d.pins -= 1
        if (error := await self._outcome()) is not None:
            raise error
        return result_of(d.state.stop)

    async def _outcome(self) -> BaseException | None:
        """Of a run that is driven no more: why it has no result."""
        d = self._dispatcher
        self._delivered = True
        if d.failure is not None:
            return engine_error(d.failure, self.run_id)
        if d.state.status is RunStatus.COMPLETED:
            return None
        if d.over:
            return ended_error(d.state, d.cause)
        if d.state.status is RunStatus.PAUSED:
            return await self._paused_error()
        if questions := d.inputs.open_questions():
            return await self._input_required(questions)
        msg = f"run {self.run_id!r} is not driven here any more: resume it"
        return RunFinishedError(msg, run_id=self.run_id, status=d.state.status)

    async def _paused_error(self) -> RunPausedError:
        msg = f"run {self.run_id!r} is paused: unpause it, or resume its snapshot"
        return RunPausedError(msg, run_id=self.run_id, snapshot=await self._image())

    async def _input_required(self, questions: list[InputRequestEvent]) -> InputRequiredError:
        msg = f"run {self.run_id!r} waits for an answer to {questions[0].prompt!r:.200}"
        if len(questions) > 1:
            msg += f" and {len(questions) - 1} more"
        self._delivered = True
        snapshot = await self._image()
        return InputRequiredError(msg, run_id=self.run_id, requests=questions, snapshot=snapshot)

    async def _image(self) -> Snapshot:
        from blazen_trio._codec.snapshot import Snapshot

        d = self._dispatcher
        # In this order: the run goes on meanwhile, and what is returned must not be ahead of the disk.
        snapshot = Snapshot.from_pieces(d.state, await d.standstill.image(inline=True))
        self._check_failure()
        if d.journal is not None and not d.detached:
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
        with self._pinned() as d:
            self._check_alive("paused")
            d.holds += 1
            pauses, unpauses = d.pauses, d.unpauses

            def paused() -> bool:
                # Also where somebody has let it go on already.
                return d.paused or d.pauses > pauses

            d.wake()
            try:
                with trio.move_on_after(float("inf") if grace is None else grace):
                    await self._until(paused)
                if not paused():
                    d.stop_period("the run is being paused")
                    await self._until(paused)
                self._check_alive("paused")
                return await self._image()
            except BaseException:
                if d.unpauses == unpauses and not d.detached:
                    d.holds -= 1
                    if not d.holds:
                        await d.rests.unpause()  # noqa: ASYNC102  # shields itself, and is short
                raise

    async def _until(self, happened: Callable[[], bool]) -> None:
        d = self._dispatcher
        while not happened() and not d.detached:
            await d.changed.wait()

    async def unpause(self) -> None:
        """Let a paused run go on; nothing happens to one that is not paused.

        Raises:
            RunFinishedError: The run has ended.
        """
        await trio.lowlevel.checkpoint()
        with self._pinned() as d:
            self._check_alive("unpaused")
            if d.state.status is RunStatus.PAUSED:
                await d.rests.unpause()

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
            check_id("key", key)
        inner = event.event if isinstance(event, Delayed) else event
        if not isinstance(inner, Event):
            msg = f"send() takes an event, found {inner!r:.80}"
            raise TypeError(msg)
        with self._pinned() as d:
            self._check_alive("sent to")
            if isinstance(event, InputResponseEvent) and key is None:
                await self.respond(event)
                return True
            if not d.machine.routing.targets(type(inner)).steps:
                raise d.machine.no_handler(inner)
            taken = await self._send(event, inner, key)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return taken

    async def _send(self, event: Event | Delayed[Any], inner: Event, key: str | None) -> bool:
        if key is None:
            await self._route(event, inner, None)
            return True
        d = self._dispatcher
        accepted, row = await d.post_with_key(event, key)
        if not accepted:
            return False
        try:
            await self._route(event, inner, row)
        except BaseException:
            d.mail.done(row, taken=False)
            raise
        d.mail.done(row, taken=True)
        return True

    async def _route(self, event: Event | Delayed[Any], inner: Event, taken: int | None) -> None:
        """Take an event in, and the row of the inbox that holds it, if one does."""
        d = self._dispatcher
        await d.standstill.opened()
        self._check_alive("sent to")
        if isinstance(event, InputResponseEvent):
            await self._acknowledged(d.inputs.answer(event, taken))
        else:
            entry = d.machine.received(event, d.encode, d.moment())
            await self._acknowledged(d.settle(entry, "event_received", inner.event_type, taken))

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
        with self._pinned() as d:
            self._check_alive("answered")
            if not isinstance(response, InputResponseEvent):
                response = self._wrapped(response)
            await d.standstill.opened()
            self._check_alive("answered")
            await self._acknowledged(d.inputs.answer(response))
        await trio.lowlevel.cancel_shielded_checkpoint()

    def _wrapped(self, response: Any) -> InputResponseEvent:
        questions = self.input_requests
        if len(questions) != 1:
            raise InputResponseError(
                f"run {self.run_id!r} has {len(questions)} open questions: say which one is answered, with an "
                "InputResponseEvent that carries its request_id",
                run_id=self.run_id,
                request_id="",
            )
        return InputResponseEvent(questions[0].request_id, response)

    def cancel(self, reason: str | None = None) -> None:
        """Cancel the run: its steps are cancelled and awaited, and what is undone stays so. Nothing happens to one that
        has ended.

        Args:
            reason: A text for people, stored with the run.
        """
        check_reason(reason)
        d = self._dispatcher
        if d.over or d.detached or d.cancel_reason is not None:
            return
        self._cancelled_here = True
        d.cancel(None if reason is None else text_of(reason))

    async def _acknowledged(self, transition: Awaitable[None] | None = None) -> None:
        """Make a transition, and wait until it and all before it is on disk."""
        journal = self._dispatcher.journal
        try:
            if transition is not None:
                await transition
            if journal is not None:
                await journal.settle()
        except Exception as failure:
            if journal is None or failure is not journal.failure:
                raise
            self._delivered = True
            raise engine_error(failure, self.run_id) from (failure.__cause__ or failure)

    def _check_failure(self) -> None:
        d = self._dispatcher
        if d.failure is not None:
            self._delivered = True
            raise engine_error(d.failure, self.run_id)

    def _check_alive(self, what: str) -> None:
        d = self._dispatcher
        self._check_failure()
        if not d.over and not d.closing and not d.detached:
            return
        status = self.status
        if not d.over:
            msg = f"run {self.run_id!r} is not driven here any more: it can't be {what} through this handle"
            raise RunFinishedError(msg, run_id=self.run_id, status=status)
        error = RunFinishedError(
            f"run {self.run_id!r} has ended ({status.value}): it can't be {what}", run_id=self.run_id, status=status
        )
        if status is not RunStatus.COMPLETED:
            self._delivered = True
            error.__cause__ = ended_error(d.state, d.cause)
        raise error

    # The end of the block

    async def block_error(self) -> BaseException | None:
        """What the end of the block owes its caller: what nobody has been told yet. Called once the run is detached."""
        if self._delivered or (
            self.status in (RunStatus.COMPLETED, RunStatus.PAUSED) and self._dispatcher.failure is None
        ):
            return None
        d = self._dispatcher
        if self.status is RunStatus.CANCELLED and self._cancelled_here and d.failure is None:
            return None
        if not d.over and d.failure is None and not d.state.questions:
            return None  # It waits for an event from outside, which others may send.
        return await self._outcome()

    @property
    def undelivered_failure(self) -> BaseException | None:
        """The engine's own failure, if nobody has been told of it."""
        failure = self._dispatcher.failure
        return None if failure is None or self._delivered else engine_error(failure, self.run_id)


def attach(run: Run, driven: Dispatcher | Callable[[], Dispatcher]) -> None:
    """Say what drives a run from now on; of one that rests, what brings it back, to be called when its handle is used."""
    run._driven = driven  # noqa: SLF001  # this module's own
