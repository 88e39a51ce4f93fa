"""The questions that a run asks: handed to the input handler, or left to whoever answers."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from blazen_trio._definitions.events import InputRequestEvent, InputResponseEvent
from blazen_trio._dispatch.control import Phase
from blazen_trio._dispatch.failures import breaks_out
from blazen_trio._dispatch.inbox import answer_key, pack_event, post_answer
from blazen_trio._dispatch.transitions import fail, settle
from blazen_trio._state.answers import question_of
from blazen_trio._state.model import StoredError
from blazen_trio._state.texts import text_of, traceback_of
from blazen_trio.errors import InputResponseError, RunFinishedError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blazen_trio._dispatch.core import RunCore
    from blazen_trio._state.model import Question

__all__ = ["Questions", "answer", "nobody_has_answered", "unanswered"]


def unanswered(core: RunCore) -> list[InputRequestEvent]:
    """Return the open questions that nobody is at work on, oldest first."""
    asking = core.asking or ()
    return [
        question.event  # type: ignore[misc]
        for question in core.state.questions.values()
        if question.request_id not in asking
    ]


async def nobody_has_answered(core: RunCore) -> bool:
    """Return whether a parked run waits for an answer, after a look for one that was posted a moment ago."""
    if core.journal is not None:
        with suppress(StoreError):
            await core.journal.store.poll(())
        await core.wait_mail_taken()
    return core.control.phase is Phase.PARKED and bool(unanswered(core))


async def answer(
    core: RunCore, response: InputResponseEvent, *, key: str | None = None, within: bool = False
) -> bool:
    """Route an answer; on disk as far as the durability asks when this returns. Return whether it
    was taken: not so where its `key` was used before.

    Args:
        core: The run.
        response: The answer.
        key: What its sender has named it.
        within: Whether a task of the run itself gives it. Where the run can't go on, its dispatcher
            takes no mail any more and waits for its tasks: such a one must not wait for it in turn.

    Raises:
        InputResponseError: No such question is open.
        NoHandlerError: No step accepts the answer.
    """
    await core.standstill.opened()
    if core.journal is None:
        if key is not None:
            if core.has_key(key):
                return False
            question_of(core.definition, core.state, response)  # one that is refused uses no key
            core.use_key(key)
        entry = core.machine.answered(response, core.encode, core.moment())
        await settle(core, entry, "input_received", response.event_type)
        return True
    # Through the inbox, as anybody else's answer: of two, whoever gives them, the store takes one.
    # Decided here at once, this one could come between another that was taken and its arrival.
    store, run_id = core.journal.store, core.state.run_id
    data = None
    number = 0
    while True:
        refused: InputResponseError | None = None
        try:
            question = question_of(core.definition, core.state, response)
        except InputResponseError as refusal:
            refused = refusal
        if refused is not None:
            if key is not None and await store.has_key(run_id, key):
                return False
            raise refused
        data = pack_event(core.codec, response) if data is None else data
        heard = await post_answer(store, run_id, data, answer_key(question.id, number), key)
        with trio.CancelScope(shield=not within):
            # What others have sent before comes before. The store has given us the row by now.
            await core.wait_mail_taken()
        if heard is not None:
            return heard
        # Somebody else has answered; unless that could not be taken, and the question is open.
        number += 1


class Questions:
    """Hands a run's questions out; each question that has a handler has a task of its own.

    Args:
        core: The run.
        nursery: Where the handler's calls run; `None`: there is no handler.
    """

    __slots__ = ("_core", "_nursery")

    def __init__(self, core: RunCore, nursery: trio.Nursery | None) -> None:
        self._core = core
        self._nursery = nursery

    def ask(self, questions: Iterable[Question]) -> None:
        """These are open from now on, on disk where the run has a store."""
        core = self._core
        for question in questions:
            core.recorder.record(
                "input_requested", core.clock.now(), event_type=question.event.event_type
            )
            core.broadcast.publish(question.event)
            if self._nursery is not None:
                core.asking = core.asking or set()
                core.asking.add(question.request_id)
                core.task_context.run(
                    partial(self._nursery.start_soon, self._ask_handler, question.event)
                )

    async def _ask_handler(self, request: Any) -> None:
        core = self._core
        try:
            response = await _unprotected(core.input_handler, request)
            if (
                response is not None
                and request.request_id in core.state.questions
                and core.control.accepts
            ):
                if not isinstance(response, InputResponseEvent):
                    response = InputResponseEvent(request.request_id, response)
                question_of(
                    core.definition, core.state, response
                )  # one that fits none is the handler's failure
                await self._give(response)
        except BaseException as error:  # noqa: ASYNC103  # raised again, unless the handler alone has failed
            cancelled = trio.current_effective_deadline() == float("-inf")
            if breaks_out(error) or (cancelled and isinstance(error, trio.Cancelled)):
                raise
            # A Cancelled that no scope around it asked for has leaked out of another task: a failure like any other.
            await self._failed(error)  # noqa: ASYNC102, ASYNC120  # shields itself
        finally:
            if core.asking is not None:
                core.asking.discard(request.request_id)
            core.wake()
            core.changes.notify()

    async def _give(self, response: InputResponseEvent) -> None:
        try:
            await answer(self._core, response, within=True)
        except (InputResponseError, RunFinishedError):
            pass  # somebody else was faster
        except StoreError as error:
            self._core.crash(error)

    async def _failed(self, error: BaseException) -> None:
        """A failing handler fails the run, as a failing step does."""
        core = self._core
        await core.standstill.opened()
        if not core.control.accepts:
            return
        if not isinstance(error, (Exception, trio.Cancelled)):
            core.crash(error)
            return
        fail(
            core,
            StoredError(
                "StepFailedError",
                f"the input handler of run {core.state.run_id!r} failed: {type(error).__name__}: {text_of(error)}",
                step="input_handler",
                attempts=1,
                error_type=type(error).__name__,
                traceback=traceback_of(error),
            ),
            error,
        )


@trio.lowlevel.disable_ki_protection
async def _unprotected(handler: Any, request: Any) -> Any:
    """Call the input handler. Ctrl-C may interrupt it anywhere, as any code of the user's."""
    return await handler(request)
