"""What a step handed over, checked against what it declares, and told apart: plain outputs and members of a fan-out."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from blazen_trio._definitions.events import Delayed, Event
from blazen_trio._state.texts import text_of
from blazen_trio.errors import StepOutputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from blazen_trio._definitions.steps import StepDefinition

__all__ = ["check_returned", "check_sent", "unwrap"]


def unwrap(output: Any) -> Any:
    """The event itself of a `Delayed` one."""
    return output.event if isinstance(output, Delayed) else output


def check_returned(step: StepDefinition, result: Any) -> tuple[Iterable[Any], list[Any] | None]:
    """Tell what a step returned apart.

    Returns:
        The plain outputs, and the members of the fan-out that a returned list opens (`None`: no list). Both may hold
        `Delayed` events.

    Raises:
        StepOutputError: It is not an event, a list or tuple of events, or None, or of a type that
            the step does not declare.
    """
    if result is None:
        return (), None
    if step.plain[type(result)]:
        return (result,), None
    if isinstance(result, (Event, Delayed)):
        check_plain(step, result, "returned")
        return (result,), None
    if type(result) is tuple:
        if not step.returns_tuple:
            raise _wrong(step, f"returned a tuple of {_names(result)}")
        for output in _samples(result):
            check_plain(step, output, "returned")
        return result, None
    if type(result) is list:
        if not step.returns_list:
            raise _wrong(step, f"returned a list of {_names(result)}")
        for event in map(unwrap, _samples(result)):
            if not isinstance(event, Event) or not step.listed[type(event)]:
                raise _wrong(step, f"returned a list with {_describe(event)} in it", event)
        return (), list(result)
    if inspect.iscoroutine(result):
        result.close()  # nobody will await it, which would be warned of somewhere else
        raise _wrong(step, "returned a coroutine, which was not awaited (a forgotten `await`?)")
    raise _wrong(step, f"returned {_describe(result)}")


def _samples(outputs: Sequence[Any]) -> Collection[Any]:
    """One of each class: there may be very many outputs, and what is checked is their class."""
    samples = dict(zip(map(type, outputs), outputs, strict=True))
    for cls in samples:
        if issubclass(cls, Delayed):
            return {type(unwrap(output)): output for output in outputs}.values()
    return samples.values()


def check_sent(step: StepDefinition, output: Any) -> None:
    """Check an event given to `ctx.send`.

    Raises:
        StepOutputError: It is no event, or of a type that the step does not declare.
    """
    check_plain(step, output, "sent")


def check_plain(step: StepDefinition, output: Any, verb: str) -> None:
    event = unwrap(output)
    if not isinstance(event, Event):
        raise _wrong(step, f"{verb} {_describe(event)}")
    if not step.plain[type(event)]:
        raise _wrong(step, f"{verb} {_describe(event)}", event)


def _twins(step: StepDefinition, value: Any) -> str:
    """Say so where the event is of another class of a declared name: a cell of a notebook that was
    run again defines its classes anew.
    """
    cls = type(value)
    if any(one.__name__ == cls.__name__ for one in (*step.emits, *step.list_emits)):
        return (
            f". There are two classes {cls.__name__}: if it was defined again, define the step and "
            "build the workflow again, too"
        )
    return ""


def _wrong(step: StepDefinition, what: str, value: Any = None) -> StepOutputError:
    declared = [cls.__name__ for cls in step.emits] + [
        f"list[{cls.__name__}]" for cls in step.list_emits
    ]
    return StepOutputError(
        f"step {step.name!r} {what}, but it declares {' | '.join(declared) or 'no event at all'}: change what it "
        "returns or sends, or its return annotation (or `@step(emits=...)`). A list of events opens a fan-out and is "
        "declared as list[...], a tuple as tuple[...]; what `ctx.send` sends is declared outside of any list"
        + _twins(step, value),
        step_name=step.name,
        error_type="StepOutputError",
    )


def _describe(value: Any) -> str:
    return (
        f"{type(value).__name__} {text_of(value)[:80]!r}"
        if not isinstance(value, Event)
        else type(value).__name__
    )


def _names(values: Iterable[Any]) -> str:
    return ", ".join(sorted({type(unwrap(value)).__name__ for value in values})) or "nothing"
