"""The log of a run: its records, their levels and their fields."""

from __future__ import annotations

import io
import json
import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING

import pytest
import trio

from blazen_trio import (
    DynamicEvent,
    MemoryStore,
    RetryPolicy,
    RunExistsError,
    RunStatus,
    RunTimeoutError,
    StaleRunError,
    StartEvent,
    StepFailedError,
    StopEvent,
    Workflow,
    open_runtime,
    open_store,
    step,
)
from blazen_trio._cli.output import make_handler
from tests.databases import execute
from tests.telemetry.seen import asks, begin, go, ticks, wobbles

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = logging.Formatter("{levelname} {run_id} {workflow} {step} {message}", style="{")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "blazen_trio")
    return caplog


def lines(log: pytest.LogCaptureFixture) -> list[str]:
    """Format all records. Each must have every field that a format may use."""
    assert {record.name for record in log.records} <= {"blazen_trio"}
    return [FORMAT.format(record).partition("\n")[0] for record in log.records]


async def test_a_run_is_logged_at_info(log) -> None:
    await ticks.run(run_id="r")
    assert lines(log) == [
        "INFO r ticks None run 'r': workflow started, StartEvent",
        "INFO r ticks go run 'r': workflow completed, StopEvent",
    ]


async def test_each_step_is_logged_at_debug(log) -> None:
    log.set_level(logging.DEBUG, "blazen_trio")
    await ticks.run(run_id="r")
    steps = [
        (record.levelname, record.step)
        for record in log.records
        if ": step " in record.getMessage()
    ]
    assert steps == [("DEBUG", "begin")] * 2 + [("DEBUG", "go")] * 2
    assert "run 'r': event received, Go" in log.text


async def test_a_retry_is_not_a_warning_and_has_its_traceback(autojump_clock, log) -> None:
    await wobbles.run(2, run_id="r")
    assert lines(log)[1:3] == [
        "INFO r wobbles wobble run 'r': step 'wobble' failed, StartEvent, "
        + log.records[1].getMessage().partition("StartEvent, ")[2],
        "INFO r wobbles wobble run 'r': step 'wobble' retried, StartEvent",
    ]
    assert log.records[1].getMessage().endswith("OSError: attempt 1")
    assert log.records[1].exc_info[0] is OSError
    assert [record for record in log.records if record.levelno >= logging.WARNING] == []


async def test_a_failed_run_is_an_error_with_the_exception_of_its_step(autojump_clock, log) -> None:
    log.set_level(logging.WARNING, "blazen_trio")
    with pytest.raises(StepFailedError) as caught:
        await wobbles.run(9, run_id="r")
    [line] = lines(log)
    failed = "workflow failed: step 'wobble' of run 'r' failed after 3"
    assert line.startswith(f"ERROR r wobbles wobble run 'r': {failed}")
    # The object itself, which error trackers inspect.
    assert log.records[0].exc_info[1] is caught.value.__cause__


async def test_a_failed_input_handler_is_an_error_with_its_exception(log) -> None:
    async def broken(_question: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(StepFailedError):
        await asks.run(run_id="r", input_handler=broken)
    assert lines(log)[-1].startswith("ERROR r asks input_handler run 'r': workflow failed: ")
    assert log.records[-1].exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize("store", [None, MemoryStore()], ids=["memory", "store"])
async def test_context_variables_set_by_a_step_are_not_seen_by_the_engines_log(log, store) -> None:
    order: ContextVar[str] = ContextVar("order", default="none")
    log.set_level(logging.DEBUG, "blazen_trio")

    @step(retry=RetryPolicy(max_attempts=2, initial_delay=0))
    async def first(ev: StartEvent) -> StopEvent:
        order.set(f"{order.get()} in its step")
        logging.getLogger("shop").warning("at work")
        if ev.data == "fails":
            raise OSError
        return StopEvent()

    seen = []

    class Look(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            seen.append((record.name, order.get()))
            return True

    log.handler.addFilter(look := Look())
    try:
        order.set("the caller's")
        await Workflow("shop", [first]).run(run_id="good", store=store)
        with pytest.raises(StepFailedError):
            await Workflow("shop", [first]).run("fails", run_id="bad", store=store)
    finally:
        log.handler.removeFilter(look)
    assert set(seen) == {
        ("blazen_trio", "the caller's"),
        ("shop", "the caller's in its step"),
    }
    messages = [record.getMessage() for record in log.records if record.name == "blazen_trio"]
    for part in ("step 'first' failed", "retried", "workflow failed", "workflow completed"):
        assert any(part in text for text in messages), part


async def test_a_record_is_one_line_whatever_was_sent(log) -> None:
    forged = "Evil\n2026-01-01 blazen_trio: all is well\r\x1b[2J\u2028"

    @step
    async def fail(ev: StartEvent) -> StopEvent:
        raise ValueError(forged)

    store = MemoryStore()
    async with open_runtime(store) as outside:
        await outside.submit("asks", run_id="r" + forged)
        await outside.send("r" + forged, DynamicEvent(forged, {}))
    async with open_runtime(store, [asks]) as runtime:
        await runtime.recover()
        with trio.fail_after(120):
            # Nothing signals it.
            while not any("rejected" in line for line in lines(log)):  # noqa: ASYNC110
                await trio.sleep(0.01)
        await runtime.cancel("r" + forged, forged)
    with pytest.raises(StepFailedError):
        await Workflow("shop", [fail]).run()
    for record in log.records:
        assert FORMAT.format(record).partition("\nTraceback")[0].isprintable()
    assert [record.getMessage() for record in log.records if "Evil\\n2026" in record.getMessage()]


async def test_a_timeout_is_a_warning(autojump_clock, log) -> None:
    @step
    async def sleep(ev: StartEvent) -> StopEvent:
        await trio.sleep_forever()
        return StopEvent()

    with pytest.raises(RunTimeoutError):
        await Workflow("slow", [sleep], timeout=10).run(run_id="r")
    assert lines(log)[-1].startswith("WARNING r slow None run 'r': workflow timed out: ")


async def test_questions_pauses_and_resumptions_are_logged_at_info(log) -> None:
    store = MemoryStore()
    async with asks.run(store=store, run_id="r") as run:
        while run.status is not RunStatus.WAITING:  # noqa: ASYNC110  # nothing signals it
            await trio.sleep(0.001)
        await run.pause()
    async with asks.resume_from("r", store=store) as run:
        await run.respond("yes")
        await run.result()
    messages = [record.getMessage().removeprefix("run 'r': ") for record in log.records]
    assert [text for text in messages if "input requested" not in text] == [
        "workflow started, StartEvent",
        "workflow paused: input",
        "workflow paused: manual",
        "workflow resumed",
        "input received, InputResponseEvent",
        "workflow completed, StopEvent",
    ]
    assert {record.levelno for record in log.records} == {logging.INFO}


async def test_actions_on_an_undriven_run_are_logged(log) -> None:
    async with open_runtime(MemoryStore()) as runtime:
        await runtime.submit("elsewhere", run_id="r")
        await runtime.cancel("r", "not needed")
    assert lines(log) == [
        "INFO r elsewhere None run 'r': submitted",
        "INFO r elsewhere None run 'r': workflow cancelled: not needed",
    ]


async def test_a_workers_json_lines_have_the_fields_that_apply(log) -> None:
    await ticks.run(run_id="r")
    found = io.StringIO()
    handler = make_handler(as_json=True, url=None, stream=found)
    for record in log.records:
        handler.emit(record)
    started, completed = map(json.loads, found.getvalue().splitlines())
    assert (started["run_id"], started["workflow"]) == ("r", "ticks")
    assert "step" not in started
    assert completed["step"] == "go"


async def test_a_run_that_did_not_start_is_not_logged(log) -> None:
    store = MemoryStore()
    await ticks.run(store=store, run_id="r")
    log.clear()
    with pytest.raises(RunExistsError):
        await ticks.run(store=store, run_id="r")
    assert log.records == []


async def test_a_lost_lease_is_a_warning(tmp_path: Path, log) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"

    @step
    async def depose(ev: StartEvent) -> StopEvent:
        # One statement on a file.
        execute(url, "UPDATE blazen_lease SET state = 0")  # noqa: ASYNC200
        return StopEvent()

    async with open_store(url) as store:
        with pytest.raises(StaleRunError):
            await Workflow("deposed", [depose]).run(store=store, run_id="r")
    [line] = [line for line in lines(log) if line.startswith("WARNING")]
    assert "is lost" in line
    assert line.endswith("runs no longer driven by this process: 1")


async def test_a_run_that_does_not_fit_its_workflow_is_logged_with_its_name(log) -> None:
    @step
    async def old(ev: StartEvent) -> StopEvent:
        scope.cancel()
        await trio.sleep_forever()
        return StopEvent()

    store = MemoryStore()
    with trio.CancelScope() as scope:
        await Workflow("changed", [old]).run(store=store, run_id="r")
    async with open_runtime(store, [Workflow("changed", [begin, go])]) as runtime:
        await runtime.recover()
    assert lines(log)[-1].startswith(
        "WARNING r changed None run 'r' does not fit its workflow in this process"
    )
