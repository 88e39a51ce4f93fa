"""What Trio leaves to a library: errors without a nursery's group, blocks safe from Ctrl-C, waiting
for something to become so, and long work in slices.
"""

from __future__ import annotations

import functools
from contextlib import AbstractAsyncContextManager
from types import FunctionType
from typing import TYPE_CHECKING, Final, NoReturn, ParamSpec, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType

__all__ = [
    "Changes",
    "bare_errors",
    "in_slices",
    "protected",
    "protected_methods",
]


P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C", bound=type)


class bare_errors:  # noqa: N801  # reads like Trio's own functions
    """Raise an error that comes out of a nursery alone without the nursery's group.

    Goes around one nursery, and takes off the one group that this nursery has made; a group that
    was raised in it is an error like any other. So the errors go through the nursery, whose rules
    decide what becomes of them:

        with bare_errors():
            async with trio.open_nursery() as nursery:
                ...

    - One error comes out as it was raised, with its own cause, context and traceback; also beside
      a cancellation, which has nothing to tell that the error does not.
    - Several errors stay in the nursery's group, all of them.
    - `KeyboardInterrupt`, and after it `SystemExit`, comes out alone, as whoever catches it looks
      for it. What was raised beside it is at the end of its `__context__`.
    - Where there are only cancellations, a bare `Cancelled` goes on.
    """

    @trio.lowlevel.enable_ki_protection
    def __enter__(self) -> None:
        pass

    @trio.lowlevel.enable_ki_protection
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, BaseExceptionGroup):
            bare = _bare(error)
            if bare is not error:
                try:
                    _raise(bare)
                finally:
                    del bare, error  # the traceback refers to this frame


def _bare(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what is to be raised in the place of a nursery's group."""
    errors = [each for each in group.exceptions if not isinstance(each, trio.Cancelled)]
    if not errors:
        return group.exceptions[0]
    for kind in (KeyboardInterrupt, SystemExit):
        for error in errors:
            if isinstance(error, kind):
                others = [each for each in errors if each is not error]
                if others:
                    _append_context(error, group.derive(others))
                return error
    if len(errors) == 1:
        return errors[0]
    if len(errors) == len(group.exceptions):
        return group
    fewer = group.derive(errors)
    fewer.__cause__, fewer.__context__ = group.__cause__, group.__context__
    fewer.__suppress_context__ = group.__suppress_context__
    return fewer.with_traceback(group.__traceback__)


def _append_context(error: BaseException, others: BaseException) -> None:
    """Put `others` where a traceback of `error` begins."""
    last, seen = error, {id(error)}
    while (before := last.__context__) is not None and id(before) not in seen:
        seen.add(id(before))
        last = before
    if last.__context__ is None:
        last.__context__ = others


def _raise(error: BaseException) -> NoReturn:
    """Raise an error as it is: to raise it sets its context to what is being handled."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
        del error, context  # the traceback refers to this frame


class _Protected(AbstractAsyncContextManager[T]):
    """A context manager that is entered and left as a whole.

    That of `contextlib` is Python code: were it interrupted before it has called the generator, the
    generator's nursery would stay open, and Trio's bookkeeping would be broken. With this, Ctrl-C
    waits for the next checkpoint, at which the generator knows what to do with it.
    """

    def __init__(self, manager: AbstractAsyncContextManager[T]) -> None:
        self._manager = manager

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> T:  # noqa: ASYNC910, ASYNC911  # as the one in it
        return await self._manager.__aenter__()

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(  # noqa: ASYNC910, ASYNC911  # as the one in it
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._manager.__aexit__(kind, error, traceback)  # noqa: ASYNC102  # theirs


def protected(
    make: Callable[P, AbstractAsyncContextManager[T]],
) -> Callable[P, AbstractAsyncContextManager[T]]:
    """Make blocks safe from Ctrl-C while they are entered and left; over `asynccontextmanager`.

    The generator, and all that it calls, is protected from KeyboardInterrupt, which comes at a
    checkpoint then. The body of the block is not: it is interrupted wherever it is.
    """

    @functools.wraps(make)
    def manager(*args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[T]:
        return _Protected(make(*args, **kwargs))

    return manager


def protected_methods(cls: C) -> C:
    """Protect all functions of a class from KeyboardInterrupt, and all that they call.

    For what keeps something of its own in step with something else, as locks do: between two of its
    statements nothing is raised, and Ctrl-C comes at a checkpoint of the main task. Costs nothing
    where no signal comes. A user's code must not be called by such a function.
    """
    for value in vars(cls).values():
        function = value.fget if isinstance(value, property) else value
        if isinstance(function, FunctionType):
            trio.lowlevel.enable_ki_protection(function)
    return cls


class Changes:
    """Told of each change of something; tasks wait here until what they want of it is so."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: trio.Event | None = None

    def notify(self) -> None:
        """Something has changed: let all look who wait."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait_until(self, predicate: Callable[[], bool]) -> None:
        """Wait until something is so. Always a checkpoint; when it returns, it is so."""
        await trio.lowlevel.checkpoint()
        while not predicate():
            if self._event is None:
                self._event = trio.Event()
            await self._event.wait()


_SLICE: Final = 0.004
"""Seconds that such work holds the event loop at a time, and one piece more."""


async def in_slices(pieces: Generator[None, None, T], *, cancellable: bool = False) -> T:
    """Drain a generator, giving way to other tasks every few milliseconds. Return what it comes to.

    What is done in less than that is done without a checkpoint.

    Args:
        pieces: Does a bounded piece of work per `next()`.
        cancellable: Whether a cancellation may break it off between two pieces. It may not where
            that would leave something half done.

    Raises:
        trio.Cancelled: It was broken off; the generator is closed then.
    """
    checkpoint = (
        trio.lowlevel.checkpoint if cancellable else trio.lowlevel.cancel_shielded_checkpoint
    )
    try:
        until = trio.current_time() + _SLICE
        # No checkpoint where it is short: what the caller knows of a run then still holds.
        while True:  # noqa: ASYNC913
            try:
                next(pieces)
            except StopIteration as end:
                result: T = end.value
                return result  # noqa: ASYNC910
            if trio.current_time() > until:
                await checkpoint()
                until = trio.current_time() + _SLICE
    finally:
        pieces.close()
