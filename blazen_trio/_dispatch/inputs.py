"""The questions that a run asks: handed to the input handler, or left to whoever answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from blazen_trio._definitions.events import InputRequestEvent, InputResponseEvent
from blazen_trio._state.model import StoredError
from blazen_trio._state.texts import text_of, traceback_of
from blazen_trio.errors import InputResponseError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blazen_trio._dispatch.dispatcher import Dispatcher
    from blazen_trio._state.model import Question

__all__ = ["InputDesk", "InputHandler"]

InputHandler = Callable[[Any], Awaitable[Any]]
"""Takes an `InputRequestEvent`; returns the response, or an `InputResponseEvent`, or `None` to leave the question open."""


class InputDesk:
    """Hands a run's questions out; each question that has a handler has a task of its own."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def open_questions(self) -> list[InputRequestEvent]:
        """The questions that nobody is at work on, oldest first."""
        asking = self._dispatcher.asking or ()
        return [
            question.event  # type: ignore[misc]
            for question in self._dispatcher.state.questions.values()
            if question.request_id not in asking
        ]

    def ask(self, questions: Iterable[Question]) -> None:
        """Questions that are on disk (or in a run without a store)."""
        d = self._dispatcher
        for question in questions:
            d.recorder.record("input_requested", d.clock.now(), event_type=question.event.event_type)
            d.broadcast.publish(question.event)
            if d.input_handler is not None and d.input_nursery is not None:
                d.asking = d.asking or set()
                d.asking.add(question.request_id)
                start = partial(d.input_nursery.start_soon, self._ask_handler, question.event)
                d.task_context.run(start)

    async def _ask_handler(self, request: Any) -> None:
        d = self._dispatcher
        assert d.input_handler is not None
        try:
            response = await d.input_handler(request)
            if response is not None and request.request_id in d.state.questions and not d.over:
                if not isinstance(response, InputResponseEvent):
                    response = InputResponseEvent(request.request_id, response)
                await self.answer(response)
        except Exception as error:  # noqa: BLE001  # a failing handler fails the run, as a failing step does
            await self._failed(error)  # noqa: ASYNC120  # shields itself
        finally:
            if d.asking is not None:
                d.asking.discard(request.request_id)
            d.wake()
            d.notify()

    async def answer(self, response: InputResponseEvent, taken: int | None = None) -> None:
        """Route an answer; on disk as far as the durability asks when this returns."""
        d = self._dispatcher
        await d.standstill.opened()
        try:
            entry = d.machine.answered(response, d.encode, d.moment())
        except InputResponseError:
            if taken is not None:
                await d.settle(d.machine.rejected(d.moment()), "event_rejected", response.event_type, taken)  # noqa: ASYNC120  # raised again
            raise
        await d.settle(entry, "input_received", response.event_type, taken)

    async def _failed(self, error: Exception) -> None:
        d = self._dispatcher
        await d.standstill.opened()
        if d.over or d.failure is not None:
            return
        if d.journal is not None and d.journal.failure is error:
            d.crash(error)
            return
        d.endings.fail(
            StoredError(
                "StepFailedError",
                f"the input handler of run {d.state.run_id!r} failed: {type(error).__name__}: {text_of(error)}",
                step="input_handler",
                attempts=1,
                error_type=type(error).__name__,
                traceback=traceback_of(error),
            ),
            error,
        )
