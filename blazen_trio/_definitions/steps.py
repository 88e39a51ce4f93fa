"""The `@step` decorator, and the definition of a step in a workflow."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import attrs

from blazen_trio._definitions.annotations import (
    Accepts,
    Emits,
    Shape,
    function_scope,
    read_accepts,
    read_emits,
    read_shape,
)
from blazen_trio._definitions.events import Event  # noqa: TC001  # attrs resolves it
from blazen_trio._definitions.names import is_positive_seconds, is_storable
from blazen_trio._definitions.retry import RetryPolicy
from blazen_trio.errors import WorkflowValidationError

if TYPE_CHECKING:
    from blazen_trio._definitions.scope import Scope

__all__ = ["StepDefinition", "define_step", "is_step", "step", "step_name"]

F = TypeVar("F", bound=Callable[..., Any])

_MARK: Final = "__blazen_step__"


@attrs.frozen(eq=False)
class _Options:
    """The arguments of `@step`, and the names that the function's annotations use."""

    function: Callable[..., Any]
    scope: Scope
    name: str
    accepts: tuple[Any, ...] | None
    emits: tuple[Any, ...] | None
    timeout: float | None
    retry: RetryPolicy | None
    max_concurrency: int | None
    handles: tuple[str, ...] | None
    max_recoveries: int


class _SubclassOf(dict[type, bool]):
    """Cache of `issubclass(cls, classes)`, by class. Each class is checked once."""

    def __init__(self, classes: tuple[type, ...]) -> None:
        super().__init__()
        self._classes = classes

    def __missing__(self, cls: type) -> bool:
        self[cls] = found = issubclass(cls, self._classes)
        return found


@attrs.frozen(eq=False)
class StepDefinition:
    """One step of a workflow, as declared.

    Attributes:
        name: Its name in the workflow.
        index: Its place in the order of declaration, from 0.
        call: The function, called as `call(event, ctx)` if `passes_context`, else as `call(event)`.
            The event of a join is a list of events.
        passes_context: Whether it takes the context.
        is_async: Whether `call` has to be awaited. Otherwise it is synchronous and runs in a worker
            thread.
        wraps_async: Whether it is an async function or wraps one. A synchronous wrapper may return
            an awaitable.
        accepts: The event classes that it takes, with their subclasses.
        is_join: Whether it takes a list of them (fan-in).
        emits: The event classes that it may return or send one by one: alone, in a tuple, or
            delayed.
        list_emits: The event classes that may be in a list that it returns (fan-out).
        returns_list: Whether it may return a list.
        returns_tuple: Whether it may return a tuple.
        returns_none: Whether it declares that it may return `None`.
        timeout: Seconds for one attempt; `None` for no limit.
        retry: The policy for retrying a failed attempt; `None` for no retries.
        max_concurrency: The maximum number of its tasks in a run; `None` for no bound.
        handles: The steps whose failures it takes, if it accepts `StepFailedEvent`. `None`: all
            steps but itself.
        max_recoveries: How often it may lead back to a step that it handles, for what descends from
            one failure.
        plain: By class: whether it may return or send an event of the class on its own.
        listed: By class: whether it may return an event of the class in a list.
    """

    name: str
    index: int
    call: Callable[..., Any]
    passes_context: bool
    is_async: bool
    accepts: tuple[type[Event], ...]
    is_join: bool
    emits: tuple[type[Event], ...]
    list_emits: tuple[type[Event], ...]
    returns_list: bool
    returns_tuple: bool
    returns_none: bool
    timeout: float | None
    retry: RetryPolicy | None
    max_concurrency: int | None
    handles: tuple[str, ...] | None
    max_recoveries: int = attrs.field(default=1, kw_only=True)
    wraps_async: bool = attrs.field(default=False, kw_only=True)
    plain: Mapping[type, bool] = attrs.field(init=False, repr=False)
    listed: Mapping[type, bool] = attrs.field(init=False, repr=False)

    @plain.default
    def _plain(self) -> Mapping[type, bool]:
        return _SubclassOf(self.emits)

    @listed.default
    def _listed(self) -> Mapping[type, bool]:
        return _SubclassOf(self.list_emits)


@overload
def step(function: F, /) -> F: ...


@overload
def step(
    *,
    name: str | None = None,
    accepts: Any = None,
    emits: Any = None,
    timeout: float | None = None,
    retry: RetryPolicy | None = None,
    max_concurrency: int | None = None,
    handles: Sequence[str | Callable[..., Any]] | None = None,
    max_recoveries: int = 1,
) -> Callable[[F], F]: ...


def step(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    accepts: Any = None,
    emits: Any = None,
    timeout: float | None = None,
    retry: RetryPolicy | None = None,
    max_concurrency: int | None = None,
    handles: Sequence[str | Callable[..., Any]] | None = None,
    max_recoveries: int = 1,
) -> Any:
    """Declare a function or method as a step. It remains callable as before.

    A workflow reads its annotations when it is built. A synchronous function runs in a thread.

    Args:
        function: The function, when `@step` is used without arguments.
        name: The step's name in its workflow; by default the function's name.
        accepts: Replaces the event parameter's annotation: an event class, several, or `list[E]`.
        emits: Replaces the return annotation: an event class, `list[E]`, `tuple[...]`, `Delayed[E]`
            or `None`, or several; `()` for a step that returns no events.
        timeout: Seconds that one attempt may take; `None` for no limit.
        retry: The policy for retrying a failed attempt; `None` for no retries.
        max_concurrency: The maximum number of its tasks in a run; `None` for no bound.
        handles: For a step that accepts `StepFailedEvent`: the steps whose failures it takes, or
            their names. `None`: all steps but itself.
        max_recoveries: How often such a step may lead back to one that it handles, for what
            descends from one failure. The next failure counts as unhandled.

    Raises:
        WorkflowValidationError: An option is invalid, or this can't be a step (a class, say).
    """

    def mark(function: Any) -> Any:
        # A static or class method is marked by its function: attribute access returns that.
        target = function.__func__ if isinstance(function, staticmethod | classmethod) else function
        faults = _function_faults(target) or _option_faults(
            name, timeout, retry, max_concurrency, handles, max_recoveries
        )
        if faults:
            subject = f"step {name or getattr(target, '__name__', None) or repr(target)!r}"
            raise WorkflowValidationError(subject, faults)
        options = _Options(
            function=target,
            scope=function_scope(target),
            name=name or target.__name__,
            accepts=_as_tuple(accepts),
            emits=_as_tuple(emits),
            timeout=timeout,
            retry=retry,
            max_concurrency=max_concurrency,
            handles=None if handles is None else tuple(map(step_name, handles)),
            max_recoveries=max_recoveries,
        )
        setattr(target, _MARK, options)
        return function

    return mark if function is None else mark(function)


def _as_tuple(given: Any) -> tuple[Any, ...] | None:
    if given is None:
        return None
    return tuple(given) if isinstance(given, list | tuple | set | frozenset) else (given,)


def _function_faults(function: Any) -> list[str]:
    if isinstance(function, functools.partial):
        return [
            (
                "a functools.partial can't be a step: it has no name and no annotations; write a"
                " function or a method"
            )
        ]
    if inspect.ismethod(function):
        return [
            (
                "it is already bound: put @step on the method in its class, then give Workflow the"
                " bound method"
            )
        ]
    if not inspect.isfunction(function):
        return [
            (
                "@step is for functions and methods, async or not; found"
                f" {type(function).__name__} {function!r}"
            )
        ]
    target = inspect.unwrap(function)
    if inspect.isasyncgenfunction(target) or inspect.isgeneratorfunction(target):
        return [
            (
                "a generator function can't be a step: return the events instead of yielding them,"
                " as -> list[...]"
            )
        ]
    marked: _Options | None = getattr(function, _MARK, None)
    if marked is not None and marked.function is function:
        return [
            (
                f"it is already a step, named {marked.name!r}: a function can be only one"
                " step; write a second function"
            )
        ]
    return []


def _option_faults(
    name: Any, timeout: Any, retry: Any, max_concurrency: Any, handles: Any, max_recoveries: Any
) -> list[str]:
    faults = []
    # A colon marks names of live items of a run that are not steps.
    named = isinstance(name, str) and name and ":" not in name and is_storable(name)
    if name is not None and not named:
        expected = "a non-empty string, without a colon, NUL or lone surrogates"
        faults.append(f"name={name!r}: expected {expected}")
    if timeout is not None and not is_positive_seconds(timeout):
        faults.append(
            f"timeout={timeout!r}: expected a number of seconds above 0 and up to 1e11, or None for"
            " no limit"
        )
    if retry is not None and not isinstance(retry, RetryPolicy):
        faults.append(
            f"retry={retry!r}: expected a RetryPolicy, as in RetryPolicy(max_attempts=5), or None"
        )
    if max_concurrency is not None and not is_positive_int(max_concurrency):
        faults.append(
            f"max_concurrency={max_concurrency!r}: expected an integer, at least 1, or None for no"
            " bound"
        )
    if not is_positive_int(max_recoveries):
        faults.append(f"max_recoveries={max_recoveries!r}: expected an integer, at least 1")
    if handles is not None:
        if not isinstance(handles, list | tuple | set | frozenset):
            faults.append(
                f"handles={handles!r}: expected a sequence of steps or step names, as in ['fetch']"
            )
        else:
            faults += [
                f"handles= contains {one!r}: expected a step or a step's name"
                for one in handles
                if not isinstance(one, str) and not is_step(one)
            ]
    return faults


def is_positive_int(value: object) -> bool:
    """Return whether this is an integer of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def is_step(candidate: object) -> bool:
    """Return whether this was declared with `@step`."""
    return callable(candidate) and isinstance(getattr(candidate, _MARK, None), _Options)


def step_name(function: Any) -> str:
    """Return the name of a step that was declared with `@step`. A string is already a name."""
    if isinstance(function, str):
        return function
    options: _Options = getattr(function, _MARK)
    return options.name


def define_step(function: Any, index: int, faults: list[str]) -> StepDefinition | None:
    """Read a step's annotations and return its definition, or `None` if they are unusable.

    If faults were added, the definition contains what could be read, so that the other steps can
    still be checked.

    Args:
        function: A function declared with `@step`, or a bound method.
        index: Its place in its workflow.
        faults: The list to which one sentence per fault is added.
    """
    options: _Options = getattr(function, _MARK)
    accepts: Accepts | None = None
    emits: Emits | None = None
    if options.accepts is not None:
        accepts = read_accepts(options.name, options.scope, options.accepts, faults)
    if options.emits is not None:
        emits = read_emits(options.name, options.scope, options.emits, faults)
    shape = read_shape(options.name, function, options.scope, accepts, emits, faults)
    if shape is None:
        return None
    return StepDefinition(
        name=options.name,
        index=index,
        call=_adapter(function, shape),
        passes_context=shape.context is not None,
        is_async=inspect.iscoroutinefunction(function),
        # A plain wrapper may run the async function itself (in an asyncio loop of its own, say), or
        # return an awaitable. Only its return value shows which.
        wraps_async=inspect.iscoroutinefunction(inspect.unwrap(function)),
        accepts=tuple(shape.accepts.classes),
        is_join=shape.accepts.is_join,
        emits=tuple(shape.emits.plain),
        list_emits=tuple(shape.emits.listed),
        returns_list=shape.emits.returns_list,
        returns_tuple=shape.emits.returns_tuple,
        returns_none=shape.emits.returns_none,
        timeout=options.timeout,
        retry=options.retry,
        max_concurrency=options.max_concurrency,
        handles=options.handles,
        max_recoveries=options.max_recoveries,
    )


def _adapter(function: Callable[..., Any], shape: Shape) -> Callable[..., Any]:
    """Return a callable for the dispatcher: the function itself if its parameters allow it."""
    event, context = shape.event, shape.context
    positional = [
        one.name
        for one in shape.parameters
        if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]
    if context is None:
        if positional[:1] == [event.name]:
            return function
        return lambda ev: function(**{event.name: ev})
    if positional[:2] == [event.name, context.name]:
        return function
    if positional[:2] == [context.name, event.name]:
        return lambda ev, ctx: function(ctx, ev)
    if positional[:1] == [event.name]:
        return lambda ev, ctx: function(ev, **{context.name: ctx})
    if positional[:1] == [context.name]:
        return lambda ev, ctx: function(ctx, **{event.name: ev})
    return lambda ev, ctx: function(**{event.name: ev, context.name: ctx})
