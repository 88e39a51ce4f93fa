"""Additions to Trio: bare errors from nurseries, blocks safe from Ctrl-C, conditions, and slices.

The last two are waiting for a predicate to become true, and doing long work in slices.
"""

from __future__ import annotations

import functools
import inspect
from contextlib import AbstractAsyncContextManager
from types import FunctionType
from typing import TYPE_CHECKING, Final, NoReturn, ParamSpec, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType

__all__ = [
    "Changes",
    "Signal",
    "bare_errors",
    "in_slices",
    "is_guest",
    "protected",
    "protected_methods",
]


P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C", bound=type)


class bare_errors:  # noqa: N801  # reads like Trio's own functions
    """A context manager that unwraps the exception group of the one nursery inside it.

    Only the group that the nursery itself has made is unwrapped. A group that was raised in it is
    an error like any other. All errors thus pass through the nursery and follow its rules:

        with bare_errors():
            async with trio.open_nursery() as nursery:
                ...

    - A single error is raised unchanged, with its own cause, context and traceback. Cancellations
      raised beside it are dropped, since they add no information.
    - Several errors all stay in the nursery's group.
    - `KeyboardInterrupt`, or else `SystemExit`, is raised alone, since callers catch it by its
      type. Errors raised beside it are at the end of its `__context__` chain.
    - If there are only cancellations, a bare `Cancelled` is raised.
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
    """Return the exception to raise in place of a nursery's group."""
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
    """Append `others` to the `__context__` chain of `error`, where its traceback starts."""
    last, seen = error, {id(error)}
    while (before := last.__context__) is not None and id(before) not in seen:
        seen.add(id(before))
        last = before
    if last.__context__ is None:
        last.__context__ = others


def _raise(error: BaseException) -> NoReturn:
    """Raise an error with its own context, which `raise` would replace by the handled error."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
        del error, context  # the traceback refers to this frame


class _Protected(AbstractAsyncContextManager[T]):
    """A context manager whose entry and exit Ctrl-C can't interrupt.

    The one in `contextlib` is Python code. If Ctrl-C interrupted it before it has called the
    generator, the generator's nursery would stay open and break Trio's bookkeeping. With this
    class, Ctrl-C waits for the next checkpoint, where the generator can handle it.
    """

    def __init__(self, manager: AbstractAsyncContextManager[T]) -> None:
        self._manager = manager

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> T:  # noqa: ASYNC910, ASYNC911  # as the manager does
        return await self._manager.__aenter__()

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(  # noqa: ASYNC910, ASYNC911  # as the manager does
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._manager.__aexit__(kind, error, traceback)  # noqa: ASYNC102  # theirs


def protected(
    make: Callable[P, AbstractAsyncContextManager[T]],
) -> Callable[P, AbstractAsyncContextManager[T]]:
    """Make a block safe from Ctrl-C while it is entered and left; use above `asynccontextmanager`.

    The generator, and all that it calls, is protected from `KeyboardInterrupt`, which then arrives
    at a checkpoint. The body of the block is not protected: it can be interrupted anywhere.
    """

    @functools.wraps(make)
    def manager(*args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[T]:
        return _Protected(make(*args, **kwargs))

    return manager


def protected_methods(cls: C) -> C:
    """Protect all functions of a class, and all that they call, from `KeyboardInterrupt`.

    It is for classes whose invariants span several statements, such as locks: nothing is raised
    between two statements, and Ctrl-C arrives at a checkpoint of the main task. It costs nothing
    without a signal. Such a function must not call user code.
    """
    for value in vars(cls).values():
        function = value.fget if isinstance(value, property) else value
        if isinstance(function, FunctionType):
            trio.lowlevel.enable_ki_protection(function)
    return cls


def is_guest() -> bool:
    """Return whether another event loop hosts Trio in this thread: `trio.run` is then not running.

    Call it from a task. Trio tells it nowhere in public.
    """
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not trio.run.__code__:
        frame = frame.f_back
    return frame is None


class Changes:
    """A condition: tasks wait until a predicate is true, and are notified of each change."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: trio.Event | None = None

    def notify(self) -> None:
        """Make all waiting tasks check their predicates again."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait_until(self, predicate: Callable[[], bool]) -> None:
        """Wait until a predicate is true. Always a checkpoint.

        On return the predicate is true, and stays so until the next checkpoint.
        """
        await trio.lowlevel.checkpoint()
        while not predicate():
            if self._event is None:
                self._event = trio.Event()
            await self._event.wait()


@protected_methods
class Signal:
    """A signal for one task: any number of `set` calls wake it once.

    An event for many tasks would be a set of tasks and a closure for each wait; one of these is
    waited for at the end of every turn of every run.
    """

    __slots__ = ("_is_set", "_task")

    def __init__(self) -> None:
        self._is_set = False
        self._task: trio.lowlevel.Task | None = None

    def set(self) -> None:
        """Wake the task that waits, or the next one that does."""
        self._is_set = True
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    def clear(self) -> None:
        """Forget that the signal was set."""
        self._is_set = False

    async def wait(self) -> None:
        """Wait until the signal is set, and clear it. Always a checkpoint."""
        if self._is_set:
            await trio.lowlevel.checkpoint()
        else:
            assert self._task is None, "a second task waits for a signal that is for one"
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        self._is_set = False

    def _abort(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        # The task is about to be rescheduled by its cancellation. `set` must not do so again.
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


_SLICE: Final = 0.004
"""Seconds for which a slice of work blocks the event loop, plus one piece of work."""


async def in_slices(pieces: Generator[None, None, T], *, cancellable: bool = False) -> T:
    """Drain a generator, yielding to other tasks every few milliseconds, and return its result.

    Work that takes less time makes no checkpoint. Under a clock that jumps, no time passes during
    the work, so it makes none either.

    Args:
        pieces: Does a bounded piece of work per `next()`.
        cancellable: Whether a cancellation may stop it between two pieces. It may not if that would
            leave something half done.

    Raises:
        trio.Cancelled: It was stopped, and the generator closed.
    """
    checkpoint = (
        trio.lowlevel.checkpoint if cancellable else trio.lowlevel.cancel_shielded_checkpoint
    )
    try:
        until = trio.current_time() + _SLICE
        # No checkpoint if the work is short: what the caller knows of the run then still holds.
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
