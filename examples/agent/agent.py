"""The agent: think, use tools concurrently, think again. What a tool may break is asked of a person first.

A turn is a fan-out: `think` returns the list of the tool calls that the model wants, each is carried out by a delivery of its own, and
`gather` runs once, with all results in the order of the calls. A question is one of the fan-out's members until it is answered, so the turn
waits for it, however long, and in no process at all if need be.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import attrs
from model import Message, Model, ModelError, ToolCall

from blazen_trio import (
    Context,
    Event,
    InputRequestEvent,
    InputResponseEvent,
    RetryPolicy,
    StartEvent,
    StepFailedEvent,
    StepTimeoutError,
    StopEvent,
    Workflow,
    step,
)

MAX_TURNS = 20


@attrs.frozen
class Tool:
    """Something that the agent can do.

    Attributes:
        name: The name by which the model calls it.
        run: Takes the call's arguments and an idempotency key; returns what the model is told. With one key it has its effect once.
        dangerous: Whether a person has to agree to each call.
    """

    name: str
    run: Callable[[dict[str, Any], str], Awaitable[str]]
    dangerous: bool = False


class ToolUnavailableError(Exception):
    """A tool does not work now, and may in a while."""


@attrs.frozen
class Turn(Event):
    """It is the model's turn, for the nth time."""

    number: int


@attrs.frozen
class Call(Event):
    """A tool is to be used."""

    call: ToolCall


@attrs.frozen
class DangerousCall(Event):
    """A tool is to be used, if a person agrees."""

    call: ToolCall


@attrs.frozen
class Approval(InputRequestEvent):
    """May the agent do this? Its `request_id` is the call's id, its `metadata` the arguments."""


@attrs.frozen
class Decision(InputResponseEvent):
    """A person's answer to an `Approval`: `response` is whether it may."""


@attrs.frozen
class Result(Event):
    """What came of a call."""

    call_id: str
    text: str


@attrs.frozen
class Said(Event):
    """Published, for those who watch: a message was added to the conversation."""

    message: Message


@attrs.frozen
class Acting(Event):
    """Published, for those who watch: a tool is being used."""

    call: ToolCall


class Conversation:
    """The messages so far. Each is a key of the run's state, so that a turn writes what it adds, and not all that was said before.

    Args:
        ctx: The step that reads and adds.
    """

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    def add(self, *messages: Message) -> None:
        """Add messages, and show them to those who watch."""
        count: int = self._ctx.get("messages", 0)
        for number, message in enumerate(messages, count):
            self._ctx.set(f"message/{number}", message)
            self._ctx.publish(Said(message))
        self._ctx.set("messages", count + len(messages))

    def read(self) -> list[Message]:
        """All messages, oldest first."""
        return [
            self._ctx.get(f"message/{n}", type=Message) for n in range(self._ctx.get("messages", 0))
        ]


class Agent:
    """A workflow over a model and some tools: `agent.workflow`. What both do is theirs; the run holds the conversation.

    Args:
        model: What thinks.
        tools: What it can do.
    """

    def __init__(self, model: Model, tools: Iterable[Tool]) -> None:
        self._model = model
        self._tools = {tool.name: tool for tool in tools}
        self.workflow = Workflow(
            "agent",
            [self.begin, self.think, self.ask, self.heed, self.act, self.tell_failure, self.gather],
            types=[Message, ToolCall],
        )

    @step
    async def begin(self, ev: StartEvent, ctx: Context) -> Turn:
        """The run's input is what the user says."""
        Conversation(ctx).add(Message("user", ev.data))
        return Turn(1)

    @step(timeout=120, retry=RetryPolicy(max_attempts=6, retry_on=ModelError))
    async def think(self, ev: Turn, ctx: Context) -> list[Call | DangerousCall] | StopEvent:
        """Ask the model. Its reply and the calls that it wants are one commit: they are on disk together, before any tool is used."""
        if ev.number > MAX_TURNS:
            return StopEvent(f"I have not come to an end in {MAX_TURNS} turns.")
        conversation = Conversation(ctx)
        reply = await self._model.reply(conversation.read())
        conversation.add(reply)
        ctx.set("turn", ev.number)
        if not reply.calls:
            return StopEvent(reply.text)
        return [
            DangerousCall(call) if self._is_dangerous(call) else Call(call) for call in reply.calls
        ]

    @step
    async def ask(self, ev: DangerousCall, ctx: Context) -> Approval:
        """Ask a person. The answer will carry the question's id only, so the call is put by under it."""
        ctx.set(f"asked/{ev.call.id}", ev.call)
        return Approval(
            f"May I use {ev.call.tool}?", metadata=ev.call.arguments, request_id=ev.call.id
        )

    @step
    async def heed(self, ev: Decision, ctx: Context) -> Call | Result:
        """Go on as the person said. Anything but a clear yes is a no."""
        call = ctx.get(f"asked/{ev.request_id}", type=ToolCall)
        ctx.delete(f"asked/{ev.request_id}")
        return (
            Call(call) if ev.response is True else Result(call.id, "The user did not allow this.")
        )

    @step(
        timeout=60,
        max_concurrency=8,
        retry=RetryPolicy(max_attempts=4, retry_on=(ToolUnavailableError, StepTimeoutError)),
    )
    async def act(self, ev: Call, ctx: Context) -> Result:
        """Use a tool. A process that dies here does it again: the key is the same then, and belongs to no other call."""
        call = ev.call
        if call.tool not in self._tools:
            return Result(
                call.id,
                f"There is no tool {call.tool!r}; there are {', '.join(sorted(self._tools))}.",
            )
        ctx.publish(Acting(call))
        return Result(
            call.id, await self._tools[call.tool].run(call.arguments, ctx.idempotency_key)
        )

    @step(handles=[act], max_recoveries=20)
    async def tell_failure(self, ev: StepFailedEvent) -> Result:
        """A tool that has failed for good does not fail the run: the model is told, and may have another idea."""
        return Result(ev.event.call.id, f"It failed: {ev.message}")

    @step
    async def gather(self, results: list[Result], ctx: Context) -> Turn:
        """All results of a turn, in the order of its calls, whenever each came in."""
        Conversation(ctx).add(
            *(Message("tool", result.text, answers=result.call_id) for result in results)
        )
        return Turn(ctx.get("turn", type=int) + 1)

    def _is_dangerous(self, call: ToolCall) -> bool:
        return call.tool in self._tools and self._tools[call.tool].dangerous
