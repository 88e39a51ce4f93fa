"""Inbox messages that can't be read are recorded as rejected, and break nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from blazen_trio import (
    DynamicEvent,
    InputRequestEvent,
    InputRequiredError,
    InputResponseEvent,
    RunCancelledError,
    StartEvent,
    StopEvent,
    Workflow,
    open_runtime,
    step,
)
from tests.runtime.flows import ALL, Approved, approvals, serving, status_is, until

FAST: Any = {"poll_interval": 0.05}


def message(event: Any, **parts: Any) -> bytes:
    return json.dumps({"f": 1, "event": event, "seconds": None, "answers": None, **parts}).encode()


UNREADABLE = [
    b"",
    b"\xff\x00 no JSON",
    b"[]",
    b"{}",
    message(None),
    message(["Approved", {"by": 7}]),
    message(["Approved", {"by": "ann"}, 2]),
    message(["Approved", {"by": "ann"}], seconds="soon"),
    message(["Approved", {"by": "ann"}], seconds=-1),
    message(["Approved", {"by": "ann"}], f=99),
    message(["StopEvent", {"result": 1}]),
]


async def rejections(store: Any, run_id: str) -> list[tuple[str | None, str | None]]:
    return [
        (each.event_type, each.error)
        for each in await store.history(run_id)
        if each.kind == "event_rejected"
    ]


async def test_an_event_with_other_fields_is_rejected_and_all_runs_continue(opened: Any) -> None:
    async with opened() as here, opened() as there, open_runtime(here, **FAST) as front:
        async with serving(there, **FAST):
            await front.submit("approvals", 1, run_id="other")
            await front.submit("approvals", 1, run_id="run")
            await until(status_is(here, "run", "waiting"))
            await front.send("run", DynamicEvent("Approved", {"name": "ann"}))
            await front.send("run", Approved("ann"))
            await front.send("other", Approved("bob"))
            assert await front.result("run") == ["ann"]
            assert await front.result("other") == ["bob"]
        [(event_type, error)] = await rejections(here, "run")
        assert event_type == "Approved"
        assert error is not None
        assert "missing: by; unknown: 'name'" in error


@pytest.mark.parametrize("driven", [True, False])
async def test_unreadable_messages_are_rejected(opened: Any, driven: bool) -> None:
    async with opened() as here, opened() as there, open_runtime(here, **FAST) as front:
        await front.submit("approvals", 1, run_id="run")
        async with serving(there, **FAST):
            if driven:
                await until(status_is(here, "run", "waiting"))
                for data in UNREADABLE:
                    await here.post("run", "event", data)
        if not driven:
            for data in UNREADABLE:
                await here.post("run", "event", data)
        await here.post("run", "no such kind", b"")
        async with serving(there, **FAST):
            await front.send("run", Approved("ann"))
            assert await front.result("run") == ["ann"]
        assert len(await rejections(here, "run")) == len(UNREADABLE) + 1
        assert not (await here.load("run")).inbox


async def test_a_standalone_run_rejects_unreadable_messages(opened: Any) -> None:
    async with (
        opened() as here,
        opened() as there,
        approvals.run(1, store=there, run_id="run") as run,
    ):
        for data in UNREADABLE:
            await here.post("run", "event", data)
        await here.post("run", "event", message(["Approved", {"by": "ann"}]))
        assert await run.result() == ["ann"]
        assert len(await rejections(here, "run")) == len(UNREADABLE)


async def test_a_question_with_an_unreadable_answer_stays_open(opened: Any) -> None:
    async with opened() as here, opened() as there, open_runtime(here, **FAST) as front:
        await front.submit("asks", "Ship it", run_id="run")
        async with serving(there, **FAST):
            with pytest.raises(InputRequiredError) as asked:
                await front.result("run")
            request_id = asked.value.request.request_id
            await here.post(
                "run",
                "event",
                message(["InputResponseEvent", {"answer": "yes"}], answers=request_id),
            )

            async def rejected() -> bool:
                return bool(await rejections(here, "run"))

            await until(rejected)
            await here.post("run", "event", b"no JSON")
            await front.respond("run", "yes")
            assert await front.result("run") == "yes"


async def test_a_cancellation_with_an_unreadable_reason_still_cancels(opened: Any) -> None:
    async with opened() as here, opened() as there, open_runtime(here, ALL, **FAST) as front:
        await front.submit("approvals", 1, run_id="run")
        async with serving(there, **FAST):
            await until(status_is(here, "run", "waiting"))
            await here.post("run", "cancel", b'{"f": 1, "reason": {}}')
            with pytest.raises(RunCancelledError) as caught:
                await front.result("run")
        assert caught.value.reason is None


async def test_a_question_with_the_id_of_an_open_one_is_rejected(opened: Any) -> None:
    @step
    async def begin(ev: StartEvent) -> InputRequestEvent:
        return InputRequestEvent("first", request_id="one")

    @step
    async def note(ev: InputRequestEvent) -> None:
        pass

    @step
    async def end(ev: InputResponseEvent) -> StopEvent:
        return StopEvent(ev.response)

    workflow = Workflow("asked", [begin, note, end])
    async with opened() as here, opened() as there, open_runtime(here, **FAST) as front:
        await front.submit("asked", run_id="run")
        async with serving(there, [workflow], **FAST):
            await until(status_is(here, "run", "waiting"))
            await front.send("run", InputRequestEvent("second", request_id="one"))
            await front.respond("run", "yes")
            assert await front.result("run") == "yes"
        [(event_type, error)] = await rejections(here, "run")
        assert event_type == "InputRequestEvent"
        assert error is not None
        assert "'one'" in error
