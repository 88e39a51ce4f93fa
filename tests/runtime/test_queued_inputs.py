"""Queued runs whose input a worker can't read.

Such a run is left to other workers if they may be able to read it, and otherwise set aside. The
reason is visible.
"""

from __future__ import annotations

import logging
from typing import Any, ClassVar

import attrs
import pytest
import trio

from blazen_trio import (
    Event,
    MemoryStore,
    NoHandlerError,
    RunCrashedError,
    RunStatus,
    StartEvent,
    StopEvent,
    Workflow,
    open_runtime,
    step,
)
from tests.runtime.flows import serving


@attrs.frozen
class Ordered(Event):
    number: int


@attrs.frozen
class OrderedBefore(Event):
    event_type: ClassVar[str] = "Ordered"
    customer: str


@attrs.frozen
class OrderedLater(Event):
    event_type: ClassVar[str] = "Ordered"
    schema_version: ClassVar[int] = 2
    number: int


@attrs.frozen
class Fax(Event):
    text: str


def shop(start: Any, version: str = "1") -> Workflow:
    @step(accepts=[start])
    async def take(ev: Any) -> StopEvent:
        return StopEvent(type(ev).__name__)

    return Workflow("shop", [take], version=version)


def warnings_in(log: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in log.records if one.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("newer", "order", "named"),
    [(Fax, Fax("two"), "'Fax'"), (OrderedLater, OrderedLater(2), "Ordered")],
)
async def test_an_input_of_a_later_version_is_left_to_others_with_a_reason(
    newer: Any, order: Event, named: str, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = shop(Ordered), shop(newer, "2")
    storage = MemoryStore()
    async with open_runtime(storage, [new]) as front:
        run_id = await front.submit(new, order)
        async with serving(storage.beside(), [old]) as worker:
            await trio.sleep(300)
            assert worker.statistics().refused > 5
        info = await storage.get_run(run_id)
        assert info.status is RunStatus.QUEUED
        assert (await storage.load(run_id)).crashes == 0
        assert info.error is not None
        assert info.error.startswith("left to other workers")
        assert named in info.error
        # One warning per run, however often it is polled.
        [line] = warnings_in(caplog)
        assert all(part in line for part in (run_id, "'shop'", named, "Start a worker", "cancel"))
        async with serving(storage.beside(), [new]):
            assert await front.result(run_id) == type(order).__name__
        assert (await storage.get_run(run_id)).error is None


async def test_a_run_whose_input_does_not_fit_its_class_is_set_aside(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    storage = MemoryStore()
    async with open_runtime(storage, [shop(OrderedBefore)]) as front:
        run_id = await front.submit("shop", OrderedBefore("ann"))
        async with serving(storage.beside(), [shop(Ordered)]):
            with pytest.raises(RunCrashedError, match=r"set aside.*number"):
                await front.result(run_id)
    info = await storage.get_run(run_id)
    assert info.status is RunStatus.FAILED
    assert info.error is not None
    assert "number" in info.error
    assert (
        f"run {run_id!r} can't be driven by this process and is set aside"
        in warnings_in(caplog)[-1]
    )


async def test_an_input_that_the_workflow_does_not_start_with_fails_the_run(
    autojump_clock: Any,
) -> None:
    storage = MemoryStore()
    async with open_runtime(storage) as front, serving(storage.beside(), [shop(Ordered)]):
        for given in (5, StartEvent(5)):
            run_id = await front.submit("shop", given)
            with pytest.raises(NoHandlerError, match="can't start with StartEvent"):
                await front.result(run_id)
