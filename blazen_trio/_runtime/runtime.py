"""The user's view of many runs: those in this process, and all others in the same store."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from blazen_trio._codec.messages import EVENT, pack_event
from blazen_trio._concurrency import protected_methods
from blazen_trio._definitions.definition import no_handler
from blazen_trio._definitions.events import Delayed, Event, InputResponseEvent
from blazen_trio._runtime import remote
from blazen_trio._runtime.anywhere import cancel_anywhere, pause_elsewhere, result_anywhere
from blazen_trio._runtime.statistics import RuntimeStatistics
from blazen_trio._state.safe_text import text_of
from blazen_trio._stores.store_rules import check_id
from blazen_trio._surface.prepare import open_new, open_stored
from blazen_trio._surface.run_arguments import (
    check_event,
    check_key,
    check_metadata,
    check_reason,
    new_run_id,
)
from blazen_trio._surface.workflow import Workflow
from blazen_trio.errors import IncompatibleRunError, RunFinishedError, StaleRunError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from blazen_trio._codec.snapshot import Snapshot
    from blazen_trio._dispatch.core import RunCore
    from blazen_trio._runtime.poller import Poller
    from blazen_trio._runtime.supervisor import Supervisor
    from blazen_trio._stores.protocol import CheckpointStore
    from blazen_trio._surface.run import Run

__all__ = ["Runtime"]


@protected_methods
class Runtime:
    """The runs of one store. `open_runtime` returns it for the duration of its block.

    Every async method is a checkpoint. When a method that acts on a run returns, its effect is on
    disk. If it raises `Cancelled`, it had no effect.
    """

    def __init__(
        self,
        store: CheckpointStore,
        workflows: Mapping[str, Workflow],
        supervisor: Supervisor,
        poller: Poller,
    ) -> None:
        self._store = store
        self._known = dict(workflows)
        self._supervisor = supervisor
        self._poller = poller

    # Starting runs

    async def start(
        self,
        workflow: Workflow | str,
        input: Any = None,  # noqa: A002
        *,
        run_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Run:
        """Start a run in this process, with a copy of the calling task's context variables.

        Waits for one of the `max_concurrent_runs` slots.

        Args:
            workflow: The workflow, or the name of one that this runtime was opened with.
            input: As for `Workflow.run`.
            run_id: By default a new UUID of version 7.
            metadata: As for `Workflow.run`.

        Raises:
            RunExistsError: The store has a run of this id.
            NoHandlerError: The workflow does not start with this event.
            SerializationError: The input or the metadata can't be stored.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        _check_new(run_id, metadata)
        found = self._named(workflow)
        begin = partial(open_new, self._supervisor.options(found), input, run_id, metadata or {})
        return await self._open(begin)

    async def resume_from(self, run_id: str) -> Run:
        """Resume a stored run in this process, as `Workflow.resume_from` does.

        Raises:
            RunNotFoundError: The store has no run of this id.
            RunLockedError: A live process drives the run; it may be this runtime.
            IncompatibleRunError: This runtime does not have the run's workflow, or the workflow
                lacks what its pending deliveries need.
        """
        check_id("run_id", run_id)
        info = await self._store.get_run(run_id)
        workflow = self._known.get(info.workflow)
        if workflow is None:
            problem = (
                f"it is a run of workflow {info.workflow!r}, and this runtime has "
                f"{sorted(self._known) or 'none'}"
            )
            msg = f"run {run_id!r} can't be resumed by this runtime: {problem}"
            raise IncompatibleRunError(msg, run_id=run_id, problems=[problem])
        return await self._open(partial(open_stored, self._supervisor.options(workflow), run_id))

    async def _open(self, begin: Callable[[], Coroutine[Any, Any, RunCore]]) -> Run:
        run = await self._supervisor.open(begin)
        self._poller.need()
        return run

    async def submit(
        self,
        workflow: Workflow | str,
        input: Any = None,  # noqa: A002
        *,
        run_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        connection: Any = None,
    ) -> str:
        """Queue a run for any process that serves its workflow, and return its id.

        Args:
            workflow: The workflow, or any name. If this process does not have the workflow, only
                the worker that takes the run checks the input; an event that the workflow does not
                start with then fails the run.
            input: As for `Workflow.run`.
            run_id: By default a new UUID of version 7. With an id of your own, a second submission
                is refused.
            metadata: As for `Workflow.run`.
            connection: A `sqlalchemy.Connection` to the store's database, in a transaction of
                yours: the run is created when it commits, or not at all.

        Raises:
            RunExistsError: The store has a run of this id.
            NoHandlerError: The workflow does not start with this event.
            SerializationError: The input or the metadata can't be stored.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        _check_new(run_id, metadata)
        found = (
            self._known.get(workflow, workflow)
            if isinstance(workflow, str)
            else self._named(workflow)
        )
        if isinstance(found, str):
            check_id("workflow", found)
        run_id = new_run_id() if run_id is None else run_id
        await remote.queue(self._store, found, input, run_id, metadata or {}, connection)
        if self._poller.serving:
            self._poller.has_ready()
        return run_id

    async def get(self, run_id: str) -> Run | None:
        """Return the handle of a run that this runtime drives, working or waiting.

        It is for operations that only a handle has, such as `stream`. While it is referenced, the
        run stays in this process.

        Returns:
            `None` if this runtime does not drive the run.
        """
        check_id("run_id", run_id)
        await trio.lowlevel.checkpoint()
        await self._supervisor.wait_opened(run_id)
        core = self._supervisor.at(run_id)
        return None if core is None else self._supervisor.handle(core)

    # Acting on runs

    async def send(
        self,
        run_id: str,
        event: Event | Delayed[Any],
        *,
        key: str | None = None,
        connection: Any = None,
    ) -> bool:
        """Send an event to a run, whether or not any process drives it.

        Args:
            run_id: The run's id.
            event: The event; `Delayed` to have it delivered later.
            key: An idempotency key. A second event with the same key, from any sender, is refused
                until the run is deleted.
            connection: As for `submit`.

        Returns:
            `False` if the key was used before, so the event was not taken; else `True`.

        Raises:
            RunNotFoundError: The store has no run of this id.
            RunFinishedError: The run has ended.
            NoHandlerError: No step accepts the event. Raised only if this runtime has the workflow;
                otherwise the run's history records the event as rejected.
            InputResponseError: The event answers a question that is not open.
            SerializationError: The event can't be stored.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        check_id("run_id", run_id)
        if key is not None:
            check_key(key)
        inner = check_event(event)
        if isinstance(inner, InputResponseEvent):
            return await self._answer(run_id, inner, key, connection)
        if connection is None:
            run = await self._driven_here(run_id)
            if run is not None:
                try:
                    return await run.send(event, key=key)
                except (StaleRunError, RunFinishedError):
                    # Nothing was written. The next driver gets the event through the inbox.
                    if run.status.ended:
                        raise
        workflow = None
        if self._known and connection is None:
            workflow = self._known.get((await self._store.get_run(run_id)).workflow)
        if workflow is not None and not workflow.accepts(type(inner)):
            raise no_handler(workflow, inner, run_id)
        data = pack_event(remote.codec_of(workflow), event)
        return (
            await self._store.post(run_id, EVENT, data, key=key, connection=connection) is not None
        )

    async def respond(self, run_id: str, response: Any) -> None:
        """Answer an open question of a run, whether or not any process drives it.

        Args:
            run_id: The run's id.
            response: As for `Run.respond`.

        Raises:
            RunNotFoundError: The store has no run of this id.
            RunFinishedError: The run has ended.
            InputResponseError: No such question is open.
            NoHandlerError: No step accepts the answer.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        check_id("run_id", run_id)
        await self._answer(run_id, response, None, None)

    async def _answer(  # noqa: ASYNC910  # the store suspends
        self, run_id: str, response: Any, key: str | None, connection: Any
    ) -> bool:
        """Answer a question. Return `False` if the key was used before."""
        run = await self._driven_here(run_id) if connection is None else None
        if run is not None:
            try:
                if key is not None:
                    return await run.send(response, key=key)
                await run.respond(response)
            except (StaleRunError, RunFinishedError):
                if run.status.ended:
                    raise
            else:
                return True
        return await remote.answer_stored(
            self._store, run_id, self._known, response, key, connection
        )

    async def cancel(self, run_id: str, reason: str | None = None) -> None:
        """Cancel a run, whether or not any process drives it. Does nothing if it has ended.

        On return, a run that this runtime or no process drives is cancelled. Another process has
        been asked to, and does it within its poll interval.

        Args:
            run_id: The run's id.
            reason: A text for people, stored with the run.

        Raises:
            RunNotFoundError: The store has no run of this id.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        check_id("run_id", run_id)
        check_reason(reason)
        text = None if reason is None else text_of(reason)
        await cancel_anywhere(self._store, self._supervisor, run_id, text)

    async def pause(self, run_id: str, grace: float | None = None) -> Snapshot:
        """Pause a run, whether or not any process drives it, and wait until it is paused.

        It leaves memory unless its `Run` is referenced, and continues with `resume_from`.

        Args:
            run_id: The run's id.
            grace: As for `Run.pause`; it applies only if this runtime drives the run.

        Raises:
            RunNotFoundError: The store has no run of this id.
            RunFinishedError: The run has ended.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        check_id("run_id", run_id)
        run = await self._driven_here(run_id)
        if run is not None:
            try:
                return await run.pause(grace)
            except (StaleRunError, RunFinishedError):
                if run.status.ended:
                    raise
        return await pause_elsewhere(self._store, self._known, self._poller, run_id)

    async def result(self, run_id: str) -> Any:
        """Wait for the result of any run, whether or not any process drives it.

        Raises:
            RunNotFoundError: The store has no run of this id.
            StepFailedError, RunTimeoutError, RunStalledError, RunCancelledError, RunCrashedError,
                NoHandlerError: The run ended without a result.
            InputRequiredError: The run waits for an answer, and can't continue without it.
            RunPausedError: The run is paused.
        """
        check_id("run_id", run_id)
        await trio.lowlevel.checkpoint()
        return await self._supervisor.lending_slot(
            partial(
                result_anywhere, self._store, self._known, self._supervisor, self._poller, run_id
            )
        )

    # Taking runs

    async def recover(self) -> list[str]:
        """Take every run of these workflows that can continue and has no live driver.

        That is, queued, orphaned and woken runs. Paused and ended runs are left alone. Waits for
        slots, and returns the ids once all are taken.
        """
        await trio.lowlevel.checkpoint()
        await self._supervisor.check_open()
        recovered: list[str] = []
        supervisor = self._supervisor
        more = True
        while more:
            taken, more = await supervisor.take(serving=False, patient=not recovered)
            recovered += taken
            self._poller.need()
            if more and not taken:
                await supervisor.changes.wait_until(
                    lambda: supervisor.closed or supervisor.slots.free > 0
                )
                await supervisor.check_open()
        return recovered

    async def serve(self) -> None:  # noqa: ASYNC910  # it waits for its end
        """Take and drive queued, orphaned and woken runs of these workflows, until cancelled.

        A cancellation releases no run: the runs are drained when the runtime's block ends.

        Raises:
            RuntimeError: The runtime serves already, or was opened without workflows.
            StoreError: The store has not answered for a long time.
        """
        await self._supervisor.check_open()
        poller = self._poller
        if poller.serving or not self._known:
            msg = (
                "this runtime serves already"
                if poller.serving
                else "a runtime without workflows has nothing to serve"
            )
            raise RuntimeError(msg)
        poller.serving = True
        poller.need()
        supervisor = self._supervisor
        try:
            while not supervisor.closed:
                poller.ready = False
                taken, more = await supervisor.take(serving=True)
                if not more:
                    await supervisor.changes.wait_until(lambda: supervisor.closed or poller.ready)
                elif not taken:
                    await supervisor.changes.wait_until(
                        lambda: supervisor.closed or supervisor.slots.free > 0
                    )
        finally:
            poller.serving = False

    def statistics(self) -> RuntimeStatistics:
        """Return the runtime's present load, and counts since it was opened."""
        supervisor, poller = self._supervisor, self._poller
        return RuntimeStatistics(
            driving=len(supervisor.driving) + len(supervisor.parked),
            resting=len(supervisor.parked),
            free_slots=supervisor.slots.free,
            watching=poller.watching,
            started=supervisor.started,
            taken=supervisor.taken,
            ended=supervisor.ended,
            left=supervisor.left,
            refused=supervisor.refused,
            polls=poller.polls,
            mail=supervisor.mail,
        )

    async def _driven_here(self, run_id: str) -> Run | None:  # noqa: ASYNC910  # if it is open
        """Return the handle of a run that this runtime drives, waiting while it is being opened.

        An event that went through the inbox while the run is being opened could arrive after a
        later one that is sent through the handle.
        """
        await self._supervisor.wait_opened(run_id)
        core = self._supervisor.at(run_id)
        return None if core is None else self._supervisor.handle(core)

    def _named(self, workflow: Workflow | str) -> Workflow:
        if isinstance(workflow, Workflow):
            known = self._known.setdefault(workflow.name, workflow)
            if known is not workflow:
                msg = (
                    f"this runtime has another workflow named {workflow.name!r}: "
                    "a run's workflow is found by its name, so give each its own"
                )
                raise ValueError(msg)
            return workflow
        found = self._known.get(workflow)
        if found is None:
            msg = (
                f"this runtime has no workflow {workflow!r}; it has {sorted(self._known) or 'none'}"
            )
            raise ValueError(msg)
        return found


def _check_new(run_id: str | None, metadata: Mapping[str, Any] | None) -> None:
    if run_id is not None:
        check_id("run_id", run_id)
    if metadata is not None:
        check_metadata(metadata)
