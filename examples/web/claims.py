"""The workflow of an expense claim: check its receipts concurrently, get a high total approved."""

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
"""The total in cents up to which no approval is needed."""


@attrs.frozen
class Receipt:
    """A receipt: the item bought, and its price in cents."""

    what: str
    cents: int


@attrs.frozen(kw_only=True)
class Claim(StartEvent):
    """An employee's claim for expenses."""

    employee: str
    receipts: list[Receipt]


@attrs.frozen
class Check(Event):
    """A request to check a receipt."""

    receipt: Receipt


@attrs.frozen
class Checked(Event):
    """The amount of a checked receipt, in cents."""

    cents: int


@attrs.frozen
class Approval(InputRequestEvent):
    """A question to a person: may the total be paid?"""


@attrs.frozen(kw_only=True)
class Decision(InputResponseEvent):
    """A person's answer."""

    approved: bool
    by: str


@step
async def receive(ev: Claim, ctx: Context) -> list[Check]:
    """Request a check for each receipt. The service shows the state that is set here."""
    ctx.set("employee", ev.employee)
    ctx.set("receipts", len(ev.receipts))
    return [Check(receipt) for receipt in ev.receipts]


@step(timeout=60, max_concurrency=4)
async def check(ev: Check, ctx: Context) -> Checked:
    """Check a receipt, which takes a while."""
    await trio.sleep(ctx.metadata.get("pace", 0))
    ctx.update("checked", lambda checked: checked + 1, default=0)
    return Checked(ev.receipt.cents)


@step
async def add_up(found: list[Checked], ctx: Context) -> Approval | StopEvent:
    """Approve a small total, and ask about a high one."""
    cents = sum(one.cents for one in found)
    ctx.set("cents", cents)
    if cents <= LIMIT:
        return StopEvent({"approved": True, "cents": cents, "by": "the rules"})
    return Approval(f"May {ctx.get('employee')} have {cents / 100:.2f}?", metadata={"cents": cents})


@step
async def settle(ev: Decision, ctx: Context) -> StopEvent:
    """Record the person's decision."""
    return StopEvent({"approved": ev.approved, "cents": ctx.get("cents"), "by": ev.by})


claims = Workflow("claims", [receive, check, add_up, settle], history=True)
