"""Each call on a run in each status, without a store, on a MemoryStore and on SQLite.

Queued runs, `serve()` and `recover()` are tested in tests/runtime.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from blazen_trio import (
    Event,
    InputRequestEvent,
    InputRequiredError,
    InputResponseEvent,
    MemoryStore,
    Run,
    RunCancelledError,
    RunFinishedError,
    RunLockedError,
    RunPausedError,
    RunStatus,
    RunTimeoutError,
    StartEvent,
    StepFailedError,
    StopEvent,
    Workflow,
    open_store,
    step,
)


@attrs.frozen
class Nudge(Event):
    text: str


@attrs.frozen
class Slow(Event):
    pass


FIXED = False


@step
async def begin(ev: StartEvent) -> Slow | InputRequestEvent | StopEvent:
    if ev.data == "waiting":
        return InputRequestEvent("well?")
    if ev.data == "completed":
        return StopEvent("result")
    if ev.data == "failed" and not FIXED:
        msg = "broken"
        raise ValueError(msg)
    return Slow()


@step
async def work(ev: Slow) -> StopEvent:
    await trio.sleep(30)
    return StopEvent("result")


@step
async def take(ev: Nudge | InputResponseEvent) -> StopEvent:
    return StopEvent(ev.text if isinstance(ev, Nudge) else ev.response)


WORKFLOW = Workflow("each status", [begin, work, take], external=[Nudge], timeout=100)
STATUSES = ["running", "paused", "waiting", "completed", "failed", "timed_out", "cancelled"]
ENDED = ["completed", "failed", "timed_out", "cancelled"]
ERRORS = {"failed": StepFailedError, "timed_out": RunTimeoutError, "cancelled": RunCancelledError}
STORES = ["none", "memory", "sqlite"]

everywhere = pytest.mark.parametrize("kind", STORES)
in_every_status = pytest.mark.parametrize("status", STATUSES)
when_ended = pytest.mark.parametrize("status", ENDED)


@asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncIterator[Any]:
    if kind == "sqlite":
        async with open_store(f"sqlite:///{folder / 'runs.db'}") as store:
            yield store
    else:
        yield None if kind == "none" else MemoryStore()


@asynccontextmanager
async def run_in(status: str, store: Any, run_id: str = "run") -> AsyncIterator[Run]:
    """Bring a run into a status. It is cancelled at the end of the block, unless it has ended."""
    start = WORKFLOW.run(
        status, store=store, run_id=run_id, timeout=0.01 if status == "timed_out" else 100
    )
    try:
        async with start as run:
            await bring(run, status)
            yield run
            if run.status.value in ("running", "waiting"):
                run.cancel()
    except (StepFailedError, RunTimeoutError, RunCancelledError):
        assert status in ERRORS


async def bring(run: Run, status: str) -> None:
    if status == "running":
        await trio.testing.wait_all_tasks_blocked()
    elif status == "paused":
        await run.pause(grace=0)
    elif status == "waiting":
        with pytest.raises(InputRequiredError):
            await run.result()
    elif status == "completed":
        await run.result()
    elif status == "cancelled":
        run.cancel("enough")
    if status in ERRORS:
        with pytest.raises(ERRORS[status]):
            await run.result()
    assert run.status is RunStatus(status)


@everywhere
@in_every_status
async def test_result_in_each_status(kind: str, status: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as store, run_in(status, store) as run:
        if status == "running":
            with trio.move_on_after(0.05) as scope:
                await run.result()
            assert scope.cancelled_caught
        elif status == "completed":
            assert await run.result() == "result"
        else:
            error = {"paused": RunPausedError, "waiting": InputRequiredError, **ERRORS}[status]
            found = []
            for _ in range(2):
                with pytest.raises(error) as caught:
                    await run.result()
                found.append(caught.value)
            assert found[0] is not found[1]
            assert found[0].__cause__ is found[1].__cause__
            assert found[0].run_id == "run"


@everywhere
@in_every_status
async def test_stream_in_each_status(kind: str, status: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as store, run_in(status, store) as run:
        events = []
        with trio.move_on_after(0.05) as scope:
            async for event in run.stream():
                events.append(event)
        assert scope.cancelled_caught == (status not in ENDED)
        assert events == ([StopEvent("result")] if status == "completed" else [])


@everywhere
@in_every_status
async def test_send_in_each_status(kind: str, status: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as store, run_in(status, store) as run:
        if status in ENDED:
            with pytest.raises(RunFinishedError) as caught:
                await run.send(Nudge("sent"))
            assert caught.value.status is RunStatus(status)
            return
        assert await run.send(Nudge("sent"))
        if status == "paused":
            with pytest.raises(RunPausedError):
                await run.result()
            await run.unpause()
        assert await run.result() == "sent"


@everywhere
@in_every_status
async def test_respond_in_each_status(kind: str, status: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as store, run_in(status, store) as run:
        if status in ENDED:
            with pytest.raises(RunFinishedError):
                await run.respond("answer")
        elif status == "waiting":
            await run.respond(InputResponseEvent(run.input_requests[0].request_id, "answer"))
            assert await run.result() == "answer"


@everywhere
@in_every_status
async def test_pause_and_unpause_in_each_status(kind: str, status: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as store, run_in(status, store) as run:
        if status in ENDED:
            with pytest.raises(RunFinishedError):
                await run.pause()
            with pytest.raises(RunFinishedError):
                await run.unpause()
            return
        if status != "paused":
            await run.unpause()
            assert run.status is RunStatus(status)
        snapshot = await run.pause(grace=0)
        assert snapshot.status is RunStatus.PAUSED
        assert run.status is RunStatus.PAUSED
        assert len(snapshot.deliveries) == (status != "waiting")
        await run.unpause()
        assert run.status is not RunStatus.PAUSED


@everywhere
@in_every_status
async def test_snapshot_in_each_status(kind: str, status: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as store, run_in(status, store) as run:
        snapshot = await run.snapshot()
        assert snapshot.status is RunStatus(status)
        assert snapshot.result == ("result" if status == "completed" else None)
        assert run.status is RunStatus(status)
        if store is not None:
            assert (await store.load_snapshot("run")).seq == snapshot.seq


@everywhere
@in_every_status
async def test_cancel_in_each_status(kind: str, status: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as store:
        async with run_in(status, store) as run:
            run.cancel("why not")
            if status in ENDED:
                assert run.status is RunStatus(status)
                return
            with pytest.raises(RunCancelledError) as caught:
                await run.result()
            assert caught.value.reason == "why not"
        assert run.status is RunStatus.CANCELLED


@pytest.mark.parametrize(
    "kind", ["none", "memory"]
)  # the mock clock would jump while a database's thread is at work
@in_every_status
async def test_the_end_of_the_block_in_each_status(
    kind: str, status: str, tmp_path: Path, autojump_clock: Any
) -> None:
    async with opened(kind, tmp_path) as store:
        timeout = 0.01 if status == "timed_out" else 100
        caught: BaseException | None = None
        try:
            async with WORKFLOW.run(status, store=store, run_id="run", timeout=timeout) as run:
                if status == "paused":
                    await run.pause(grace=0)
                elif status == "cancelled":
                    run.cancel()
        except Exception as error:  # its type is checked below
            caught = error
        ends: dict[str, Any] = {"waiting": InputRequiredError, **ERRORS, "cancelled": None}
        assert type(caught) is (ends.get(status) or type(None))
        assert run.status.value == ("completed" if status == "running" else status)


@everywhere
@when_ended
async def test_the_end_of_the_block_does_not_raise_an_error_again(
    kind: str, status: str, tmp_path: Path
) -> None:
    async with opened(kind, tmp_path) as store:
        async with WORKFLOW.run(
            status, store=store, timeout=0.01 if status == "timed_out" else 100
        ) as run:
            await bring(run, status)
        assert run.status is RunStatus(status)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("how", ["outer cancel", "error in the block"])
@pytest.mark.parametrize("status", ["running", "paused", "waiting"])
async def test_a_block_that_is_cancelled_or_raises(
    kind: str, how: str, status: str, tmp_path: Path
) -> None:
    async with opened(kind, tmp_path) as store:
        with trio.CancelScope() as scope:
            try:
                async with WORKFLOW.run(status, store=store, run_id="run") as run:
                    await bring(run, status)
                    if how == "outer cancel":
                        scope.cancel()
                        await trio.sleep_forever()
                    msg = "the block's own"
                    raise LookupError(msg)
            except LookupError:
                assert how != "outer cancel"
        assert scope.cancelled_caught == (how == "outer cancel")
        # Its status is unchanged, and it is undriven.
        assert (await store.get_run("run")).status is RunStatus(status)
        assert (await store.claim("run")).info.status is RunStatus(status)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@in_every_status
async def test_resume_from_an_undriven_run_in_each_status(
    kind: str, status: str, tmp_path: Path, monkeypatch: Any
) -> None:
    async with opened(kind, tmp_path) as store:
        if status in ("running", "waiting"):
            with trio.CancelScope() as scope:
                async with WORKFLOW.run(status, store=store, run_id="run") as run:
                    await bring(run, status)
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
        else:
            async with run_in(status, store):
                pass
        monkeypatch.setattr(f"{__name__}.FIXED", True)
        # A run that timed out had a short timeout, which a busy machine would use up again.
        async with WORKFLOW.resume_from("run", store=store, timeout=100) as run:
            if status == "completed":
                assert await run.result() == "result"
                return
            if status == "waiting":
                with pytest.raises(InputRequiredError):
                    await run.result()
                await run.respond("answer")
                assert await run.result() == "answer"
                return
            await trio.testing.wait_all_tasks_blocked()
            assert run.status is RunStatus.RUNNING
            await run.send(Nudge("go on"))
            assert await run.result() == "go on"


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("status", ["running", "paused", "waiting"])
async def test_resume_from_a_driven_run_in_each_status(
    kind: str, status: str, tmp_path: Path
) -> None:
    async with opened(kind, tmp_path) as store, run_in(status, store) as run:
        with pytest.raises(RunLockedError) as caught:
            await WORKFLOW.resume_from("run", store=store)
        assert caught.value.run_id == "run"
        assert run.status is RunStatus(status)
        if kind == "sqlite":
            async with open_store(f"sqlite:///{tmp_path / 'runs.db'}") as other:
                with pytest.raises(RunLockedError):
                    await WORKFLOW.resume_from("run", store=other)


@pytest.mark.parametrize("kind", ["none", "memory"])
@pytest.mark.parametrize("status", ["running", "paused", "waiting"])
async def test_the_timeout_in_each_status(
    kind: str, status: str, tmp_path: Path, autojump_clock: Any
) -> None:
    async with (
        opened(kind, tmp_path) as store,
        WORKFLOW.run(status, store=store, timeout=20) as run,
    ):
        if status == "running":
            with pytest.raises(RunTimeoutError):
                await run.result()
            return
        await bring(run, status)
        await trio.sleep(1000)
        assert run.status is RunStatus(status)
        run.cancel()
