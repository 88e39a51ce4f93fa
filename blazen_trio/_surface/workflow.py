"""The workflow that users hold: its definition, and the four verbs that run it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from blazen_trio._codec.codec import Codec
from blazen_trio._codec.storable import field_faults
from blazen_trio._definitions.definition import WorkflowDefinition
from blazen_trio._state.routing import Routing
from blazen_trio._surface.prepare import Options, open_new, open_snapshot, open_stored
from blazen_trio._surface.run_arguments import (
    check_driving,
    check_id,
    check_metadata,
    check_snapshot,
    check_store,
)
from blazen_trio._surface.start import RunStart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from blazen_trio._codec.snapshot import Snapshot
    from blazen_trio._definitions.events import Event
    from blazen_trio._dispatch.core import InputHandler
    from blazen_trio._stores.protocol import CheckpointStore

__all__ = ["Workflow"]

_KEEP: Any = Options.KEEP
_OWN: Any = object()


class Workflow(WorkflowDefinition):
    __doc__ = WorkflowDefinition.__doc__

    codec: Codec
    """What reads and writes the events and values of its runs. This and what follows are for the engine's own use."""
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

    def field_faults(self, events: Sequence[type[Event]]) -> Iterable[str]:
        """Return a sentence for each field of these events that no value could be stored of."""
        return field_faults(events)

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
        """Start a run. Await what this returns for the result; or enter it, `async with`, for the `Run`.

        Args:
            input: Wrapped in a `StartEvent`; or an event that the workflow starts with.
            run_id: By default a new UUID of version 7.
            metadata: Stored with the run; steps read it as `ctx.metadata`.
            store: Where the run is kept; left out: in memory only.
            durability: `"sync"`, `"async"` or `"exit"`; by default the workflow's.
            timeout: Seconds that the run may be at work, `None` for no limit; by default the workflow's.
            input_handler: Answers questions; by default the workflow's.

        Raises:
            RunExistsError: The store has a run of this id.
            NoHandlerError: No run of this workflow starts with this input.
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
        """Go on with a run as a snapshot has it. Await or enter what this returns.

        Args:
            snapshot: From `pause`, `snapshot`, an error, or `Snapshot.from_json`.
            store: Where the run is kept from now on.
            durability: By default the workflow's.
            timeout: Seconds from now on; left out: what the run has left (all of it again if it timed out).
            input_handler: By default the workflow's.

        Raises:
            IncompatibleRunError: The workflow lacks what the run's undone deliveries need, or is another one.
            SerializationError: What is in the snapshot does not fit.
            StaleRunError: The store knows the run further on.
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
        """Answer the question that a snapshot's run waits for, and go on with it as `resume` does.

        Args:
            snapshot: As for `resume`.
            response: An `InputResponseEvent`; or, where exactly one question is open, a plain value (not `None`).
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
        """Go on with a stored run from its last committed step, whatever became of the process that drove it. Of a
        completed run, this gives the recorded result. Await or enter what this returns.

        Args:
            run_id: The run's id.
            store: Where it is kept.
            durability: By default the workflow's.
            timeout: As for `resume`.
            input_handler: As for `resume`.

        Raises:
            RunNotFoundError: The store has no run of this id.
            RunLockedError: Somebody alive drives it.
            IncompatibleRunError: The workflow lacks what its undone deliveries need, or is another one.
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
        """How a run of it is driven."""
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

    # Pictures. What draws them is imported when one is asked for: most programs ask for none.

    def to_mermaid(self, run: Snapshot | None = None) -> str:
        """The workflow's graph as a Mermaid flowchart, which GitHub, GitLab and many editors draw.

        Args:
            run: A run of it, as `await run.snapshot()` or `await store.load_snapshot(run_id)` gives it: the graph is coloured by
                what happened in it. How often each step was done is known of runs with `history=True`; what is undone,
                waited for or failed, of all.

        Raises:
            ValueError: The run is another workflow's.
        """
        from blazen_trio._pictures.happened import graph_of
        from blazen_trio._pictures.text import to_mermaid

        return to_mermaid(graph_of(self, run))

    def to_dot(self, run: Snapshot | None = None) -> str:
        """The workflow's graph for Graphviz.

        Args:
            run: As for `to_mermaid`.

        Raises:
            ValueError: The run is another workflow's.
        """
        from blazen_trio._pictures.happened import graph_of
        from blazen_trio._pictures.text import to_dot

        return to_dot(graph_of(self, run))

    def to_svg(self, run: Snapshot | None = None) -> str:
        """The workflow's graph as a whole SVG document, for light and dark screens; no other program is needed.

        Boxes are steps, pills are events; thick lines carry lists of events. Notebooks show it for a workflow.

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
