"""The metrics of runs whose course is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from blazen_trio import (
    MemoryStore,
    RunCancelledError,
    StaleRunError,
    StartEvent,
    StepFailedError,
    StopEvent,
    Workflow,
    open_runtime,
    open_store,
    step,
)
from blazen_trio.telemetry import instrument, uninstrument
from tests.databases import execute
from tests.telemetry.seen import Seen, asks, ticks, wobbles

if TYPE_CHECKING:
    from pathlib import Path


async def test_runs_and_attempts_are_counted_by_their_outcomes(autojump_clock, seen: Seen) -> None:
    await ticks.run()
    await wobbles.run(2)
    with pytest.raises(StepFailedError):
        await wobbles.run(9)
    assert seen.counts("blazen_workflow_total", "status") == {"completed": 2, "failed": 1}
    assert seen.counts("blazen_workflow_total", "workflow_name") == {"ticks": 1, "wobbles": 2}
    assert seen.counts("blazen_step_total", "outcome") == {
        "completed": 3,
        "retried": 3,
        "failed": 1,
    }
    assert seen.counts("blazen_step_total", "step_name") == {"begin": 1, "go": 1, "wobble": 5}
    assert seen.counts("blazen_step_duration_seconds", "outcome") == {
        "completed": 3,
        "retried": 3,
        "failed": 1,
    }


async def test_a_runs_duration_lasts_from_its_creation_to_its_end(
    autojump_clock, seen: Seen
) -> None:
    with pytest.raises(StepFailedError):
        await wobbles.run(9)  # waits for 5 and 10 seconds, give or take a tenth
    [(about, point)] = seen.points()["blazen_workflow_duration_seconds"]
    assert about == {"workflow_name": "wobbles", "status": "failed"}
    assert 13 < point.sum < 17


async def test_a_run_counts_once_for_all_its_processes(seen: Seen) -> None:
    store = MemoryStore()
    async with open_runtime(store, [asks]) as runtime:
        run_id = await runtime.submit(asks)
        await runtime.recover()
    assert "blazen_workflow_total" not in seen.points()
    async with asks.resume_from(run_id, store=store) as run:
        await run.respond("yes")
        await run.result()
    assert seen.counts("blazen_workflow_total", "status") == {"completed": 1}


async def test_a_run_that_is_cancelled_while_undriven_counts(seen: Seen) -> None:
    async with open_runtime(MemoryStore()) as runtime:
        run_id = await runtime.submit("elsewhere")
        await runtime.cancel(run_id)
        with pytest.raises(RunCancelledError):
            await runtime.result(run_id)
    [(about, point)] = seen.points()["blazen_workflow_total"]
    assert (about, point.value) == ({"workflow_name": "elsewhere", "status": "cancelled"}, 1)


async def test_commits_and_batches_equal_the_stores_statistics(tmp_path: Path, seen: Seen) -> None:
    async with open_store(f"sqlite:///{tmp_path / 'runs.db'}") as store:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(start, store, str(number))
        counted = store.statistics()
    points = seen.points()
    [(_, commits)] = points["blazen_commits_total"]
    [(_, sizes)] = points["blazen_batch_size"]
    assert commits.value == counted.commits >= 60
    assert (sizes.count, sizes.sum, sizes.max) == (
        counted.batches,
        counted.commits,
        counted.largest_batch,
    )


async def start(store: Any, run_id: str) -> None:
    await ticks.run(store=store, run_id=run_id)


async def test_a_lost_lease_is_counted(tmp_path: Path, seen: Seen) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"

    @step
    async def depose(ev: StartEvent) -> StopEvent:
        # One statement on a file.
        execute(url, "UPDATE blazen_lease SET state = 0")  # noqa: ASYNC200
        return StopEvent()

    async with open_store(url) as store:
        with pytest.raises(StaleRunError):
            await Workflow("deposed", [depose]).run(store=store)
    [(_, point)] = seen.points()["blazen_lease_losses_total"]
    assert point.value == 1


async def test_the_gauges_show_the_current_state(tmp_path: Path, seen: Seen) -> None:
    hold = trio.Event()

    @step
    async def wait(ev: StartEvent) -> StopEvent:
        await hold.wait()
        return StopEvent()

    def runs() -> dict[str, int]:
        return {about["state"]: point.value for about, point in seen.points()["blazen_runs"]}

    def queue() -> int:
        [(_, point)] = seen.points()["blazen_writer_queue"]
        return point.value

    holds = Workflow("holds", [wait])
    assert (runs(), queue()) == ({"working": 0, "resting": 0}, 0)
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    async with open_store(url) as store, open_runtime(store, [asks, holds]) as runtime:
        run = await runtime.start(holds)
        for _ in range(2):
            await runtime.start(asks)
        # Until the started runs are parked.
        while runs() != {"working": 1, "resting": 2}:  # noqa: ASYNC110
            await trio.sleep(0.001)
        hold.set()
        await run.result()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(start, store, "one")
            while not queue():  # until a commit is on its way
                await trio.lowlevel.checkpoint()
    assert (runs(), queue()) == ({"working": 0, "resting": 0}, 0)


async def test_nothing_is_measured_after_uninstrument(seen: Seen) -> None:
    await ticks.run()
    uninstrument()
    await ticks.run()
    assert seen.counts("blazen_workflow_total", "status") == {"completed": 1}
    assert not seen.points().keys() & {"blazen_runs", "blazen_writer_queue"}


async def test_a_second_listener_replaces_the_first(seen: Seen) -> None:
    other = Seen()
    instrument(tracer_provider=other.tracers, meter_provider=other.meters)
    await ticks.run()
    assert seen.spans() == []
    assert other.counts("blazen_workflow_total", "status") == {"completed": 1}
    assert len(other.points()["blazen_runs"]) == 2
    instrument(tracer_provider=seen.tracers, meter_provider=seen.meters)  # the same providers again
    await ticks.run()
    assert seen.counts("blazen_workflow_total", "status") == {"completed": 1}
    assert len(seen.spans("workflow.run")) == 1
