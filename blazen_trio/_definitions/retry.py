"""Retry policies: when a failed step is retried.

This is pure arithmetic. Callers pass in the time and the randomness.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable  # noqa: TC003  # attrs resolves it
from typing import Any, TypeAlias

import attrs

from blazen_trio._definitions.names import is_seconds

__all__ = ["RetryPolicy"]

RetryOn: TypeAlias = "type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_exception_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  # of an object that is called
    )


def _check_attempts(_policy: object, _field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        msg = (
            f"RetryPolicy(max_attempts={value!r}): expected an integer, at least 1 (the first"
            " attempt counts)"
        )
        raise ValueError(msg)


def _check_seconds(_policy: object, field: attrs.Attribute[Any], value: object) -> None:
    if value is None and field.name == "max_elapsed":
        return
    if not is_seconds(value):
        msg = f"RetryPolicy({field.name}={value!r}): expected a number of seconds from 0 to 1e11"
        raise ValueError(msg)


def _check_multiplier(_policy: object, _field: attrs.Attribute[Any], value: object) -> None:
    if not _is_number(value) or value < 1:  # type: ignore[operator]
        msg = (
            f"RetryPolicy(multiplier={value!r}): expected a finite number, at least 1 (1: the delay"
            " stays the same)"
        )
        raise ValueError(msg)


def _check_jitter(_policy: object, _field: attrs.Attribute[Any], value: object) -> None:
    if not _is_number(value) or not 0 <= value <= 1:  # type: ignore[operator]
        msg = f"RetryPolicy(jitter={value!r}): expected a fraction of the delay, from 0 to 1"
        raise ValueError(msg)


def _check_retry_on(_policy: object, _field: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, tuple):
        good = bool(value) and all(_is_exception_class(one) for one in value)
    else:
        good = _is_exception_class(value) or (
            callable(value) and not isinstance(value, type) and not _is_async(value)
        )
    if not good:
        msg = (
            f"RetryPolicy(retry_on={value!r}): expected an exception class, a tuple of exception"
            " classes, or a function, not async, that takes the exception and returns whether to"
            " try again"
        )
        raise ValueError(msg)


@attrs.frozen
class RetryPolicy:
    """A policy for retrying a failed step, with exponential backoff. All times are in seconds.

    Attributes:
        max_attempts: The maximum number of attempts, including the first.
        initial_delay: The delay after the first failure.
        max_delay: The longest delay, including jitter.
        multiplier: The factor by which each delay is longer than the previous one.
        jitter: A fraction, 0 to 1. A delay is drawn evenly from `delay * (1 - jitter)` to
            `delay * (1 + jitter)`, so that steps that failed together are not retried together.
        max_elapsed: The latest start of an attempt, counted from the start of the first one. If
            the next attempt would start later, the step fails. `None` for no limit.
        retry_on: The exceptions that are worth another attempt: a class, a tuple of classes, or a
            function from the exception to a bool. Any other exception fails the step at once. An
            exception group that is not itself of one of the classes is retried if each exception
            in it would be. A function gets the group.

    Raises:
        ValueError: A value is out of range. The message names it and what was expected.
    """

    max_attempts: int = attrs.field(default=3, validator=_check_attempts)
    initial_delay: float = attrs.field(default=1.0, validator=_check_seconds)
    max_delay: float = attrs.field(default=60.0, validator=_check_seconds)
    multiplier: float = attrs.field(default=2.0, validator=_check_multiplier)
    jitter: float = attrs.field(default=0.1, validator=_check_jitter)
    max_elapsed: float | None = attrs.field(default=None, validator=_check_seconds)
    retry_on: RetryOn = attrs.field(default=Exception, validator=_check_retry_on)

    def wants(self, exc: BaseException) -> bool:
        """Return whether an exception of this kind is worth another attempt at all.

        Raises:
            Exception: Whatever a `retry_on` function raises.
        """
        rule: Any = self.retry_on
        if isinstance(rule, type | tuple):
            if isinstance(exc, rule):
                return True
            # A nursery in a step wraps the exceptions of its tasks in a group.
            within = exc.exceptions if isinstance(exc, BaseExceptionGroup) else ()
            return bool(within) and all(map(self.wants, within))
        told = rule(exc)
        if inspect.iscoroutine(told):
            told.close()
            msg = f"retry_on={rule!r} returned a coroutine: pass a function that is not async"
            raise TypeError(msg)
        return bool(told)

    def delay(self, attempt: int, random: float) -> float:
        """Return the seconds to wait before the next attempt.

        Args:
            attempt: The attempt that failed, from 1.
            random: A number drawn evenly from [0, 1); 0.5 gives the delay without jitter.
        """
        try:
            base = self.initial_delay * self.multiplier ** (attempt - 1)
        except OverflowError:
            base = self.max_delay if self.initial_delay else 0.0
        base = min(base, self.max_delay)
        return min(base * (1 + self.jitter * (2 * random - 1)), self.max_delay)

    def next_delay(
        self, exc: BaseException, *, attempt: int, elapsed: float, random: float
    ) -> float | None:
        """Return the seconds to wait before the next attempt, or `None` to give up.

        Args:
            exc: The exception that the attempt raised.
            attempt: The attempt that failed, from 1.
            elapsed: The seconds since the first attempt started.
            random: A number drawn evenly from [0, 1).
        """
        if attempt >= self.max_attempts or not self.wants(exc):
            return None
        delay = self.delay(attempt, random)
        if self.max_elapsed is not None and elapsed + delay > self.max_elapsed:
            return None
        return delay
