"""Events: immutable attrs classes that steps take and return."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar, Generic, TypeVar

import attrs

from blazen_trio._definitions.names import is_seconds

E = TypeVar("E", bound="Event")


class Event:
    """Base of all events. Subclass it as a frozen attrs class::

        @attrs.frozen
        class Tick(Event):
            n: int

    Class attributes:
        event_type: The stable name under which it is stored; by default the class's name. Set it on the class
            to be free to rename or move the class: `event_type: ClassVar[str] = "orders.Tick"`.
        schema_version: The version of the class's fields, stored with each event.
    """

    __slots__ = ()

    event_type: ClassVar[str] = "Event"
    schema_version: ClassVar[int] = 1

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "event_type" not in cls.__dict__:
            cls.event_type = cls.__name__

    @classmethod
    def upcast(cls, data: dict[str, Any], version: int) -> dict[str, Any]:
        """Bring stored fields of an older `schema_version` up to this one; by default they stay as they are.

        Args:
            data: The stored fields, as JSON values.
            version: The `schema_version` that they were stored with.
        """
        del version
        return data


@attrs.frozen
class StartEvent(Event):
    """Starts a run, wrapping any plain input. Subclass it for a typed start.

    Attributes:
        data: The input given to `Workflow.run`.
    """

    data: Any = None


@attrs.frozen
class StopEvent(Event):
    """Ends the run. Its `result` is the run's; an event of a subclass is itself the run's result.

    Attributes:
        result: What `run` returns.
    """

    result: Any = None


def new_request_id() -> str:
    return uuid.uuid4().hex


@attrs.frozen
class InputRequestEvent(Event):
    """Asks a person, or anything outside: the run goes on with what else it has, then waits for the answer.

    Attributes:
        prompt: The question.
        metadata: Whatever the answering side needs.
        request_id: Names the question; the answer carries the same.
    """

    prompt: str
    metadata: dict[str, Any] = attrs.field(factory=dict)
    request_id: str = attrs.field(factory=new_request_id)


@attrs.frozen
class InputResponseEvent(Event):
    """Answers an `InputRequestEvent`.

    Attributes:
        request_id: The request's id.
        response: The answer.
    """

    request_id: str
    response: Any = None


@attrs.frozen
class StepFailedEvent(Event):
    """A step failed and has used up its attempts; goes to the steps that accept it, instead of failing the run.

    Attributes:
        step_name: The step.
        event: The event that it failed on (a list of them for a join).
        error_type: The exception's class name.
        message: The exception's text.
        attempts: How many attempts were made.
    """

    step_name: str
    event: Any
    error_type: str
    message: str
    attempts: int


def frozen(data: Any) -> Any:
    """Return JSON values as something that can be hashed, equal where they are equal."""
    if isinstance(data, dict):
        return frozenset((key, frozen(item)) for key, item in data.items())
    return tuple(map(frozen, data)) if isinstance(data, list) else data


@attrs.frozen
class DynamicEvent(Event):
    """Stored data of an event whose class is not at hand.

    Attributes:
        event_type: The stored type's name.
        data: Its fields, as JSON values.
        schema_version: The version that they were stored with.
    """

    # An instance's own here, the class's everywhere else.
    event_type: str = attrs.field()  # type: ignore[misc]
    data: dict[str, Any] = attrs.field()
    schema_version: int = attrs.field(default=1)  # type: ignore[misc]

    def __hash__(self) -> int:
        # The event that it stands for may have been in a set or a dict's key, with many others.
        return hash((self.event_type, self.schema_version, frozen(self.data)))


@attrs.frozen
class Lagged(Event):
    """In a stream: the subscriber fell behind, and this many of the oldest events were dropped at this place.

    Attributes:
        count: How many.
    """

    count: int


@attrs.frozen
class LifecycleEvent(Event):
    """In a stream, with `publish_lifecycle=True`: something happened to the run or one of its steps.

    Attributes:
        kind: One of the kinds of `HistoryRecord`.
        step: The step's name, where one is concerned.
        event_type: The event's type, where one is concerned.
        duration: In seconds, of an attempt that ended.
        error: What went wrong, where something did.
    """

    kind: str
    step: str | None = None
    # The concerned event's, not this one's own.
    event_type: str | None = attrs.field(default=None)  # type: ignore[assignment, misc]
    duration: float | None = None
    error: str | None = None


@attrs.frozen
class Delayed(Generic[E]):
    """Wraps an event that a step returns or sends: it is delivered after that time, however often the process dies meanwhile.

    Attributes:
        event: The event.
        seconds: From the step's commit on, 0 to 1e11.
    """

    event: E
    seconds: float = attrs.field()

    @seconds.validator
    def _check_seconds(self, _attribute: attrs.Attribute[float], value: object) -> None:
        if not is_seconds(value):
            msg = (
                f"Delayed(..., seconds={value!r}): the delay is a number of seconds from 0 to 1e11"
            )
            raise ValueError(msg)
