"""The attempts of a run that somebody listens to: the same, and told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blazen_trio._dispatch.attempt import Attempts
from blazen_trio._dispatch.failures import described

if TYPE_CHECKING:
    from blazen_trio._definitions.steps import StepDefinition
    from blazen_trio._dispatch.dispatcher import Dispatcher
    from blazen_trio._dispatch.transaction import Transaction
    from blazen_trio._state.entry import Entry
    from blazen_trio._state.model import Delivery
    from blazen_trio._telemetry.hooks import RunListener

__all__ = ["HeardAttempts"]


class _UnderWay:
    """What has become of an attempt so far."""

    __slots__ = ("decided", "error")

    def __init__(self) -> None:
        self.decided = False
        self.error: BaseException | None = None


class HeardAttempts(Attempts):
    """Tells a listener of each attempt. That costs nothing where nobody listens: then these are other objects."""

    __slots__ = ("_listener", "_under_way")

    def __init__(self, dispatcher: Dispatcher, listener: RunListener) -> None:
        super().__init__(dispatcher)
        self._listener = listener
        self._under_way: dict[int, _UnderWay] = {}

    async def once(
        self, delivery: Delivery, step: StepDefinition, transaction: Transaction | None = None
    ) -> bool | None:
        """See `Attempts.once`."""
        number = delivery.attempt
        heard = self._listener.attempt(step.name, described(delivery), number + self._d.turns.reruns(delivery))
        now = self._under_way[delivery.id] = _UnderWay()
        try:
            with heard:
                again = await super().once(delivery, step, transaction)
        except BaseException as error:
            if isinstance(error, Exception):  # the store's: the attempt was not committed
                heard.ended("failed", error)
            else:
                heard.ended("completed" if now.decided else "cancelled", None)
            raise
        finally:
            del self._under_way[delivery.id]
        if now.error is not None:
            heard.ended("retried" if delivery.attempt > number else "failed", now.error)
        elif again is not None:
            heard.ended("rerun", None)
        else:
            heard.ended("completed" if now.decided else "discarded", None)
        return again

    def _decide(self, delivery: Delivery, *rest: Any) -> Entry:
        entry = super()._decide(delivery, *rest)
        self._under_way[delivery.id].decided = True
        return entry

    async def _interrupted_or_failed(
        self, delivery: Delivery, step: StepDefinition, error: BaseException, began: float | None
    ) -> None:
        if not self._d.over:
            self._under_way[delivery.id].error = error
        await super()._interrupted_or_failed(delivery, step, error, began)
