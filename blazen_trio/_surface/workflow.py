"""The workflow as users see it: its definition, the methods that run it, and their result."""

from __future__ import annotations

import functools
import warnings
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from blazen_trio._codec.codec import Codec
from blazen_trio._codec.storable import field_faults
from blazen_trio._concurrency import bare_errors, protected, protected_methods
from blazen_trio._definitions.definition import WorkflowDefinition
from blazen_trio._dispatch.control import Leave, Phase
from blazen_trio._dispatch.driving import drive
from blazen_trio._state.routing import Routing
from blazen_trio._stores.store_rules import check_id
from blazen_trio._surface.outcome import Handle
from blazen_trio._surface.prepare import Options, open_new, open_snapshot, open_stored
from blazen_trio._surface.run import Run
from blazen_trio._surface.run_arguments import (
    check_driving,
    check_metadata,
    check_snapshot,
    check_store,
)
from blazen_trio.errors import UnstorableFieldWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from blazen_trio._codec.snapshot import Snapshot
    from blazen_trio._definitions.events import Event
    from blazen_trio._dispatch.core import InputHandler, RunCore
    from blazen_trio._stores.protocol import CheckpointStore

__all__ = [
    "RunStart",
    "Workflow",
]


@protected_methods
class RunStart(Coroutine[Any, Any, Any]):
    """A run that has not started.

    Await it for the result, or enter it with `async with` for the `Run`; either, and once only.
    """

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
            msg = (
                f"{self._name} was awaited or entered before: "
                "call the workflow's method again for another run"
            )
            raise RuntimeError(msg)
        self._used = True

    # Awaited

    def __await__(self) -> Generator[Any, Any, Any]:
        self._use()
        return _to_result(self._begin).__await__()

    def send(self, value: Any) -> Any:
        """Resume the coroutine; for `trio.run` and `start_soon`."""
        return self._started().send(value)

    def throw(self, *error: Any) -> Any:
        """Raise in the coroutine; for `trio.run` and `start_soon`."""
        return self._started().throw(*error)

    def close(self) -> None:
        """Close the coroutine, started or not."""
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
        # The block is not left before the run has ended or is released.
        return await self._manager.__aexit__(exc_type, exc, traceback)  # noqa: ASYNC102

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
    # No one holds the run's handle, so no one can answer or unpause it.
    core.control.leave_at(Leave.ONCE_ASKED)
    if core.control.phase is not Phase.LEFT:
        await drive(core)
    return await Run(Handle(core)).result_when_left()


@protected
@asynccontextmanager
async def _entered(begin: Callable[[], Coroutine[Any, Any, RunCore]]) -> AsyncGenerator[Run]:
    """Drive a run in a nursery of the block, and yield its handle.

    The run never cancels the block. An error in the block passes through the nursery, which cancels
    the run's tasks, and is raised unchanged.
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
            # Not a Cancelled, so replacing it is safe.
            raise BaseExceptionGroup(msg, [error, failure]) from None  # noqa: ASYNC104
        raise
    owed = await run.block_error()
    if owed is not None:
        raise owed


_KEEP: Any = Options.KEEP
_OWN: Any = object()


class Workflow(WorkflowDefinition):
    __doc__ = WorkflowDefinition.__doc__

    codec: Codec
    """Encodes and decodes the events and values of its runs. This and the rest are internal."""
    routing: Routing

    def __init__(
        self,
        name: str,
        steps: Iterable[Callable[..., Any]],
        *,
        version: str = "1",
        timeout: float | None = 300.0,
        input_handler: InputHandler | None = None,
        publish_lifecycle: bool = False,
        history: bool = False,
        max_concurrency: int | None = None,
        durability: str = "sync",
        external: Iterable[type[Event]] = (),
        types: Iterable[type] = (),
    ) -> None:
        super().__init__(
            name,
            steps,
            version=version,
            timeout=timeout,
            input_handler=input_handler,
            publish_lifecycle=publish_lifecycle,
            history=history,
            max_concurrency=max_concurrency,
            durability=durability,
            external=external,
            types=types,
        )
        object.__setattr__(self, "codec", Codec(self.event_types, self.value_types))
        object.__setattr__(self, "routing", Routing(self))
        # Not an error: its runs may do without a store.
        for fault in field_faults(self.event_types.values()):
            warnings.warn(f"workflow {self.name!r}: {fault}", UnstorableFieldWarning, stacklevel=2)

    def run(
        self,
        input: Any = None,  # noqa: A002
        *,
        run_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        store: CheckpointStore | None = None,
        durability: str | None = None,
        timeout: float | None = _KEEP,  # noqa: ASYNC109
        input_handler: InputHandler | None = _OWN,
    ) -> RunStart:
        """Start a run: await the returned object for the result, or enter it for the `Run`.

        Args:
            input: An event that the workflow starts with. Anything else is wrapped in a
                `StartEvent`.
            run_id: The run's id; by default a new UUID of version 7.
            metadata: Stored with the run; steps read it as `ctx.metadata`.
            store: The store of the run; by default it is in memory only.
            durability: `"sync"`, `"async"` or `"exit"`; by default the workflow's.
            timeout: Seconds that the run may be at work, `None` for no limit; by default the
                workflow's.
            input_handler: Answers questions; by default the workflow's.

        Raises:
            RunExistsError: The store has a run of this id.
            NoHandlerError: The workflow does not start with this event.
            SerializationError: The input or the metadata can't be stored.
        """
        if run_id is not None:
            check_id("run_id", run_id)
        if metadata is not None:
            check_metadata(metadata)
        options = self.options(store, durability, timeout, input_handler)
        begin = functools.partial(open_new, options, input, run_id, metadata or {})
        return RunStart(begin, ("run of workflow", self.name))

    def resume(
        self,
        snapshot: Snapshot,
        *,
        store: CheckpointStore | None = None,
        durability: str | None = None,
        timeout: float | None = _KEEP,  # noqa: ASYNC109
        input_handler: InputHandler | None = _OWN,
    ) -> RunStart:
        """Resume the run of a snapshot: await or enter the returned object.

        Args:
            snapshot: From `pause`, `snapshot`, an error, or `Snapshot.from_json`.
            store: The store of the run from now on.
            durability: By default the workflow's.
            timeout: Seconds from now on; by default the time that the run has left (its full time
                if it timed out).
            input_handler: By default the workflow's.

        Raises:
            IncompatibleRunError: The run is one of another workflow, or this workflow lacks what
                its pending deliveries need.
            SerializationError: The snapshot's contents don't fit the workflow's classes.
            StaleRunError: The store has another state of the run, such as a later one.
        """
        check_snapshot(snapshot)
        if store is not None:
            check_id("run_id", snapshot.run_id)
        options = self.options(store, durability, timeout, input_handler)
        return RunStart(
            functools.partial(open_snapshot, options, snapshot), ("resumed run", snapshot.run_id)
        )

    def resume_with_input(
        self,
        snapshot: Snapshot,
        response: Any,
        *,
        store: CheckpointStore | None = None,
        durability: str | None = None,
        timeout: float | None = _KEEP,  # noqa: ASYNC109
        input_handler: InputHandler | None = _OWN,
    ) -> RunStart:
        """Answer the question that a snapshot's run waits for, and resume it as `resume` does.

        Args:
            snapshot: As for `resume`.
            response: An `InputResponseEvent`. If exactly one question is open, a plain value (not
                `None`).
            store: As for `resume`.
            durability: As for `resume`.
            timeout: As for `resume`.
            input_handler: As for `resume`.

        Raises:
            InputResponseError: No such question is open.
        """
        check_snapshot(snapshot)
        if store is not None:
            check_id("run_id", snapshot.run_id)
        options = self.options(store, durability, timeout, input_handler)
        begin = functools.partial(open_snapshot, options, snapshot, response)
        return RunStart(begin, ("resumed run", snapshot.run_id))

    def resume_from(
        self,
        run_id: str,
        *,
        store: CheckpointStore,
        durability: str | None = None,
        timeout: float | None = _KEEP,  # noqa: ASYNC109
        input_handler: InputHandler | None = _OWN,
    ) -> RunStart:
        """Resume a stored run from its last committed step: await or enter the returned object.

        It does not matter how the process that drove the run ended. A completed run returns its
        recorded result.

        Args:
            run_id: The run's id.
            store: The store of the run.
            durability: By default the workflow's.
            timeout: As for `resume`.
            input_handler: As for `resume`.

        Raises:
            RunNotFoundError: The store has no run of this id.
            RunLockedError: A live process drives the run.
            IncompatibleRunError: The run is one of another workflow, or this workflow lacks what
                its pending deliveries need.
        """
        check_id("run_id", run_id)
        check_store(store)
        options = self.options(store, durability, timeout, input_handler)
        return RunStart(functools.partial(open_stored, options, run_id), ("resumed run", run_id))

    def options(
        self,
        store: CheckpointStore | None,
        durability: str | None,
        timeout: float | None,
        handler: InputHandler | None,
    ) -> Options:
        """Check and return the options for driving a run."""
        check_driving(
            durability, None if timeout is _KEEP else timeout, None if handler is _OWN else handler
        )
        if store is not None:
            check_store(store)
        return Options(
            self.routing,
            self.codec,
            store,
            durability or self.durability,
            timeout,
            self.input_handler if handler is _OWN else handler,
        )

    # Pictures. The drawing code is imported on use: most programs never draw one.

    def to_mermaid(self, run: Snapshot | None = None) -> str:
        """Return the workflow's graph as a Mermaid flowchart, which GitHub, GitLab and others draw.

        Args:
            run: A snapshot of a run, from `await run.snapshot()` or
                `await store.load_snapshot(run_id)`, by which to colour the graph. It always shows
                the steps that are pending, waiting or failed, and, with `history=True`, how often
                each step was done.

        Raises:
            ValueError: The run is another workflow's.
        """
        from blazen_trio._pictures.happened import graph_of
        from blazen_trio._pictures.text import to_mermaid

        return to_mermaid(graph_of(self, run))

    def to_dot(self, run: Snapshot | None = None) -> str:
        """Return the workflow's graph in the DOT language of Graphviz.

        Args:
            run: As for `to_mermaid`.

        Raises:
            ValueError: The run is another workflow's.
        """
        from blazen_trio._pictures.happened import graph_of
        from blazen_trio._pictures.text import to_dot

        return to_dot(graph_of(self, run))

    def to_svg(self, run: Snapshot | None = None) -> str:
        """Return the workflow's graph as an SVG document, for light and dark screens.

        Needs no other program. Boxes are steps, pills are events, and thick lines carry lists of
        events. Notebooks display a workflow in this way.

        Args:
            run: As for `to_mermaid`.

        Raises:
            ValueError: The run is another workflow's.
        """
        from blazen_trio._pictures.drawing import draw_graph
        from blazen_trio._pictures.happened import graph_of

        return draw_graph(graph_of(self, run))

    def _repr_svg_(self) -> str:
        return self.to_svg()
