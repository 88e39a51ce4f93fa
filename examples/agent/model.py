"""What a conversation is made of, and the seam where a language model goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import attrs
import trio


@attrs.frozen
class ToolCall:
    """The model wants a tool to be used.

    Attributes:
        id: Names the call within the conversation.
        tool: The tool's name.
        arguments: What the tool is given.
    """

    id: str
    tool: str
    arguments: dict[str, Any]


@attrs.frozen
class Message:
    """One message of the conversation.

    Attributes:
        role: Who says it: `user`, `assistant` or `tool`.
        text: What is said.
        calls: In an assistant's message: the tools that it wants to be used.
        answers: In a tool's message: the id of the call that this is the result of.
    """

    role: str
    text: str
    calls: list[ToolCall] = attrs.field(factory=list)
    answers: str | None = None


class ModelError(Exception):
    """The model could not be asked, and may be in a while: it is overloaded, or can't be reached."""


class Model(Protocol):
    """A language model. A client of a real one has this one method: it makes one request of the messages."""

    async def reply(self, messages: Sequence[Message]) -> Message:
        """The assistant's next message.

        Raises:
            ModelError: It is worth trying again.
        """
        ...


Line = Message | Callable[[Sequence[Message]], Message]


class ScriptedModel:
    """A model that says what its script says next. It keeps nothing: where it is in its script it sees from the conversation, so
    it goes on in a new process, as a real one does.

    Args:
        script: The assistant's messages in order, or functions that make them of the conversation.
        pace: Seconds that a reply takes.
        outages: So many requests fail first.
    """

    def __init__(self, script: Sequence[Line], pace: float = 0.0, outages: int = 0) -> None:
        self._script = script
        self._pace = pace
        self._outages = outages

    async def reply(self, messages: Sequence[Message]) -> Message:
        """The next message of the script."""
        await trio.sleep(self._pace)
        if self._outages:
            self._outages -= 1
            msg = "the model is overloaded"
            raise ModelError(msg)
        line = self._script[sum(message.role == "assistant" for message in messages)]
        return line if isinstance(line, Message) else line(messages)
