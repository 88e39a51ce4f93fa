"""Kinds of step functions (async, synchronous, wrapped), and the errors that are retried."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio

from blazen_trio import (
    Event,
    RetryPolicy,
    StartEvent,
    StepFailedError,
    StepOutputError,
    StopEvent,
    Workflow,
    step,
)

RETRY = RetryPolicy(max_attempts=3, initial_delay=0)


def runs_it(function: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    """Run an async function to its end, as a separate event loop would."""

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        with pytest.raises(StopIteration) as caught:
            function(*args).__await__().send(None)  # type: ignore[attr-defined]
        return caught.value.value

    return wrapper


def hands_it_on(function: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


@pytest.mark.parametrize("decorator", [runs_it, hands_it_on])
@pytest.mark.parametrize("timeout", [None, 60])
async def test_a_synchronous_wrapper_of_an_async_function_is_a_step(
    decorator: Any, timeout: Any
) -> None:
    called_in: list[Any] = []

    def noting(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            called_in.append(threading.current_thread())
            return function(*args)

        return wrapper

    @step(timeout=timeout)
    @noting
    @decorator
    async def fetch(ev: StartEvent) -> StopEvent:
        return StopEvent("fetched")

    assert await Workflow("w", [fetch]).run() == "fetched"
    # It may block, for all that is known, so it is not called in the loop's thread.
    assert called_in != [threading.main_thread()]


async def test_a_coroutine_returned_by_a_synchronous_step_is_an_invalid_output() -> None:
    attempts = []

    async def forgotten() -> StopEvent:
        return StopEvent()

    @step(retry=RETRY)
    def fetch(ev: StartEvent) -> StopEvent:
        attempts.append(forgotten())
        return attempts[-1]  # type: ignore[return-value]

    with pytest.raises(StepOutputError, match=r"coroutine.*await"):
        await Workflow("w", [fetch]).run()
    assert [inspect.getcoroutinestate(one) for one in attempts] == [inspect.CORO_CLOSED]


async def test_an_event_of_a_redefined_class_is_refused() -> None:
    old, new = (attrs.make_class("Special", [], bases=(Event,), frozen=True) for _ in range(2))

    @step(accepts=StartEvent, emits=old)
    async def begin(ev: Any) -> Any:
        return new()

    @step(accepts=old, emits=StopEvent)
    async def end(ev: Any) -> Any: ...

    with pytest.raises(StepOutputError, match="two classes Special"):
        await Workflow("w", [begin, end]).run()


def test_a_retry_on_that_is_async_is_refused() -> None:
    async def always(_error: Exception) -> bool:
        return True

    class Rule:
        async def __call__(self, _error: Exception) -> bool:
            return True

    for rule in (always, Rule()):
        with pytest.raises(ValueError, match="not async"):
            RetryPolicy(retry_on=rule)  # type: ignore[arg-type]
    rule: Any = lambda error: always(error)  # noqa: E731
    hidden = RetryPolicy(retry_on=rule)
    with pytest.raises(TypeError, match="coroutine"):
        hidden.wants(ValueError())


def test_retry_on_looks_into_groups() -> None:
    policy = RetryPolicy(retry_on=(ConnectionError, TimeoutError))
    down, wrong = ConnectionError(), ValueError()
    assert policy.wants(ExceptionGroup("", [down, ExceptionGroup("", [TimeoutError()])]))
    assert not policy.wants(ExceptionGroup("", [down, wrong]))
    assert not policy.wants(BaseExceptionGroup("", [down, KeyboardInterrupt()]))
    assert RetryPolicy(retry_on=ExceptionGroup).wants(ExceptionGroup("", [wrong]))
    assert RetryPolicy(retry_on=lambda error: isinstance(error, ExceptionGroup)).wants(
        ExceptionGroup("", [wrong])
    )


@pytest.mark.parametrize(("error", "attempts"), [(ConnectionError(), 3), (ValueError(), 1)])
async def test_an_error_wrapped_by_the_steps_nursery_is_retried(
    error: Exception, attempts: int
) -> None:
    seen = []

    async def fail() -> None:
        raise error

    @step(retry=RetryPolicy(max_attempts=3, initial_delay=0, retry_on=ConnectionError))
    async def fetch(ev: StartEvent) -> StopEvent:
        seen.append(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
        return StopEvent()

    with pytest.raises(StepFailedError):
        await Workflow("w", [fetch]).run()
    assert len(seen) == attempts
