"""A payment saga: reserve the stock, charge the card, ship; and if one fails, undo what was done, last first.

    Order -> reserve -> charge -> ship -> Shipped
                \\        |        /
                 give_up: Undo -> undo -> Undo -> ... -> NotShipped

Each step asks one service for one thing, with an idempotency key. Between the effect there and the commit here the process may die,
and then the step is run again: the key makes that one effect.
"""

from __future__ import annotations

import attrs
from provider import EFFECTS, DeclinedError, Provider

from blazen_trio import (
    Context,
    Event,
    InputRequestEvent,
    InputResponseEvent,
    RetryPolicy,
    StartEvent,
    StepFailedEvent,
    StopEvent,
    Workflow,
    step,
)


def is_worth_another_try(error: BaseException) -> bool:
    """A refusal is final; everything else may pass, and with the same key there is no harm in trying."""
    return not isinstance(error, DeclinedError)


FORWARD = RetryPolicy(max_attempts=4, initial_delay=0.5, retry_on=is_worth_another_try)
BACKWARD = RetryPolicy(max_attempts=50, initial_delay=0.5, max_delay=300.0)
"""There is nothing to fall back on behind a compensation, so it is tried for hours before a person is asked."""


@attrs.frozen(kw_only=True)
class Order(StartEvent):
    """So many of an article, and what they cost together, in cents."""

    sku: str
    quantity: int
    cents: int


@attrs.frozen
class Reserved(Event):
    """The stock is put by."""

    order: Order


@attrs.frozen
class Charged(Event):
    """The card is charged."""

    order: Order


@attrs.frozen(kw_only=True)
class Shipped(StopEvent):
    """The run's result if all went well."""

    order: Order


@attrs.frozen
class Undo(Event):
    """These are to be undone, the last of them first."""

    effects: list[str]
    reason: str


@attrs.frozen(kw_only=True)
class NotShipped(StopEvent):
    """The run's result otherwise: nothing is left of what was done."""

    reason: str


@attrs.frozen
class Stuck(InputRequestEvent):
    """A compensation has failed for hours: a person has to see to it."""


@attrs.frozen
class TryAgain(InputResponseEvent):
    """It may work now."""


class OrderSaga:
    """The workflow over the services: `saga.workflow`.

    Args:
        provider: The services.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self.workflow = Workflow(
            "order",
            [
                self.reserve,
                self.charge,
                self.ship,
                self.give_up,
                self.undo,
                self.call_for_help,
                self.go_on,
            ],
        )

    @step(timeout=30, retry=FORWARD)
    async def reserve(self, ev: Order, ctx: Context) -> Reserved:
        """Put the stock by."""
        await self._provider.do("reserve", key(ctx, "reserve"), sku=ev.sku, amount=ev.quantity)
        return Reserved(ev)

    @step(timeout=30, retry=FORWARD)
    async def charge(self, ev: Reserved, ctx: Context) -> Charged:
        """Charge the card."""
        await self._provider.do(
            "charge", key(ctx, "charge"), sku=ev.order.sku, amount=ev.order.cents
        )
        return Charged(ev.order)

    @step(timeout=30, retry=FORWARD)
    async def ship(self, ev: Charged, ctx: Context) -> Shipped:
        """Hand it to the carrier."""
        await self._provider.do(
            "ship", key(ctx, "ship"), sku=ev.order.sku, amount=ev.order.quantity
        )
        return Shipped(order=ev.order)

    @step(handles=[reserve, charge, ship])
    async def give_up(self, ev: StepFailedEvent) -> Undo:
        """Undo what was done. The step that failed is undone too: it may have had its effect, and only the answer was lost."""
        return Undo(list(EFFECTS[: EFFECTS.index(ev.step_name) + 1]), ev.message)

    @step(timeout=30, retry=BACKWARD)
    async def undo(self, ev: Undo, ctx: Context) -> Undo | NotShipped:
        """Undo the last one. One step each, so that each is retried for itself, and none is done again because of another."""
        *left, last = ev.effects
        await self._provider.undo(last, key(ctx, last))
        return Undo(left, ev.reason) if left else NotShipped(reason=ev.reason)

    @step(handles=[undo], max_recoveries=1000)
    async def call_for_help(self, ev: StepFailedEvent, ctx: Context) -> Stuck:
        """Wait for a person, with all that is still to be undone."""
        question = Stuck(f"Undoing {ev.event.effects[-1]} fails ({ev.message}). Try again?")
        ctx.set(f"stuck/{question.request_id}", ev.event)
        return question

    @step
    async def go_on(self, ev: TryAgain, ctx: Context) -> Undo:
        """Try again, as a person said."""
        return ctx.get(f"stuck/{ev.request_id}", type=Undo)


def key(ctx: Context, effect: str) -> str:
    """Names an effect of this run, for the step that has it and for the one that undoes it.

    `ctx.idempotency_key` would do for the first alone: it belongs to one delivery, and an attempt that failed leaves nothing behind by
    which another step could learn it.
    """
    return f"{ctx.run_id}/{effect}"
