"""The parts of a conversation, and the interface of a language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import attrs
import trio


@attrs.frozen
class ToolCall:
    """A request of the model to use a tool.

    Attributes:
        id: The call's id within the conversation.
        tool: The tool's name.
        arguments: The arguments for the tool.
    """

    id: str
    tool: str
    arguments: dict[str, Any]


@attrs.frozen
class Message:
    """One message of the conversation.

    Attributes:
        role: The author: `user`, `assistant` or `tool`.
        text: The text.
        calls: In an assistant's message: the tool calls that it requests.
        answers: In a tool's message: the id of the call whose result this is.
    """

    role: str
    text: str
    calls: list[ToolCall] = attrs.field(factory=list)
    answers: str | None = None


class ModelError(Exception):
    """The model is overloaded or can't be reached now. It may answer later."""


class Model(Protocol):
    """A language model. A client of a real one needs only this method, which makes one request."""

    async def reply(self, messages: Sequence[Message]) -> Message:
        """Return the assistant's next message.

        Raises:
            ModelError: The request failed, and a retry may succeed.
        """
        ...


Line = Message | Callable[[Sequence[Message]], Message]


class ScriptedModel:
    """A model that replies from a script.

    It has no state of its own: it finds its place in the script from the conversation. So it
    continues in a new process, as a real model does.

    Args:
        script: The assistant's messages in order, or functions that derive them from the messages.
        pace: Seconds that a reply takes.
        outages: The number of requests that fail first.
    """

    def __init__(self, script: Sequence[Line], pace: float = 0.0, outages: int = 0) -> None:
        self._script = script
        self._pace = pace
        self._outages = outages

    async def reply(self, messages: Sequence[Message]) -> Message:
        """Return the next message of the script."""
        await trio.sleep(self._pace)
        if self._outages:
            self._outages -= 1
            msg = "the model is overloaded"
            raise ModelError(msg)
        line = self._script[sum(message.role == "assistant" for message in messages)]
        return line if isinstance(line, Message) else line(messages)
