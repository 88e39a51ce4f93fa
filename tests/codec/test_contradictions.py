"""Snapshots from outside whose parts contradict each other are refused when they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import attrs
import orjson
import pytest
import trio
import trio.testing

from blazen_trio import (
    Context,
    Delayed,
    Event,
    IncompatibleRunError,
    InputRequestEvent,
    InputRequiredError,
    InputResponseEvent,
    MemoryStore,
    SerializationError,
    Snapshot,
    StartEvent,
    StepFailedError,
    StopEvent,
    Workflow,
    step,
)
from blazen_trio._codec.codec import PLAIN, payload_of
from blazen_trio._codec.entries import decode_entry
from blazen_trio._codec.restore import decode_state

Document = dict[str, Any]


@attrs.frozen
class Part(Event):
    n: int


@step
async def begin(ev: StartEvent) -> list[Delayed[Part]]:
    if ev.data == "fail":
        raise ValueError
    return [Delayed(Part(n), 1e6) for n in range(2)]


@step
async def join(parts: list[Part]) -> InputRequestEvent:
    return InputRequestEvent("?", {}, "q")


@step
async def answered(ev: InputResponseEvent) -> StopEvent:
    return StopEvent(ev.response)


@step
async def gather(ev: Part, ctx: Context) -> None:
    ctx.collect(ev, [Part, Part, Part])


FLOW = Workflow("flow", [begin, join, answered])


@step(name="ask")
async def ask(ev: StartEvent) -> InputRequestEvent:
    return InputRequestEvent("?", {}, "q")


QUESTIONS = Workflow("questions", [ask, answered])


async def running() -> Document:
    async with FLOW.run(metadata={"by": "ann"}) as run:
        await trio.testing.wait_all_tasks_blocked(0.01)
        document = orjson.loads((await run.snapshot()).to_json())
        run.cancel()
    return document


async def asking() -> Document:
    with pytest.raises(InputRequiredError) as caught:
        await QUESTIONS.run()
    return orjson.loads(caught.value.snapshot.to_json())


async def failed() -> Document:
    async with FLOW.run("fail") as run:
        with pytest.raises(StepFailedError):
            await run.result()
        return orjson.loads((await run.snapshot()).to_json())


async def completed() -> Document:
    async with Workflow("done", [done]).run() as run:
        await run.result()
        return orjson.loads((await run.snapshot()).to_json())


@step
async def done(ev: StartEvent) -> StopEvent:
    return StopEvent(1)


def put(**values: Any) -> Callable[[Document], None]:
    return lambda document: document.update(values)


def first_item(**values: Any) -> Callable[[Document], None]:
    return lambda document: document["items"][0].update(values)


STOP = ["StopEvent", {"result": 1}]
ERROR = {"kind": "StepFailedError", "message": "no"}


@pytest.mark.parametrize(
    ("make", "change", "path"),
    [
        (failed, put(error=None), "error"),
        (failed, put(status="timed_out", error=None), "error"),
        (failed, put(status="cancelled", error=None), "error"),
        (failed, put(stop=STOP), "stop"),
        (running, put(stop=STOP), "stop"),
        (running, put(error=ERROR), "error"),
        (running, put(status="completed", stop=STOP), "items"),
        (completed, put(stop=None), "stop"),
        (completed, put(error=ERROR), "error"),
        (running, put(metadata=[5]), "metadata"),
        (running, put(metadata=5), "metadata"),
        (running, put(metadata={"$set": [1]}), "metadata"),
        (running, put(metadata={"$int": "zz"}), "metadata"),
        (running, put(epoch=2**32), "epoch"),
        (running, put(epoch=2**30), "epoch"),
        (running, put(next_id=2**63 - 1), "next_id"),
        (running, put(seq=2**63 - 1), "seq"),
        (asking, first_item(request_id="another"), "items[0].request_id"),
        (asking, first_item(event=["Tick", {"n": 1}]), "items[0].request_id"),
        (asking, first_item(event=STOP), "items[0].request_id"),
    ],
)
async def test_a_snapshot_that_contradicts_itself_is_refused(
    make: Any, change: Callable[[Document], None], path: str
) -> None:
    document = await make()
    assert Snapshot.from_json(orjson.dumps(document))
    change(document)
    for read in (Snapshot.from_json, lambda data: decode_state(data, {}, FLOW.codec)):
        with pytest.raises(SerializationError) as caught:
            read(orjson.dumps(document))
        assert caught.value.path == path


async def test_a_question_of_an_unknown_class_is_checked() -> None:
    document = await asking()
    fields = {"prompt": "?", "request_id": "q"}

    @attrs.frozen
    class Fake(Event):
        prompt: str
        request_id: str

    fake = Workflow("questions", [ask, answered], types=[Fake])
    first_item(event=["Fake", fields])(document)
    snapshot = Snapshot.from_json(orjson.dumps(document))
    with pytest.raises(SerializationError, match="not a question"):
        await fake.resume(snapshot)


async def test_an_item_that_may_lead_to_a_join_needs_a_place() -> None:
    document = await running()
    del next(item for item in document["items"] if "delayed" in item)["group"]
    snapshot = Snapshot.from_json(orjson.dumps(document))
    with pytest.raises(
        IncompatibleRunError, match="in no fan-out, and may lead to the join 'join'"
    ):
        await FLOW.resume(snapshot)


async def test_a_fan_out_within_itself_is_refused() -> None:
    document = await running()
    pending = next(item for item in document["items"] if "pending" in item)
    pending["group"] = pending["fan_out"]
    with pytest.raises(SerializationError, match="can't be inside"):
        Snapshot.from_json(orjson.dumps(document))


async def test_the_number_of_names_in_collect_buffers_is_bounded() -> None:
    half = Workflow("half", [step(name="start")(begin_parts), gather], external=[Part])
    async with half.run() as run:
        await trio.testing.wait_all_tasks_blocked(0.01)
        document = orjson.loads((await run.snapshot()).to_json())
        run.cancel()
    document["collected"][0]["types"] = [["a", 1_000_000], ["b", 1_000_000]] * 150
    with pytest.raises(SerializationError, match="expected at most 4,000,000 names in total"):
        Snapshot.from_json(orjson.dumps(document))
    # In all buffers together.
    one = document["collected"][0]
    document["collected"] = [
        {**one, "buffered": n, "types": [["a", 1_000_000 - n]]} for n in range(100, 200)
    ]
    document["next_id"] = 1000
    with pytest.raises(SerializationError, match="expected at most 4,000,000 names in total"):
        Snapshot.from_json(orjson.dumps(document))


async def begin_parts(ev: StartEvent) -> Part:
    return Part(1)


def test_a_large_value_must_match_its_digest() -> None:
    payload = payload_of(orjson.dumps("x" * 50_000))
    assert payload.digest == hashlib.sha256(payload.data).hexdigest()
    entry = b'{"f":1,"q":2,"t":[1,0],"c":{"k":{"$blob":"%s"}}}' % payload.digest.encode()
    decode_entry(entry, {payload.digest: payload.data}, PLAIN)
    for damaged in (payload.data[:-1], payload.data.replace(b"x", b"y", 1)):
        with pytest.raises(SerializationError, match="not what was stored"):
            decode_entry(entry, {payload.digest: damaged}, PLAIN)


@pytest.mark.parametrize("run_id", ["", "x" * 201, "a\0b", "ends with a space "])
async def test_an_invalid_run_id_is_not_stored(run_id: str) -> None:
    document = await asking()
    snapshot = Snapshot.from_json(orjson.dumps({**document, "run_id": run_id}))
    store = MemoryStore()
    with pytest.raises(ValueError, match="run_id"):
        await QUESTIONS.resume(snapshot, store=store)
    assert await store.list_runs() == []
