"""The traceback of a failed step is available, as text, in other processes."""

from __future__ import annotations

from typing import Any

import pytest

from blazen_trio import (
    InputRequestEvent,
    InputResponseEvent,
    MemoryStore,
    RetryPolicy,
    Snapshot,
    StartEvent,
    StepFailedError,
    StepOutputError,
    StopEvent,
    Workflow,
    open_runtime,
    step,
)


def look_up(password: str) -> None:
    raise KeyError("tea")


async def failure_of(
    fail: Any, **options: Any
) -> tuple[StepFailedError, StepFailedError, Snapshot]:
    """Return the errors raised by the driving process and by another one, and the stored text."""
    flow = Workflow("fails", [step(name="fail", **options)(fail)])
    store = MemoryStore()
    with pytest.raises(StepFailedError) as here:
        await flow.run(store=store, run_id="run")
    async with store.beside() as other, open_runtime(other) as runtime:
        with pytest.raises(StepFailedError) as there:
            await runtime.result("run")
    return here.value, there.value, await store.load_snapshot("run")


async def test_a_stored_traceback_has_causes_and_no_frames_of_the_engine() -> None:
    async def fail(ev: StartEvent) -> StopEvent:
        try:
            look_up("sesame")
        except KeyError as error:
            error.add_note("it is in the kitchen")
            raise RuntimeError("no tea") from error
        return StopEvent()

    here, there, snapshot = await failure_of(fail)
    assert there.__cause__ is None
    assert here.traceback == there.traceback == snapshot.traceback
    lines = there.traceback.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "RuntimeError: no tea"
    for told in (
        "KeyError: 'tea'",
        "it is in the kitchen",
        "direct cause",
        "look_up",
        'raise KeyError("tea")',
    ):
        assert told in there.traceback
    frames = [line for line in lines if line.startswith("  File ")]
    assert [line.rpartition(" ")[2] for line in frames] == ["fail", "look_up", "fail"]
    assert Snapshot.from_json(snapshot.to_json()).traceback == there.traceback
    assert snapshot.error == "step 'fail' of run 'run' failed: RuntimeError: no tea"


async def test_the_traceback_of_a_step_in_a_thread_starts_with_the_step() -> None:
    def fail(ev: StartEvent) -> StopEvent:
        look_up("sesame")
        return StopEvent()

    _, there, _ = await failure_of(fail)
    assert "in fail\n" in there.traceback.splitlines(keepends=True)[1]


async def test_the_stored_traceback_is_that_of_the_last_attempt(autojump_clock: Any) -> None:
    attempts = []

    async def fail(ev: StartEvent) -> StopEvent:
        attempts.append(1)
        raise OSError(f"failure {len(attempts)}")

    _, there, _ = await failure_of(fail, retry=RetryPolicy(max_attempts=3))
    assert there.traceback.endswith("OSError: failure 3\n")


async def test_the_end_of_a_long_traceback_is_kept() -> None:
    def deep(n: int) -> None:
        deeper(n + 1)

    def deeper(n: int) -> None:
        deep(n + 1)

    async def fail(ev: StartEvent) -> StopEvent:
        try:
            deep(0)
        except RecursionError as error:
            raise ValueError("x" * 20_000 + " end") from error
        return StopEvent()

    _, there, _ = await failure_of(fail)
    assert len(there.traceback.encode()) <= 16 * 1024 + 4
    assert there.traceback.startswith("...\n")
    assert there.traceback.endswith("x end\n")


async def test_an_exception_that_can_not_be_formatted_still_fails_the_run() -> None:
    class BadError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("never")

    async def fail(ev: StartEvent) -> StopEvent:
        raise BadError("\udcff")

    _, there, _ = await failure_of(fail)
    assert "BadError" in there.traceback.splitlines()[-1]


async def test_a_traceback_that_is_not_unicode_is_stored() -> None:
    async def fail(ev: StartEvent) -> StopEvent:
        raise OSError("\udcff.txt")

    _, there, _ = await failure_of(fail)
    assert there.traceback.splitlines()[-1] == "OSError: \\udcff.txt"


async def test_an_error_of_the_engine_has_no_frames() -> None:
    async def fail(ev: StartEvent) -> StopEvent:
        return StartEvent()  # type: ignore[return-value]

    _, there, _ = await failure_of(fail)
    assert isinstance(there, StepOutputError)
    assert "File" not in there.traceback


async def test_the_traceback_of_a_failing_input_handler_is_stored() -> None:
    @step
    async def ask(ev: StartEvent) -> InputRequestEvent:
        return InputRequestEvent("tea?")

    @step
    async def end(ev: InputResponseEvent) -> StopEvent:
        return StopEvent()

    async def handler(request: InputRequestEvent) -> None:
        look_up("sesame")

    with pytest.raises(StepFailedError) as failed:
        await Workflow("asks", [ask, end], input_handler=handler).run()
    assert "in handler\n" in failed.value.traceback
    assert "in look_up\n" in failed.value.traceback


async def test_a_resumed_run_has_no_traceback() -> None:
    store = MemoryStore()
    failing = True

    @step
    async def fail(ev: StartEvent) -> StopEvent:
        if failing:
            look_up("sesame")
        return StopEvent()

    flow = Workflow("fails", [fail])
    with pytest.raises(StepFailedError):
        await flow.run(store=store, run_id="run")
    failing = False
    await flow.resume_from("run", store=store)
    assert (await store.load_snapshot("run")).traceback is None
