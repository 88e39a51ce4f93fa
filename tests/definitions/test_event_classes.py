"""Event classes and names that can't be stored are refused when the workflow is built."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import pytest

from blazen_trio import Event, StartEvent, StopEvent, Workflow, WorkflowValidationError, step


def workflow(cls: type[Event], **options: Any) -> Workflow:
    @step(accepts=StartEvent, emits=cls)
    async def begin(ev: Any) -> Any: ...

    @step(accepts=cls, emits=StopEvent)
    async def end(ev: Any) -> Any: ...

    return Workflow(options.pop("name", "w"), [begin, end], **options)


@pytest.mark.parametrize("slots", [True, False])
@pytest.mark.parametrize("field", ["event_type", "schema_version", "upcast"])
def test_a_field_may_not_shadow_an_attribute_of_the_engine(field: str, slots: bool) -> None:
    fields = {field: attrs.field(type=str)}
    cls = attrs.make_class("Hook", fields, bases=(Event,), frozen=True, slots=slots)
    with pytest.raises(WorkflowValidationError, match=f"Hook has a field '{field}'"):
        workflow(cls)


@pytest.mark.parametrize("given", [7, "", None])
def test_an_event_type_must_be_text(given: Any) -> None:
    @attrs.frozen
    class Odd(Event):
        event_type: ClassVar[str] = given

    with pytest.raises(WorkflowValidationError, match="Odd has the event_type"):
        workflow(Odd)


@pytest.mark.parametrize("given", ["1", 0, -1, True, 2**31, 1.0])
def test_a_schema_version_must_be_a_number(given: Any) -> None:
    @attrs.frozen
    class Odd(Event):
        schema_version: ClassVar[int] = given

    with pytest.raises(WorkflowValidationError, match="Odd has the schema_version"):
        workflow(Odd)


@attrs.frozen
class Good(Event):
    pass


@pytest.mark.parametrize("text", ["n" * 201, "a\0b", "a\ud800", "orders ", "", 5])
@pytest.mark.parametrize("option", ["name", "version"])
def test_names_and_versions_that_a_database_can_not_hold_are_refused(
    option: str, text: Any
) -> None:
    with pytest.raises(WorkflowValidationError, match=f"{option}="):
        workflow(Good, **{option: text})
    assert workflow(Good, **{option: "n" * 200})
