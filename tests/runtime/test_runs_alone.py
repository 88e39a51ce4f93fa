"""Other processes can act on a standalone run, which a workflow's own methods drive."""

from __future__ import annotations

from typing import Any

import pytest

from blazen_trio import (
    InputRequiredError,
    RunCancelledError,
    RunFinishedError,
    RunPausedError,
    RunStatus,
    open_runtime,
)
from tests.runtime.flows import Approved, approvals, asks, ticks


async def test_standalone_runs_receive_events_from_other_processes(opened: Any) -> None:
    async with opened() as here, opened() as there, open_runtime(there) as front:
        first, second = (
            approvals.run(count, store=here, run_id=name)
            for count, name in ((3, "run"), (1, "other"))
        )
        async with first as run, second as other:
            await front.send("run", Approved("from afar"), key="k")
            assert not await run.send(Approved("twice"), key="k")
            await run.send(Approved("from here"), key="l")
            await front.send("run", Approved("again"))
            assert sorted(await run.result()) == ["again", "from afar", "from here"]
            # The task that polled for both has ended. Another one polls now.
            await front.send("other", Approved("ann"))
            assert await other.result() == ["ann"]


async def test_a_standalone_run_is_answered_from_another_process(opened: Any) -> None:
    async with (
        opened() as here,
        opened() as there,
        open_runtime(there, poll_interval=0.05) as front,
        asks.run("sure", store=here, run_id="run") as run,
    ):
        with pytest.raises(InputRequiredError):
            await front.result("run")
        await front.respond("run", "yes")
        assert await front.result("run") == "yes"
        assert await run.result() == "yes"


async def test_a_standalone_run_is_cancelled_from_another_process(opened: Any) -> None:
    async with (
        opened() as here,
        opened() as there,
        open_runtime(there, poll_interval=0.05) as front,
    ):
        with pytest.raises(RunCancelledError, match="enough"):
            async with ticks.run(10_000, store=here, run_id="run"):
                await front.cancel("run", "enough")
                with pytest.raises(RunCancelledError, match="enough"):
                    await front.result("run")
        assert list((await there.load("run")).inbox) == []


async def test_a_standalone_run_is_paused_from_another_process(opened: Any) -> None:
    async with (
        opened() as here,
        opened() as there,
        open_runtime(there, poll_interval=0.05) as front,
    ):
        async with ticks.run(10_000, store=here, run_id="run") as run:
            assert (await front.pause("run")).status is RunStatus.PAUSED
            with pytest.raises((RunPausedError, RunFinishedError)):
                await run.result()
        assert (await there.get_run("run")).status is RunStatus.PAUSED
        await front.cancel("run")
