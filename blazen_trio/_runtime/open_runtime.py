"""The block in which many runs are driven."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from blazen_trio._concurrency import bare_errors, protected
from blazen_trio._definitions.names import is_positive_seconds, is_seconds
from blazen_trio._dispatch.control import Stop
from blazen_trio._runtime.poller import Poller
from blazen_trio._runtime.runtime import Runtime
from blazen_trio._runtime.supervisor import Supervisor
from blazen_trio._surface.run_arguments import check_store
from blazen_trio._surface.workflow import Workflow

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from blazen_trio._stores.protocol import CheckpointStore

__all__ = ["open_runtime"]


@protected
@asynccontextmanager
async def open_runtime(
    store: CheckpointStore,
    workflows: Iterable[Workflow] = (),
    *,
    max_concurrent_runs: int = 1000,
    idle_after: float = 10.0,
    poll_interval: float = 0.5,
    max_crashes: int = 5,
    drain_timeout: float | None = None,
) -> AsyncGenerator[Runtime]:
    """Drive many runs of one store, for as long as the block lasts.

    The end of the block waits for the runs that were started, resumed and recovered here, until each has ended or waits for
    something from outside. Runs that `serve` took are drained: their steps in flight may end, and then others go on with them.
    An exception in the block, or a cancellation, cancels the steps in flight; every run stays as it is on disk, and nobody
    drives it.

    Args:
        store: Where the runs are.
        workflows: Those whose runs are driven here; none, for a process that only submits, sends and waits.
        max_concurrent_runs: So many runs are at work here at once; `start` and `serve` wait for a free slot. A run that waits for
            an answer, an event or a time, or is paused, has none, and gets one again when it goes on.
        idle_after: Seconds after which a run that waits, and whose `Run` nobody here holds, is left to whoever looks next, while this
            runtime serves; a paused one in any case. Before that it stays this process's, without a task.
        poll_interval: Seconds between two looks at the store, of which there is one for all runs.
        max_crashes: A run whose drivers have died or failed so many times, with no step of it
            committed in between, ends as failed (`RunCrashedError`) instead of taking down another.
        drain_timeout: Seconds for which the steps in flight of drained runs may go on; `None`: as long as they take.

    Raises:
        StoreError: The store has not answered for a minute.
    """
    check_store(store)
    _check_options(max_concurrent_runs, max_crashes, poll_interval, idle_after, drain_timeout)
    named = _by_name(workflows)
    supervisor = Supervisor(store, named, max_concurrent_runs, max_crashes)
    poller = Poller(store, supervisor, tuple(named), poll_interval, idle_after)
    with bare_errors():
        async with trio.open_nursery() as services:
            services.start_soon(poller.run)
            with bare_errors():
                async with trio.open_nursery() as runs:
                    supervisor.nursery = runs
                    runs.start_soon(supervisor.keep)
                    try:
                        yield Runtime(store, named, supervisor, poller)
                    except BaseException:
                        supervisor.close()
                        raise
                    services.start_soon(_close, supervisor, drain_timeout)
            services.cancel_scope.cancel(reason="the runtime is closed")


async def _close(supervisor: Supervisor, drain_timeout: float | None) -> None:
    """Let the runs go, and see those that are drained out of their steps in time."""
    drained = supervisor.close()
    await supervisor.let_parked_go(supervisor.not_waited_for())
    await trio.lowlevel.checkpoint()
    if drain_timeout is not None and drained:
        await trio.sleep(drain_timeout)
        for core in drained:
            core.stop_steps(Stop.DRAINED)


def _by_name(workflows: Iterable[Workflow]) -> dict[str, Workflow]:
    found: dict[str, Workflow] = {}
    for workflow in workflows:
        if not isinstance(workflow, Workflow):
            msg = f"open_runtime takes workflows, found {workflow!r:.80}"  # type: ignore[unreachable]
            raise TypeError(msg)
        if found.setdefault(workflow.name, workflow) is not workflow:
            msg = (
                f"two workflows are named {workflow.name!r}: a run's workflow is found by its name"
            )
            raise ValueError(msg)
    return found


def _check_options(
    runs: object, crashes: object, interval: object, idle: object, drain: object
) -> None:
    for name, count in (("max_concurrent_runs", runs), ("max_crashes", crashes)):
        if type(count) is not int or count < 1:
            msg = f"{name}={count!r:.80}: a whole number, at least 1"
            raise ValueError(msg)
    if not is_positive_seconds(interval):
        msg = f"poll_interval={interval!r:.80}: a number of seconds above 0 and up to 1e11"
        raise ValueError(msg)
    for name, seconds in (("idle_after", idle), ("drain_timeout", drain)):
        if seconds is not None and not is_seconds(seconds):
            msg = f"{name}={seconds!r:.80}: a number of seconds from 0 to 1e11"
            raise ValueError(msg)
