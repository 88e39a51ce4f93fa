"""The public API as a user's type checker sees it. Checked by mypy and pyright, never run."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar, assert_type

import attrs

import blazen_trio
from blazen_trio import (
    CheckpointStore,
    Context,
    Delayed,
    DynamicEvent,
    Event,
    EventStream,
    HistoryRecord,
    InputRequestEvent,
    InputRequiredError,
    InputResponseEvent,
    Lagged,
    LifecycleEvent,
    MemoryStore,
    RetryPolicy,
    Run,
    RunCancelledError,
    RunInfo,
    RunPausedError,
    RunStatus,
    Runtime,
    RuntimeStatistics,
    Snapshot,
    StartEvent,
    StepFailedError,
    StepFailedEvent,
    StopEvent,
    Workflow,
    WorkflowError,
    WorkflowValidationError,
    open_runtime,
    open_store,
    step,
)
from blazen_trio.pictures import timeline_html, timeline_svg
from blazen_trio.stores import StoredRun, StoreQueries
from blazen_trio.telemetry import instrument, uninstrument
from blazen_trio.testing import FaultyStore, StepTrial, check_store, run_without_waiting, try_step


@attrs.frozen
class Order(Event):
    """An event with a stable name, a version and an upcast."""

    event_type: ClassVar[str] = "orders.Order"
    schema_version: ClassVar[int] = 2

    number: int

    @classmethod
    def upcast(cls, data: dict[str, Any], version: int) -> dict[str, Any]:
        """Convert version 1, in which the number had another name."""
        return {"number": data["no"]} if version == 1 else data


@attrs.frozen
class Shipped(Event):
    """Another event."""

    number: int


@step
async def begin(ev: StartEvent) -> list[Order]:
    """Fan out."""
    return [Order(number) for number in ev.data]


@step(
    name="ship",
    timeout=30,
    max_concurrency=4,
    retry=RetryPolicy(
        max_attempts=5,
        initial_delay=0.5,
        max_delay=30.0,
        multiplier=2.0,
        jitter=0.1,
        max_elapsed=600.0,
        retry_on=(OSError, TimeoutError),
    ),
)
async def ship(ev: Order, ctx: Context) -> Shipped | Delayed[Order] | None:
    """Use the whole context."""
    assert_type(ctx.run_id, str)
    assert_type(ctx.workflow_name, str)
    assert_type(ctx.step_name, str)
    assert_type(ctx.attempt, int)
    assert_type(ctx.idempotency_key, str)
    owner = ctx.metadata.get("owner")
    ctx.set("owner", owner)
    ctx.update("shipped", lambda n: n + 1, default=0)
    ctx.delete("owner")
    assert_type(ctx.get("shipped", 0, type=int), int)
    ctx.publish(Lagged(1))
    ctx.send(Shipped(ev.number))
    pair = ctx.collect(ev, [Order, Order])
    if pair is None:
        return Delayed(ev, 5)
    return Shipped(ev.number) if owner else None


@step(accepts=[Shipped], emits=[StopEvent])
def close(ev: Shipped) -> StopEvent:
    """A synchronous step, declared by hand."""
    return StopEvent(ev.number)


@step(handles=["ship"])
async def failed(ev: StepFailedEvent) -> StopEvent:
    """Handle a step that has failed for good."""
    return StopEvent(f"{ev.step_name}: {ev.error_type}: {ev.message} after {ev.attempts}")


class Service:
    """A class whose methods are steps."""

    @step
    async def answer(self, ev: InputResponseEvent) -> StopEvent:
        """A step that is a method."""
        return StopEvent(ev.response)


async def answer(request: InputRequestEvent) -> object:
    """An input handler."""
    return f"{request.prompt}: yes"


orders = Workflow(
    "orders",
    [begin, ship, close, failed, Service().answer],
    version="2",
    timeout=None,
    input_handler=answer,
    publish_lifecycle=True,
    history=True,
    max_concurrency=100,
    durability="async",
    external=[InputResponseEvent],
    types=[Order],
)


async def steps_stay_functions() -> None:
    """Call steps, which keep their signatures."""
    assert_type(await begin(StartEvent([1])), list[Order])
    assert_type(close(Shipped(1)), StopEvent)


async def verbs(store: CheckpointStore, saved: Snapshot) -> None:
    """Await and enter what each verb returns."""
    await orders.run()
    await orders.run(
        [1, 2], run_id="r", metadata={"owner": "ann"}, store=store, durability="exit", timeout=5
    )
    await orders.resume(saved, store=store)
    await orders.resume_with_input(saved, InputResponseEvent("q", "yes"), input_handler=answer)
    await orders.resume_from("r", store=store, durability="sync")
    async with orders.run([1]) as run:
        await handle(run)
    async with orders.resume_from("r", store=store) as run:
        await handle(run)


async def handle(run: Run) -> None:
    """Use the whole handle."""
    assert_type(run.run_id, str)
    assert_type(run.status, RunStatus)
    async for event in run.stream(buffer=16):
        if isinstance(event, LifecycleEvent):
            assert_type(event.duration, float | None)
        elif isinstance(event, DynamicEvent):
            assert_type(event.data, dict[str, Any])
    snapshot = await run.pause(grace=1.0)
    assert_type(snapshot, Snapshot)
    await run.unpause()
    await run.send(Order(1))
    await run.respond(InputResponseEvent("q"))
    for request in run.input_requests:
        print(request)
    run.cancel("enough")
    print(await run.result())


async def snapshots(run: Run) -> None:
    """Use a snapshot's round trips and fields."""
    snapshot = await run.snapshot()
    text = snapshot.to_json()
    packed = snapshot.to_msgpack()
    assert_type(Snapshot.from_json(text), Snapshot)
    assert_type(Snapshot.from_msgpack(packed), Snapshot)
    assert_type(snapshot.run_id, str)
    assert_type(snapshot.status, RunStatus)
    assert_type(snapshot.elapsed, float)
    assert_type(snapshot.seq, int)
    assert_type([question.request_id for question in snapshot.input_requests], list[str])


async def pictures(snapshot: Snapshot) -> None:
    """Draw workflows and runs."""
    assert_type(orders.to_mermaid(), str)
    assert_type(orders.to_dot(snapshot), str)
    assert_type(orders.to_svg(run=snapshot), str)
    assert_type(timeline_svg(snapshot), str)
    assert_type(timeline_html(snapshot), str)
    assert_type(timeline_html(snapshot, orders), str)


async def stores() -> None:
    """Use the queries of both stores."""
    memory: CheckpointStore = MemoryStore()
    await verbs(memory, Snapshot.from_json(b"{}"))
    async with open_store("sqlite:///runs.db") as store:
        wanted: CheckpointStore = store
        assert_type(
            await wanted.list_runs(status=RunStatus.FAILED, workflow="orders", limit=10),
            list[RunInfo],
        )
        assert_type(await store.get_run("r"), RunInfo)
        assert_type(await wanted.list_runs(status=[RunStatus.FAILED, "paused"]), list[RunInfo])
        for record in await wanted.history("r"):
            assert_type(record, HistoryRecord)
        assert_type(await wanted.load_snapshot("r"), Snapshot)
        await store.delete_run("r")
        assert_type(
            await store.purge(older_than=dt.timedelta(days=30), status=[RunStatus.COMPLETED]), int
        )


async def runtimes(runtime: Runtime) -> None:
    """Use runs by their ids."""
    assert_type(await runtime.get("r"), Run | None)
    assert_type(await runtime.submit("orders", 1), str)
    assert_type(await runtime.start(orders, [1], run_id="r"), Run)
    assert_type(await runtime.recover(), list[str])
    assert_type(await runtime.pause("r", grace=1.0), Snapshot)
    assert_type(runtime.statistics(), RuntimeStatistics)
    async with open_runtime(MemoryStore(), [orders], max_concurrent_runs=10) as other:
        assert_type(other, Runtime)
    # Misspelt names are found, although some names are imported on first use.
    print(blazen_trio.Runtim)  # type: ignore[attr-defined]


class OwnStore(StoreQueries):
    """A store that has the queries because it can load runs."""

    async def load(self, run_id: str) -> StoredRun:
        """See `CheckpointStore.load`."""
        raise NotImplementedError(run_id)


async def tests(run: Run, own: OwnStore) -> None:
    """Use the helpers for users' tests."""
    trial = await try_step(orders, "ship", Order(1), state={"shipped": 1})
    assert_type(trial, StepTrial)
    assert_type(trial.state, dict[str, Any])
    assert_type(run_without_waiting(own.load_snapshot, "r"), Snapshot)
    wrapped: CheckpointStore = FaultyStore(MemoryStore(), fail_after=3)
    await verbs(wrapped, await own.load_snapshot("r"))
    await check_store(MemoryStore)
    async with run.stream() as stream:
        assert_type(stream, EventStream)


def traced() -> None:
    """Choose the providers of spans and metrics."""
    instrument()
    instrument(tracer_provider=None, meter_provider=None)
    uninstrument()


async def errors(store: CheckpointStore) -> None:
    """Use the attributes of errors."""
    try:
        await orders.resume_from("r", store=store)
    except InputRequiredError as error:
        print(error.request, error.requests, error.snapshot)
    except RunPausedError as error:
        print(error.snapshot)
    except StepFailedError as error:
        assert_type(error.step_name, str)
        assert_type(error.attempts, int)
    except RunCancelledError as error:
        assert_type(error.reason, str | None)
    except WorkflowValidationError as error:
        assert_type(error.errors, tuple[str, ...])
    except WorkflowError as error:
        assert_type(error.run_id, str | None)
