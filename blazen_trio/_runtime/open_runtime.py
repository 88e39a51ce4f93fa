"""`open_runtime`, the block in which a process drives many runs."""

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
    """Drive many runs of one store for as long as the block lasts.

    The end of the block waits for the runs that were started, resumed and recovered in it, until
    each has ended or waits for something from outside. Runs that `serve` took are drained: their
    steps in flight may end, and another process continues them. An exception in the block, or a
    cancellation, cancels the steps in flight; every run stays as it is on disk, without a driver.

    Args:
        store: The store of the runs.
        workflows: The workflows whose runs this process drives; none if it only submits, sends and
            waits.
        max_concurrent_runs: The number of runs that may be at work at once; `start` and `serve`
            wait for a free slot. A run that is paused, or waits for an answer, an event or a time,
            holds no slot, and gets one again when it continues.
        idle_after: Seconds after which a serving runtime releases a waiting run whose `Run` is not
            referenced in this process. A paused run is released even if it does not serve. Until
            then, this process keeps the run, without a task.
        poll_interval: Seconds between two polls of the store, each of which is for all runs.
        max_crashes: The number of drivers that a run may crash, with no step of it committed in
            between, before it ends as failed (`RunCrashedError`).
        drain_timeout: Seconds for which the steps in flight of drained runs may continue; `None`:
            as long as they take.

    Raises:
        TypeError: An argument is not a store or a workflow.
        ValueError: An option is out of range, or two workflows have the same name.
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
    """Make the runs leave, and cancel the steps of drained runs after the drain timeout."""
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
            msg = f"open_runtime takes workflows, got {workflow!r:.80}"  # type: ignore[unreachable]
            raise TypeError(msg)
        if found.setdefault(workflow.name, workflow) is not workflow:
            msg = (
                f"two workflows are named {workflow.name!r}: give each its own name, "
                "since a run's workflow is found by it"
            )
            raise ValueError(msg)
    return found


def _check_options(
    runs: object, crashes: object, interval: object, idle: object, drain: object
) -> None:
    for name, count in (("max_concurrent_runs", runs), ("max_crashes", crashes)):
        if type(count) is not int or count < 1:
            msg = f"{name}={count!r:.80}: it must be a whole number, at least 1"
            raise ValueError(msg)
    if not is_positive_seconds(interval):
        msg = f"poll_interval={interval!r:.80}: it must be seconds, above 0 and up to 1e11"
        raise ValueError(msg)
    for name, seconds in (("idle_after", idle), ("drain_timeout", drain)):
        if seconds is not None and not is_seconds(seconds):
            msg = f"{name}={seconds!r:.80}: it must be seconds, from 0 to 1e11"
            raise ValueError(msg)
