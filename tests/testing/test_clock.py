"""Workflows that wait are tested without waiting."""

from __future__ import annotations

import time

from blazen_trio import Context, MemoryStore, RetryPolicy, StartEvent, StopEvent, Workflow, step
from blazen_trio.testing import run_without_waiting


def test_an_hour_of_retries_takes_no_time() -> None:
    @step(retry=RetryPolicy(max_attempts=3, initial_delay=3600, max_delay=7200, jitter=0))
    async def flaky(ev: StartEvent, ctx: Context) -> StopEvent:
        if ctx.attempt < 3:
            raise OSError("not yet")
        return StopEvent(ev.data)

    workflow = Workflow("patient", [flaky])
    began = time.monotonic()
    assert run_without_waiting(workflow.run, "done") == "done"

    async def stored() -> list[str]:
        store = MemoryStore()
        await workflow.run(store=store, run_id="run")
        first, *_, last = await store.history("run")
        return [str(last.timestamp - first.timestamp)]

    assert run_without_waiting(stored)[0].startswith("3:00:00")
    assert time.monotonic() - began < 60
