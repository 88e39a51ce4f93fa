"""Invalid arguments: each public call names the argument before it does anything."""

from __future__ import annotations

import datetime as dt
from typing import Any

import attrs
import pytest
import trio

from blazen_trio import (
    Context,
    Delayed,
    Event,
    InputRequestEvent,
    InputRequiredError,
    InputResponseError,
    InputResponseEvent,
    MemoryStore,
    NoHandlerError,
    RunNotFoundError,
    RunStatus,
    SerializationError,
    Snapshot,
    StartEvent,
    StepFailedError,
    StopEvent,
    Workflow,
    open_store,
    step,
)


@attrs.frozen
class Note(Event):
    text: Any = None


@attrs.frozen
class Foreign(Event):
    pass


@step
async def begin(ev: StartEvent) -> InputRequestEvent:
    return InputRequestEvent("well?", request_id="q")


@step
async def note(ev: Note) -> None:
    return None


@step
async def answer(ev: InputResponseEvent) -> StopEvent:
    return StopEvent(ev.response)


WORKFLOW = Workflow("asks", [begin, note, answer], external=[Note])
NOT_IDS = [1, b"x", "", "x" * 201, "a\0b", "\ud800", ["x"], True]
NOT_SECONDS = ["1", 0, -1, True, [], float("nan"), float("inf"), 1.1e11]


def named(values: list[Any]) -> Any:
    return pytest.mark.parametrize(
        "value",
        values,
        ids=[f"{value!r:.20}".encode("unicode_escape").decode() for value in values],
    )


# Starting and resuming


@named(NOT_IDS)
def test_an_invalid_run_id_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"run_id=.*1 to 200 characters"):
        WORKFLOW.run(run_id=value)
    with pytest.raises(ValueError, match=r"run_id=.*1 to 200 characters"):
        WORKFLOW.resume_from(value, store=MemoryStore())


@named([*NOT_SECONDS, b"1"])
def test_an_invalid_timeout_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"timeout=.*number of seconds above 0"):
        WORKFLOW.run(timeout=value)


@named(["fast", "SYNC", "", 1, True, b"sync", []])
def test_an_invalid_durability_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"durability=.*'sync', 'async' or 'exit'"):
        WORKFLOW.resume_from("run", store=MemoryStore(), durability=value)


@named([0, "handler", [], {}])
def test_an_invalid_input_handler_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="input_handler="):
        WORKFLOW.run(input_handler=value)


@named([0, "sqlite:///runs.db", [], MemoryStore, open_store, WORKFLOW])
def test_an_invalid_store_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=r"store=.* is not a store: .*MemoryStore\(\)"):
        WORKFLOW.run(store=value)
    with pytest.raises(TypeError, match=r"store=.* is not a store"):
        WORKFLOW.resume_from("run", store=value)


async def test_a_store_that_was_not_entered_is_refused() -> None:
    with pytest.raises(TypeError, match="async with open_store"):
        WORKFLOW.run(store=open_store("sqlite:///runs.db"))  # type: ignore[arg-type]


def test_resuming_without_a_store_is_refused() -> None:
    with pytest.raises(TypeError, match="is not a store"):
        WORKFLOW.resume_from("run", store=None)  # type: ignore[arg-type]


@named(["abc", 7, [("a", 1)], []])
def test_invalid_metadata_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=r"metadata=.*mapping"):
        WORKFLOW.run(metadata=value)


@pytest.mark.parametrize("value", [object(), "\ud800", [lambda: 1]])
async def test_metadata_and_input_that_can_not_be_stored_create_no_run(value: Any) -> None:
    store = MemoryStore()
    with pytest.raises(SerializationError, match="metadata"):
        await WORKFLOW.run(metadata={"deep": value}, store=store, run_id="run")
    with pytest.raises(SerializationError, match="StartEvent"):
        await WORKFLOW.run({"deep": value}, store=store, run_id="run")
    with pytest.raises(RunNotFoundError):
        await store.get_run("run")


async def test_a_value_that_contains_itself_can_not_be_stored() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(SerializationError, match="contains itself"):
        await WORKFLOW.run(ring, store=MemoryStore())


@named([None, "{}", b"", {}, 1, Snapshot])
def test_an_invalid_snapshot_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=r"not a Snapshot: .*from_json"):
        WORKFLOW.resume(value)
    with pytest.raises(TypeError, match="not a Snapshot"):
        WORKFLOW.resume_with_input(value, "yes")


@named([None, 1, 1.5, []])
def test_a_snapshot_is_read_only_from_text_or_bytes(value: Any) -> None:
    for read in (Snapshot.from_json, Snapshot.from_msgpack):
        with pytest.raises(SerializationError):
            read(value)


# A run at work


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_each_call_of_a_run_checks_its_arguments(kind: str, tmp_path: Any) -> None:
    if kind == "memory":
        await wrong_calls(MemoryStore())
    else:
        async with open_store(f"sqlite:///{tmp_path / 'runs.db'}") as store:
            await wrong_calls(store)


async def wrong_calls(store: Any) -> None:
    async with WORKFLOW.run(store=store, run_id="run") as run:
        delayed = Delayed("x", 1)  # type: ignore[type-var]
        for event in (None, 1, "x", Note, [Note()], (Note(),), {"a": 1}, delayed):
            with pytest.raises(TypeError, match=r"send\(\) takes an event"):
                await run.send(event)  # type: ignore[arg-type]
        for event in (Foreign(), StopEvent(), Delayed(Foreign(), 1)):
            with pytest.raises(NoHandlerError):
                await run.send(event)
        for event in (Note(object()), Delayed(Note(object()), 1)):
            with pytest.raises(SerializationError, match="Note"):
                await run.send(event)
            with pytest.raises(SerializationError, match="Note"):
                await run.send(event, key="one")
        for key in NOT_IDS:
            with pytest.raises(ValueError, match=r"key=.*1 to 200 characters"):
                await run.send(Note(), key=key)
        for grace in ["1", -1, True, [], float("nan"), float("inf")]:
            with pytest.raises(ValueError, match=r"grace=.*number of seconds"):
                await run.pause(grace=grace)  # type: ignore[arg-type]
        for buffer in ["1", None, 0, -1, 1.5, True]:
            with pytest.raises(ValueError, match="buffer="):
                run.stream(buffer)  # type: ignore[arg-type]
        for reason in [1, b"x", object(), ["x"]]:
            with pytest.raises(TypeError, match="reason="):
                run.cancel(reason)  # type: ignore[arg-type]
        await run_is_parked(run)
        with pytest.raises(SerializationError, match="response"):
            await run.respond(object())
        for request_id in ["other", 3, None, "\ud800"]:
            with pytest.raises(InputResponseError):
                await run.respond(InputResponseEvent(request_id, "yes"))  # type: ignore[arg-type]
        # None of it has left a mark: the key is free, the run is asked for one thing.
        assert await run.send(Note("x"), key="one") is True
        assert await run.send(Note("x"), key="one") is False
        with pytest.raises(InputRequiredError) as asked:
            await run.result()
        assert [one.request_id for one in asked.value.requests] == ["q"]
    assert (await store.get_run("run")).status is RunStatus.WAITING
    async with WORKFLOW.resume_from("run", store=store) as run:
        await run.respond("yes")
        assert await run.result() == "yes"


async def run_is_parked(run: Any) -> None:
    with trio.fail_after(120):
        while run.status is not RunStatus.WAITING:  # noqa: ASYNC110  # no event reports it
            await trio.sleep(0.001)


async def test_an_invalid_answer_with_a_snapshot_is_refused() -> None:
    async with WORKFLOW.run() as run:
        await run_is_parked(run)
        snapshot = await run.pause()
    wrong: Any = 3
    for response in (InputResponseEvent("other", 1), InputResponseEvent(wrong, 1)):
        with pytest.raises(InputResponseError):
            await WORKFLOW.resume_with_input(snapshot, response)
    with pytest.raises(SerializationError):
        await WORKFLOW.resume_with_input(snapshot, object(), store=MemoryStore())
    assert await WORKFLOW.resume_with_input(snapshot, "yes") == "yes"


async def test_any_text_is_kept_as_the_reason_of_a_cancellation() -> None:
    store = MemoryStore()
    async with WORKFLOW.run(store=store, run_id="run") as run:
        run.cancel("the file 'a\udcff' is gone")
    assert (await store.get_run("run")).status is RunStatus.CANCELLED
    assert "'a\\udcff' is gone" in str((await store.get_run("run")).error)


# Inside a step


@named(["1", None, -1, float("nan"), float("inf"), 1.1e11, True, [1]])
def test_an_invalid_delay_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="seconds="):
        Delayed(Note(), value)


WRONG_USES: dict[str, Any] = {
    "get": lambda ctx, ev: ctx.get(1),
    "set": lambda ctx, ev: ctx.set(None, 1),
    "delete": lambda ctx, ev: ctx.delete(("a",)),
    "update": lambda ctx, ev: ctx.update(b"key", lambda value: value),
    "update with no function": lambda ctx, ev: ctx.update("key", 1),
    "publish": lambda ctx, ev: ctx.publish("event"),
    "publish a class": lambda ctx, ev: ctx.publish(Note),
    "collect": lambda ctx, ev: ctx.collect("event", [Note]),
}


@pytest.mark.parametrize("use", WRONG_USES)
async def test_each_call_of_a_context_checks_its_arguments(use: str) -> None:
    wrong = True

    @step
    async def only(ev: StartEvent, ctx: Context) -> StopEvent:
        if wrong:
            ctx.set("written", 1)
            WRONG_USES[use](ctx, ev)
        return StopEvent(ctx.get("written"))

    store = MemoryStore()
    workflow = Workflow("uses", [only])
    with pytest.raises(StepFailedError, match="'only'") as caught:
        await workflow.run(store=store, run_id="run")
    assert isinstance(caught.value.__cause__, TypeError)
    wrong = False
    assert await workflow.resume_from("run", store=store) is None


# Stores


@named([*NOT_SECONDS, None, 1.1e6])
async def test_invalid_times_of_a_store_are_refused(value: Any, tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    with pytest.raises(ValueError, match="lease_ttl="):
        async with open_store(url, lease_ttl=value):
            raise AssertionError
    if value != 0:
        with pytest.raises(ValueError, match="busy_timeout="):
            async with open_store(url, busy_timeout=value):
                raise AssertionError


@named([None, 1, "", "runs.db", b"sqlite:///runs.db", "oracle://x", "nothing://x"])
async def test_an_invalid_url_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="sqlite"):
        async with open_store(value):
            raise AssertionError


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_each_query_of_a_store_checks_its_arguments(kind: str, tmp_path: Any) -> None:
    if kind == "memory":
        await wrong_queries(MemoryStore())
    else:
        async with open_store(f"sqlite:///{tmp_path / 'runs.db'}") as store:
            await wrong_queries(store)


async def wrong_queries(store: Any) -> None:
    for limit in [0, -1, "x", None, 1.5, True]:
        with pytest.raises(ValueError, match="limit="):
            await store.list_runs(limit=limit)
    for status in ["done", 1, "RUNNING"]:
        with pytest.raises(ValueError, match="is not a run status"):
            await store.list_runs(status=status)
        with pytest.raises(ValueError, match="is not a run status"):
            await store.purge(older_than=dt.timedelta(days=1), status=[status])
    for older_than in [1, None, "a day"]:
        with pytest.raises(TypeError, match="older_than="):
            await store.purge(older_than=older_than)
    with pytest.raises(ValueError, match="time zone"):
        await store.purge(older_than=dt.datetime(2020, 1, 1))  # noqa: DTZ001
    for run_id in ["nobody", "", None, 1, "a\0b"]:
        for query in (store.get_run, store.load_snapshot, store.history, store.delete_run):
            with pytest.raises(RunNotFoundError):
                await query(run_id)
