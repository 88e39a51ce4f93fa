"""One trace across crashes, processes and waits."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from opentelemetry.trace import StatusCode

from blazen_trio import MemoryStore, RunStatus, Snapshot, open_runtime, open_store
from tests.telemetry.seen import Seen, asks, parent_of, ticks, wobbles

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

CHILD = Path(__file__).with_name("child.py")


def test_a_killed_process_and_its_successor_share_a_trace(tmp_path: Path) -> None:
    url, lines = f"sqlite:///{tmp_path / 'runs.db'}", tmp_path / "spans"
    command = [sys.executable, "-W", "error", str(CHILD), url]
    with subprocess.Popen(
        [*command, "stay", str(lines)], stdout=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stdout.readline().startswith("here")
        killed.kill()
    done = subprocess.run([*command, "go", str(lines)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "gone\n"), done.stderr
    spans = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [(name, about.get("step_name")) for name, _, _, _, about in spans] == [
        ("workflow.step", "begin"),  # the first process's
        ("workflow.step", "go"),
        ("workflow.run", None),
    ]
    (_, first_trace, _, first_run, _), (_, _, _, second_run, _), (_, _, run_id, run_parent, _) = (
        spans
    )
    assert {trace_id for _, trace_id, _, _, _ in spans} == {first_trace}
    # The successor's run is a child of the first process's, which was killed before its span ended.
    assert run_parent == first_run
    assert second_run == run_id != first_run


async def test_a_run_that_another_process_submitted_is_a_child_of_its_submitters_span(
    seen: Seen,
) -> None:
    store = MemoryStore()
    with seen.tracers.get_tracer("web").start_as_current_span("POST /orders") as request:
        async with store.beside() as front, open_runtime(front) as runtime:
            run_id = await runtime.submit("ticks")
    async with store.beside() as worker, open_runtime(worker, [ticks]) as runtime:
        await runtime.recover()
        await runtime.result(run_id)
    run = seen.span("workflow.run")
    assert parent_of(run) == request.get_span_context().span_id
    assert {span.context.trace_id for span in seen.spans()} == {request.get_span_context().trace_id}


async def test_a_run_that_was_submitted_without_a_span_has_its_first_drivers_trace(
    seen: Seen,
) -> None:
    store = MemoryStore()
    async with open_runtime(store, [asks]) as runtime:
        run_id = await runtime.submit(asks)
        await runtime.recover()
        await until_waits(store, run_id)
    async with asks.resume_from(run_id, store=store) as run:
        await run.respond("yes")
        await run.result()
    first, second = seen.spans("workflow.run")
    assert parent_of(first) is None
    assert parent_of(second) == first.context.span_id


async def until_waits(store: Any, run_id: str) -> None:
    # Nothing signals it.
    while (await store.get_run(run_id)).status is not RunStatus.WAITING:  # noqa: ASYNC110
        await trio.sleep(0.001)


async def left_waiting(store: Any) -> Snapshot:
    """Leave a run while it waits for an answer. Return its snapshot."""
    with trio.CancelScope() as scope:
        async with asks.run(store=store, run_id="r"):
            await until_waits(store, "r")
            scope.cancel()
            await trio.lowlevel.checkpoint()
    return await store.load_snapshot("r")


async def test_the_span_that_resumes_a_run_is_linked_to_it(tmp_path: Path, seen: Seen) -> None:
    for _ in range(2):
        async with open_store(f"sqlite:///{tmp_path / 'runs.db'}") as store:
            if not await store.list_runs():
                await left_waiting(store)
                continue
            with seen.tracers.get_tracer("web").start_as_current_span("resume") as asked:
                async with asks.resume_from("r", store=store) as run:
                    await run.respond("yes")
                    await run.result()
    first, second = seen.spans("workflow.run")
    assert first.attributes["status"] == "waiting"
    assert parent_of(second) == first.context.span_id
    assert [link.context.span_id for link in second.links] == [asked.get_span_context().span_id]
    # One pause lasts from one process to the next, and one there until the answer has come through
    # the inbox.
    traces = [span.context.trace_id for span in seen.spans("workflow.pause")]
    assert traces == [first.context.trace_id] * 2
    assert {span.status.status_code for span in seen.spans()} == {StatusCode.UNSET}


@pytest.mark.parametrize("form", ["json", "msgpack"])
async def test_a_snapshot_carries_the_trace(form: str, seen: Seen) -> None:
    snapshot = await left_waiting(MemoryStore())
    if form == "json":
        snapshot = Snapshot.from_json(snapshot.to_json())
    else:
        snapshot = Snapshot.from_msgpack(snapshot.to_msgpack())
    assert await asks.resume_with_input(snapshot, "yes", store=MemoryStore()) == "yes"
    first, second = seen.spans("workflow.run")
    assert parent_of(second) == first.context.span_id


async def test_a_trace_survives_the_folding_of_the_journal(tmp_path: Path, seen: Seen) -> None:
    async with open_store(f"sqlite:///{tmp_path / 'runs.db'}") as store:
        with trio.CancelScope() as scope:
            async with asks.run(store=store, run_id="r", durability="exit"):
                await until_waits(store, "r")
                assert (await store.load("r")).entries == ()
                scope.cancel()
                await trio.lowlevel.checkpoint()
        async with asks.resume_from("r", store=store) as run:
            await run.respond("yes")
            await run.result()
    first, second = seen.spans("workflow.run")
    assert parent_of(second) == first.context.span_id


async def test_a_run_that_is_parked_and_resumed_has_one_trace(autojump_clock, seen: Seen) -> None:
    store = MemoryStore()
    async with open_runtime(store, [wobbles]) as runtime:
        run_id = (await runtime.start(wobbles, 3)).run_id
        await trio.sleep(3)
        assert runtime.statistics().resting == 1
        await trio.sleep(100)
    assert (await store.get_run(run_id)).status is RunStatus.COMPLETED
    runs = seen.spans("workflow.run")
    assert [one.attributes["status"] for one in runs] == ["waiting", "waiting", "completed"]
    assert [parent_of(one) for one in runs] == [None, *[runs[0].context.span_id] * 2]
    attempts = seen.spans("workflow.step")
    assert [parent_of(one) for one in attempts] == [one.context.span_id for one in runs]


async def test_a_started_run_is_a_child_of_its_starters_span(seen: Seen) -> None:
    async with open_runtime(MemoryStore(), [ticks]) as runtime:
        with seen.tracers.get_tracer("web").start_as_current_span("POST /orders") as request:
            run = await runtime.start(ticks)
        await run.result()
    assert parent_of(seen.span("workflow.run")) == request.get_span_context().span_id


@pytest.mark.parametrize("invalid", ['{"traceparent":"nonsense"}', "{}"])
async def test_an_invalid_stored_context_is_not_used_as_a_parent(invalid: str, seen: Seen) -> None:
    snapshot = await left_waiting(MemoryStore())
    text = with_trace(snapshot, invalid)
    assert await asks.resume_with_input(Snapshot.from_json(text), "yes") == "yes"
    assert parent_of(seen.spans("workflow.run")[1]) is None


def with_trace(snapshot: Snapshot, trace: str) -> str:
    document = json.loads(snapshot.to_json())
    assert document["trace"]["traceparent"].startswith("00-")
    return json.dumps({**document, "trace": json.loads(trace)})


def spans_by_run(spans: list[ReadableSpan]) -> dict[Any, set[int]]:
    found: dict[Any, set[int]] = {}
    for span in spans:
        found.setdefault(span.attributes["run_id"], set()).add(span.context.trace_id)
    return found


async def test_concurrent_runs_have_separate_traces(seen: Seen) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(partial(ticks.run, run_id=str(number)))
    traces = spans_by_run(seen.spans())
    assert all(len(found) == 1 for found in traces.values())
    assert len(set.union(*traces.values())) == len(traces) == 10
