"""Events: immutable attrs classes that steps take and return."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar, Generic, TypeVar

import attrs

from blazen_trio._definitions.names import is_seconds

E = TypeVar("E", bound="Event")


class Event:
    """Base class of all events. Subclass it as a frozen attrs class::

        @attrs.frozen
        class Tick(Event):
            n: int

    Class attributes:
        event_type: The stable name under which events of the class are stored; by default the
            class's name. If you set it, as in `event_type: ClassVar[str] = "orders.Tick"`, you can
            rename or move the class.
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
        """Convert stored fields of an older `schema_version` to this one.

        By default they stay as they are.

        Args:
            data: The stored fields, as JSON values.
            version: The `schema_version` that they were stored with.
        """
        del version
        return data


@attrs.frozen
class StartEvent(Event):
    """The event that starts a run, with any plain input. Subclass it for a typed start.

    Attributes:
        data: The input given to `Workflow.run`.
    """

    data: Any = None


@attrs.frozen
class StopEvent(Event):
    """The event that ends the run.

    Its `result` is the run's result. An event of a subclass is itself the run's result.

    Attributes:
        result: The value that `run` returns.
    """

    result: Any = None


def new_request_id() -> str:
    return uuid.uuid4().hex


@attrs.frozen
class InputRequestEvent(Event):
    """A question to a person, or to anything outside the run.

    The run continues with its other work, then waits for the answer.

    Attributes:
        prompt: The question.
        metadata: Whatever the answering side needs.
        request_id: The question's id. The answer carries the same id.
    """

    prompt: str
    metadata: dict[str, Any] = attrs.field(factory=dict)
    request_id: str = attrs.field(factory=new_request_id)


@attrs.frozen
class InputResponseEvent(Event):
    """The answer to an `InputRequestEvent`.

    Attributes:
        request_id: The request's id.
        response: The answer.
    """

    request_id: str
    response: Any = None


@attrs.frozen
class StepFailedEvent(Event):
    """The failure of a step that has used up its attempts.

    It goes to the steps that accept it, and the run does not fail.

    Attributes:
        step_name: The step's name.
        event: The event that it failed on (a list of them for a join).
        error_type: The exception's class name.
        message: The exception's text.
        attempts: The number of attempts made.
    """

    step_name: str
    event: Any
    error_type: str
    message: str
    attempts: int


def frozen(data: Any) -> Any:
    """Convert JSON values to hashable ones. Equal values stay equal."""
    if isinstance(data, dict):
        return frozenset((key, frozen(item)) for key, item in data.items())
    return tuple(map(frozen, data)) if isinstance(data, list) else data


@attrs.frozen
class DynamicEvent(Event):
    """The stored data of an event whose class is not available.

    Attributes:
        event_type: The stored type's name.
        data: The event's fields, as JSON values.
        schema_version: The version that they were stored with.
    """

    # Instance attributes in this class, class attributes in every other event class.
    event_type: str = attrs.field()  # type: ignore[misc]
    data: dict[str, Any] = attrs.field()
    schema_version: int = attrs.field(default=1)  # type: ignore[misc]

    def __hash__(self) -> int:
        # The original event may be one of many in a set, or part of a dict's key.
        return hash((self.event_type, self.schema_version, frozen(self.data)))


@attrs.frozen
class Lagged(Event):
    """A gap in a stream: the subscriber fell behind, and the oldest events were dropped here.

    Attributes:
        count: The number of events dropped.
    """

    count: int


@attrs.frozen
class LifecycleEvent(Event):
    """A report in a stream that something happened to the run or one of its steps.

    Streams include these with `publish_lifecycle=True`.

    Attributes:
        kind: One of the kinds of `HistoryRecord`.
        step: The step's name, if a step is concerned.
        event_type: The event's type, if an event is concerned.
        duration: The duration in seconds of an attempt that ended.
        error: The error, if something went wrong.
    """

    kind: str
    step: str | None = None
    # The type of the event concerned, not of this one.
    event_type: str | None = attrs.field(default=None)  # type: ignore[assignment, misc]
    duration: float | None = None
    error: str | None = None


@attrs.frozen
class Delayed(Generic[E]):
    """A wrapper for an event that a step returns or sends, which is then delivered later.

    It is delivered after that time even if the process dies while it waits.

    Attributes:
        event: The event.
        seconds: The delay from the step's commit on, 0 to 1e11.
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
