"""The workflow behind the service: an expense claim. Receipts are checked concurrently, and a high total is asked about."""

from __future__ import annotations

import attrs
import trio

from blazen_trio import (
    Context,
    Event,
    InputRequestEvent,
    InputResponseEvent,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)

LIMIT = 100_00
"""Cents up to which nobody is asked."""


@attrs.frozen
class Receipt:
    """What was bought, and for how many cents."""

    what: str
    cents: int


@attrs.frozen(kw_only=True)
class Claim(StartEvent):
    """Somebody wants money back."""

    employee: str
    receipts: list[Receipt]


@attrs.frozen
class Check(Event):
    """A receipt is to be checked."""

    receipt: Receipt


@attrs.frozen
class Checked(Event):
    """A receipt is good for so many cents."""

    cents: int


@attrs.frozen
class Approval(InputRequestEvent):
    """May so much be paid?"""


@attrs.frozen(kw_only=True)
class Decision(InputResponseEvent):
    """Somebody's answer."""

    approved: bool
    by: str


@step
async def receive(ev: Claim, ctx: Context) -> list[Check]:
    """One check for each receipt. What `set` puts into the state is what the service shows of the run."""
    ctx.set("employee", ev.employee)
    ctx.set("receipts", len(ev.receipts))
    return [Check(receipt) for receipt in ev.receipts]


@step(timeout=60, max_concurrency=4)
async def check(ev: Check, ctx: Context) -> Checked:
    """Looks at a receipt, which takes a while."""
    await trio.sleep(ctx.metadata.get("pace", 0))
    ctx.update("checked", lambda checked: checked + 1, default=0)
    return Checked(ev.receipt.cents)


@step
async def add_up(found: list[Checked], ctx: Context) -> Approval | StopEvent:
    """A small total is paid at once; a high one is asked about."""
    cents = sum(one.cents for one in found)
    ctx.set("cents", cents)
    if cents <= LIMIT:
        return StopEvent({"approved": True, "cents": cents, "by": "the rules"})
    return Approval(f"May {ctx.get('employee')} have {cents / 100:.2f}?", metadata={"cents": cents})


@step
async def settle(ev: Decision, ctx: Context) -> StopEvent:
    """As the person said."""
    return StopEvent({"approved": ev.approved, "cents": ctx.get("cents"), "by": ev.by})


claims = Workflow("claims", [receive, check, add_up, settle], history=True)
