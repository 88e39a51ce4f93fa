"""A run that is driven by itself, by one of a workflow's verbs, is acted upon from other processes all the same."""

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


async def test_they_take_what_others_send(opened: Any) -> None:
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
            # Whoever looked for both has gone; somebody else looks now.
            await front.send("other", Approved("ann"))
            assert await other.result() == ["ann"]


async def test_it_is_answered(opened: Any) -> None:
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


async def test_it_is_cancelled(opened: Any) -> None:
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


async def test_it_is_paused(opened: Any) -> None:
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
