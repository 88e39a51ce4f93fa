"""What the four verbs return: a coroutine that gives the result, or an async context manager that gives the run."""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from blazen_trio._concurrency import bare_errors, protected, protected_methods
from blazen_trio._dispatch.control import Leave, Phase
from blazen_trio._dispatch.driving import drive
from blazen_trio._surface.handle import Handle
from blazen_trio._surface.run import Run

if TYPE_CHECKING:
    from types import TracebackType

    from blazen_trio._dispatch.core import RunCore

__all__ = ["RunStart"]


@protected_methods
class RunStart(Coroutine[Any, Any, Any]):
    """A run that has not begun: await it for the result, or enter it with `async with` for the `Run`. Once only."""

    __slots__ = ("__weakref__", "_begin", "_coroutine", "_label", "_manager", "_used")

    def __init__(
        self, begin: Callable[[], Coroutine[Any, Any, RunCore]], label: tuple[str, str]
    ) -> None:
        self._begin = begin
        self._label = label
        self._coroutine: Coroutine[Any, Any, Any] | None = None
        self._manager: AbstractAsyncContextManager[Run] | None = None
        self._used = False

    def __repr__(self) -> str:
        return f"<{self._name}, {'used' if self._used else 'neither awaited nor entered yet'}>"

    @property
    def _name(self) -> str:
        what, name = self._label
        return f"{what} {name!r}"

    def _use(self) -> None:
        if self._used:
            msg = f"{self._name} was awaited or entered before: call the workflow's method again for another run"
            raise RuntimeError(msg)
        self._used = True

    # Awaited

    def __await__(self) -> Generator[Any, Any, Any]:
        self._use()
        return _to_result(self._begin).__await__()

    def send(self, value: Any) -> Any:
        """For `trio.run` and `start_soon`: go on with the coroutine."""
        return self._started().send(value)

    def throw(self, *error: Any) -> Any:
        """For `trio.run` and `start_soon`: raise in the coroutine."""
        return self._started().throw(*error)

    def close(self) -> None:
        """Give the coroutine up, begun or not."""
        self._used = True
        if self._coroutine is not None:
            self._coroutine.close()

    def _started(self) -> Coroutine[Any, Any, Any]:
        if self._coroutine is None:
            self._use()
            self._coroutine = _to_result(self._begin)
        return self._coroutine

    # Entered

    async def __aenter__(self) -> Run:
        self._use()
        self._manager = _entered(self._begin)
        return await self._manager.__aenter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        assert self._manager is not None
        return await self._manager.__aexit__(exc_type, exc, traceback)  # noqa: ASYNC102  # the block is not left before

    def __del__(self) -> None:
        if not self._used:
            warnings.warn(
                f"{self._name} was neither awaited nor entered",
                RuntimeWarning,
                stacklevel=2,
                source=self,
            )


@trio.lowlevel.enable_ki_protection
async def _to_result(begin: Callable[[], Coroutine[Any, Any, RunCore]]) -> Any:
    core = await begin()
    # Nobody holds the run, so nobody can answer or unpause it.
    core.leave_at(Leave.ONCE_ASKED)
    if core.control.phase is not Phase.LEFT:
        with bare_errors():
            await drive(core)
    return await Run(Handle(core)).result()


@protected
@asynccontextmanager
async def _entered(begin: Callable[[], Coroutine[Any, Any, RunCore]]) -> AsyncGenerator[Run]:
    """The block owns the nursery that the run lives in. The run never cancels the block; an error in the block goes through
    that nursery, which cancels the run, and comes out as it is.
    """
    core = await begin()
    run = Run(Handle(core))
    body_error: BaseException | None = None
    try:
        with bare_errors():
            async with trio.open_nursery() as nursery:
                if core.control.phase is not Phase.LEFT:
                    nursery.start_soon(drive, core)
                try:
                    yield run
                except BaseException as error:
                    body_error = error
                    raise
                core.leave_at(Leave.ONCE_WAITING)
    except BaseException as error:
        failure = run.undelivered_failure
        failed = error is body_error and not isinstance(error, trio.Cancelled)
        if failed and failure is not None and failure is not error:
            msg = "both the block and the engine failed"
            raise BaseExceptionGroup(msg, [error, failure]) from None  # noqa: ASYNC104  # no Cancelled
        raise
    owed = await run.block_error()
    if owed is not None:
        raise owed
