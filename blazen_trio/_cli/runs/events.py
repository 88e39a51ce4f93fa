"""Events made from JSON, by the classes of the run's workflow if available, else by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import orjson

from blazen_trio import DynamicEvent, InputResponseEvent
from blazen_trio._cli.arguments import value_of
from blazen_trio._cli.exits import ConfigError

if TYPE_CHECKING:
    from blazen_trio import Event, Workflow

__all__ = ["make_answer", "make_event"]


def make_event(workflow: Workflow | None, event_type: str, fields: dict[str, Any]) -> Event:
    """Make an event of this type. Without the workflow, the run's driver validates it.

    Args:
        workflow: The run's workflow, or `None`.
        event_type: The name of its type.
        fields: Its fields, in the stored form. Fields with a default may be left out if the
            workflow is available.

    Raises:
        ConfigError: The workflow has no event of this type.
        SerializationError: The fields don't fit its class.
    """
    if workflow is None:
        return DynamicEvent(event_type, fields)
    known = workflow.event_types.get(event_type)
    if known is None:
        names = ", ".join(sorted(workflow.event_types))
        raise ConfigError(
            f"workflow {workflow.name!r} has no event of type {event_type!r}; it has {names}"
        )
    stored = [event_type, _defaults(workflow, known) | fields, known.schema_version]
    event = workflow.codec.decode_event(stored)
    workflow.codec.check_event(event)
    return event


def _defaults(workflow: Workflow, event_class: type[Event]) -> dict[str, Any]:
    """Return the fields with a default, in the stored form."""
    found = {}
    for field in attrs.fields(event_class) if attrs.has(event_class) else ():
        default = field.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # it is a class
            if default.takes_self:
                continue
            default = default.factory()
        if default is not attrs.NOTHING:
            found[field.name] = orjson.loads(workflow.codec.encode_value(default, field.name).data)
    return found


def make_answer(
    workflow: Workflow | None, event_type: str | None, request_id: str, document: Any
) -> InputResponseEvent:
    """Make the answer to a question.

    Args:
        workflow: The run's workflow, or `None`.
        event_type: The name of its type, a subclass of `InputResponseEvent`; `None`: the only one
            that the workflow accepts.
        request_id: The question's id.
        document: The answer's value, in the stored form.

    Raises:
        ConfigError: The workflow does not accept answers of this type, or accepts several types, so
            one must be named.
        SerializationError: The answer does not fit its class.
    """
    if workflow is None:
        kind: Any = InputResponseEvent
        if event_type not in (None, kind.event_type):
            # The run's driver has the real class, and finds it by this name.
            kind = attrs.make_class(str(event_type), [], bases=(kind,), frozen=True)
        made: InputResponseEvent = kind(request_id, value_of(document))
        return made
    name = _answer_type(workflow, event_type)
    answer = make_event(workflow, name, {"request_id": request_id, "response": document})
    assert isinstance(answer, InputResponseEvent)
    return answer


def _answer_type(workflow: Workflow, wanted: str | None) -> str:
    taken = [
        name
        for name, known in workflow.event_types.items()
        if issubclass(known, InputResponseEvent) and workflow.accepts(known)
    ]
    if wanted in taken:
        return str(wanted)
    if wanted is None and InputResponseEvent.event_type in taken:
        return InputResponseEvent.event_type
    if wanted is None and len(taken) == 1:
        return taken[0]
    found = (
        f"workflow {workflow.name!r} accepts answers of the types "
        f"{', '.join(sorted(taken)) or 'none'}"
    )
    raise ConfigError(found + (f", not {wanted!r}" if wanted else ": choose one with --event-type"))
