"""Attempts that report to a telemetry listener."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any

from blazen_trio._dispatch.attempts import Attempt, described

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from blazen_trio._definitions.events import Event
    from blazen_trio._definitions.steps import StepDefinition
    from blazen_trio._dispatch.core import RunCore
    from blazen_trio._dispatch.transaction import Transaction
    from blazen_trio._dispatch.turns import Rerun
    from blazen_trio._state.entry import Entry, Output
    from blazen_trio._state.model import Delivery, Payload

__all__ = ["TracedAttempt"]


class TracedAttempt(Attempt):
    """An attempt that reports its start and end to a listener.

    A separate class, so that runs without a listener pay nothing for it.
    """

    __slots__ = ("_decided", "_error", "_number", "_span", "log_context")

    def __init__(
        self,
        core: RunCore,
        delivery: Delivery,
        step: StepDefinition,
        transaction: Transaction | None = None,
    ) -> None:
        super().__init__(core, delivery, step, transaction)
        assert core.recorder.listener is not None
        self._number = delivery.attempt
        number = delivery.attempt + core.turns.reruns(delivery)
        self._span = core.recorder.listener.attempt(step.name, described(delivery), number)
        self.log_context = None
        self._decided = False
        self._error: BaseException | None = None

    async def run(self) -> Rerun | None:
        """See `Attempt.run`."""
        span = self._span
        try:
            with span:
                # With the span, and without the variables that the step will set.
                self.log_context = contextvars.copy_context()
                again = await super().run()
        except BaseException as error:
            if isinstance(error, Exception):  # from the store: the attempt was not committed
                span.ended("failed", error)
            else:
                span.ended("completed" if self._decided else "cancelled", None)
            raise
        failure = self._core.journal.failure if self._core.journal is not None else None
        if failure is not None:
            span.ended("failed", failure)
        elif self._error is not None:
            span.ended(
                "retried" if self._delivery.attempt > self._number else "failed", self._error
            )
        elif again is not None:
            span.ended("rerun", None)
        else:
            span.ended("completed" if self._decided else "discarded", None)
        return again

    def decide(
        self,
        returned: Iterable[Any],
        members: list[Output] | None,
        encode: Callable[[Event], Payload] | None,
    ) -> Entry:
        """See `Attempt.decide`."""
        entry = super().decide(returned, members, encode)
        self._decided = True
        return entry

    async def _interrupted_or_failed(self, error: BaseException) -> None:
        if not self._core.control.in_ended:
            self._error = error
        await super()._interrupted_or_failed(error)
