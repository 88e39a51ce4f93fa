"""A payment saga: reserve the stock, charge the card, ship. If a step fails, undo all, last first.

    Order -> reserve -> charge -> ship -> Shipped
                \\        |        /
                 give_up: Undo -> undo -> Undo -> ... -> NotShipped

Each step makes one request to one service, with an idempotency key. The process may die between the
effect at the service and the commit of the step. Then the step runs again, and the key makes sure
that there is only one effect.
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
    """Return false for a refusal, which is final. Other errors may pass; a retry is harmless."""
    return not isinstance(error, DeclinedError)


FORWARD = RetryPolicy(max_attempts=4, initial_delay=0.5, retry_on=is_worth_another_try)
BACKWARD = RetryPolicy(max_attempts=50, initial_delay=0.5, max_delay=300.0)
"""The policy for compensations, which have no fallback: retry for hours, then ask a person."""


@attrs.frozen(kw_only=True)
class Order(StartEvent):
    """An order of an article: the quantity, and the total price in cents."""

    sku: str
    quantity: int
    cents: int


@attrs.frozen
class Reserved(Event):
    """The stock is reserved."""

    order: Order


@attrs.frozen
class Charged(Event):
    """The card is charged."""

    order: Order


@attrs.frozen(kw_only=True)
class Shipped(StopEvent):
    """The run's result if all steps succeeded."""

    order: Order


@attrs.frozen
class Undo(Event):
    """The effects that have yet to be undone, last first."""

    effects: list[str]
    reason: str


@attrs.frozen(kw_only=True)
class NotShipped(StopEvent):
    """The run's result otherwise. All effects are undone."""

    reason: str


@attrs.frozen
class Stuck(InputRequestEvent):
    """A question to a person, because a compensation has failed for hours."""


@attrs.frozen
class TryAgain(InputResponseEvent):
    """A person's answer: try the compensation again."""


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
                self.ask_for_help,
                self.retry_undo,
            ],
            timeout=None,  # what was done must be undone, however long that takes
        )

    @step(timeout=30, retry=FORWARD)
    async def reserve(self, ev: Order, ctx: Context) -> Reserved:
        """Reserve the stock."""
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
        """Hand the order to the carrier."""
        await self._provider.do(
            "ship", key(ctx, "ship"), sku=ev.order.sku, amount=ev.order.quantity
        )
        return Shipped(order=ev.order)

    @step(handles=[reserve, charge, ship])
    async def give_up(self, ev: StepFailedEvent) -> Undo:
        """Undo all effects so far.

        The failed step's effect is undone, too: maybe only the answer of the service was lost.
        """
        return Undo(list(EFFECTS[: EFFECTS.index(ev.step_name) + 1]), ev.message)

    @step(timeout=30, retry=BACKWARD)
    async def undo(self, ev: Undo, ctx: Context) -> Undo | NotShipped:
        """Undo the last effect.

        Each effect has a step of its own, so a retry repeats only one of them.
        """
        *left, last = ev.effects
        await self._provider.undo(last, key(ctx, last))
        return Undo(left, ev.reason) if left else NotShipped(reason=ev.reason)

    @step(handles=[undo], max_recoveries=1000)
    async def ask_for_help(self, ev: StepFailedEvent, ctx: Context) -> Stuck:
        """Ask a person, and store the effects that have yet to be undone."""
        question = Stuck(f"Undoing {ev.event.effects[-1]} fails ({ev.message}). Try again?")
        ctx.set(f"stuck/{question.request_id}", ev.event)
        return question

    @step
    async def retry_undo(self, ev: TryAgain, ctx: Context) -> Undo:
        """Try the compensation again."""
        return ctx.get(f"stuck/{ev.request_id}", type=Undo)


def key(ctx: Context, effect: str) -> str:
    """Return the key of an effect of this run, for the step that has it and the one that undoes it.

    `ctx.idempotency_key` would only do for the first. It belongs to one delivery, and a failed
    attempt leaves nothing behind from which another step could learn it.
    """
    return f"{ctx.run_id}/{effect}"
