"""The agent: think, use tools concurrently, think again. A person approves dangerous calls first.

A turn is a fan-out: `think` returns the list of tool calls that the model wants. Each call is a
delivery of its own, and `gather` runs once, with all results in the order of the calls. A question
is a member of the fan-out until it is answered. So the turn waits for it as long as it takes, even
if no process drives the run.
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
    """A tool for the agent.

    Attributes:
        name: The name by which the model calls it.
        run: Takes the call's arguments and an idempotency key, and returns the text for the model.
            It has its effect once per key.
        dangerous: True if a person has to approve each call.
    """

    name: str
    run: Callable[[dict[str, Any], str], Awaitable[str]]
    dangerous: bool = False


class ToolUnavailableError(Exception):
    """A tool does not work now, but may work later."""


@attrs.frozen
class Turn(Event):
    """The model's turn, with its number."""

    number: int


@attrs.frozen
class Call(Event):
    """A request to use a tool."""

    call: ToolCall


@attrs.frozen
class DangerousCall(Event):
    """A request to use a tool if a person approves."""

    call: ToolCall


@attrs.frozen
class Approval(InputRequestEvent):
    """A question to a person: `request_id` is the call's id, `metadata` has its arguments."""


@attrs.frozen
class Decision(InputResponseEvent):
    """A person's answer to an `Approval`: `response` is true if the call is approved."""


@attrs.frozen
class Result(Event):
    """The result of a call."""

    call_id: str
    text: str


@attrs.frozen
class Said(Event):
    """A published event, for observers of the run: a message was added to the conversation."""

    message: Message


@attrs.frozen
class Acting(Event):
    """A published event, for observers of the run: a tool is being used."""

    call: ToolCall


class Conversation:
    """The messages so far.

    Each is a key of the run's state, so a turn writes only the messages that it adds.

    Args:
        ctx: The context of the step that reads or adds messages.
    """

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    def add(self, *messages: Message) -> None:
        """Add messages, and publish them."""
        count: int = self._ctx.get("messages", 0)
        for number, message in enumerate(messages, count):
            self._ctx.set(f"message/{number}", message)
            self._ctx.publish(Said(message))
        self._ctx.set("messages", count + len(messages))

    def read(self) -> list[Message]:
        """Return all messages, oldest first."""
        return [
            self._ctx.get(f"message/{n}", type=Message) for n in range(self._ctx.get("messages", 0))
        ]


class Agent:
    """A workflow over a model and some tools: `agent.workflow`. The run holds the conversation.

    Args:
        model: The model.
        tools: The tools that the model can use.
    """

    def __init__(self, model: Model, tools: Iterable[Tool]) -> None:
        self._model = model
        self._tools = {tool.name: tool for tool in tools}
        self.workflow = Workflow(
            "agent",
            [
                self.begin,
                self.think,
                self.ask,
                self.apply_decision,
                self.act,
                self.report_failure,
                self.gather,
            ],
            types=[Message, ToolCall],
        )

    @step
    async def begin(self, ev: StartEvent, ctx: Context) -> Turn:
        """Start with the run's input, which is the user's message."""
        Conversation(ctx).add(Message("user", ev.data))
        return Turn(1)

    @step(timeout=120, retry=RetryPolicy(max_attempts=6, retry_on=ModelError))
    async def think(self, ev: Turn, ctx: Context) -> list[Call | DangerousCall] | StopEvent:
        """Ask the model.

        Its reply and the calls are one commit, so both are durable before any tool is used.
        """
        if ev.number > MAX_TURNS:
            return StopEvent(f"I did not finish in {MAX_TURNS} turns.")
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
        """Ask a person. The answer has only the question's id, so store the call under that id."""
        ctx.set(f"asked/{ev.call.id}", ev.call)
        return Approval(
            f"May I use {ev.call.tool}?", metadata=ev.call.arguments, request_id=ev.call.id
        )

    @step
    async def apply_decision(self, ev: Decision, ctx: Context) -> Call | Result:
        """Apply the person's decision. Anything but a clear yes is a no."""
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
        """Use a tool.

        If the process dies here, the step runs again with the same key, which no other call has.
        """
        call = ev.call
        if call.tool not in self._tools:
            return Result(
                call.id,
                f"There is no tool {call.tool!r}. The tools are {', '.join(sorted(self._tools))}.",
            )
        ctx.publish(Acting(call))
        return Result(
            call.id, await self._tools[call.tool].run(call.arguments, ctx.idempotency_key)
        )

    @step(handles=[act], max_recoveries=20)
    async def report_failure(self, ev: StepFailedEvent) -> Result:
        """Report a tool's final failure to the model, which may try something else.

        The failure does not fail the run.
        """
        return Result(ev.event.call.id, f"It failed: {ev.message}")

    @step
    async def gather(self, results: list[Result], ctx: Context) -> Turn:
        """Add a turn's results in the order of its calls, whichever came first. Start the next."""
        Conversation(ctx).add(
            *(Message("tool", result.text, answers=result.call_id) for result in results)
        )
        return Turn(ctx.get("turn", type=int) + 1)

    def _is_dangerous(self, call: ToolCall) -> bool:
        return call.tool in self._tools and self._tools[call.tool].dangerous
