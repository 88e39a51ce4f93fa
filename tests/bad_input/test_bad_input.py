"""Invalid input from outside raises a clear, typed error, and the run can still be resumed."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import pytest
import trio
from hypothesis import given, settings, strategies as st

from blazen_trio import (
    Context,
    Event,
    IncompatibleRunError,
    InputRequestEvent,
    InputRequiredError,
    InputResponseEvent,
    MemoryStore,
    RunExistsError,
    RunNotFoundError,
    SerializationError,
    Snapshot,
    SnapshotVersionError,
    StaleRunError,
    StartEvent,
    StepFailedError,
    StopEvent,
    StoreError,
    Workflow,
    open_store,
    step,
)

if TYPE_CHECKING:
    from pathlib import Path


@attrs.frozen
class Order(Event):
    event_type: ClassVar[str] = "shop.Order"
    item: str
    count: int


@step
async def begin(ev: StartEvent, ctx: Context) -> tuple[Order, InputRequestEvent]:
    ctx.set("point", {"x": (1, 2)})
    return Order("book", 2), InputRequestEvent("well?", request_id="q")


@step
async def order(ev: Order) -> None:
    await trio.sleep_forever()


@step
async def answer(ev: InputResponseEvent) -> StopEvent:
    return StopEvent(ev.response)


WORKFLOW = Workflow("orders", [begin, order, answer], history=True)


async def taken() -> Snapshot:
    """Return a snapshot with a pending delivery, an open question, state and history."""
    async with WORKFLOW.run(run_id="run") as run:
        while not run.input_requests:
            await trio.lowlevel.checkpoint()
        return await run.pause(grace=0)


SNAPSHOT = trio.run(taken)
DOCUMENT: dict[str, Any] = json.loads(SNAPSHOT.to_json())


async def goes_on(snapshot: Snapshot) -> Any:
    return await WORKFLOW.resume_with_input(snapshot, InputResponseEvent("q", "yes"))


async def test_the_unchanged_snapshot_resumes() -> None:
    assert await goes_on(SNAPSHOT) == "yes"
    assert await goes_on(Snapshot.from_json(json.dumps(DOCUMENT))) == "yes"


@pytest.mark.parametrize(
    "rubbish", ["", "{", "[]", "null", "12", '{"version": 1}', SNAPSHOT.to_json()[:-20]]
)
def test_invalid_and_truncated_snapshots_are_refused(rubbish: str) -> None:
    with pytest.raises(SerializationError):
        Snapshot.from_json(rubbish)
    with pytest.raises(SerializationError):
        Snapshot.from_msgpack(rubbish.encode())


def test_a_newer_snapshot_is_refused() -> None:
    with pytest.raises(SnapshotVersionError) as caught:
        Snapshot.from_json(json.dumps({**DOCUMENT, "version": 99}))
    assert (caught.value.found, caught.value.supported) == (99, 1)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        return found + [
            inner for key, child in value.items() for inner in paths(child, (*path, key))
        ]
    if isinstance(value, list):
        return found + [
            inner for index, child in enumerate(value) for inner in paths(child, (*path, index))
        ]
    return found


PATHS = paths(DOCUMENT)
junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=4),
    st.just([]),
    st.just({}),
    st.just({"$": 1}),
)


@settings(max_examples=150, deadline=None)
@given(path=st.sampled_from(PATHS), value=junk, remove=st.booleans())
def test_a_changed_snapshot_is_refused_or_resumed(path: Any, value: Any, remove: bool) -> None:
    """A snapshot is untrusted input. It is validated, and raises only these errors."""
    document = json.loads(SNAPSHOT.to_json())
    place = document
    for key in path[:-1]:
        place = place[key]
    if remove:
        del place[path[-1]]
    else:
        place[path[-1]] = value

    async def resume() -> None:
        with trio.move_on_after(0.2):
            async with WORKFLOW.resume(Snapshot.from_json(json.dumps(document))) as run:
                run.cancel()

    with contextlib.suppress(SerializationError, IncompatibleRunError):
        trio.run(resume)


async def test_a_snapshot_of_another_workflow_or_of_missing_steps_is_refused() -> None:
    """All problems are in one error."""
    with pytest.raises(IncompatibleRunError, match="'orders'"):
        await Workflow("other", [begin, order, answer]).resume(SNAPSHOT)

    @step
    async def only(ev: StartEvent) -> StopEvent:
        return StopEvent()

    with pytest.raises(IncompatibleRunError) as caught:
        await Workflow("orders", [only]).resume(SNAPSHOT)
    assert len(caught.value.problems) == 2
    assert any("'order'" in problem for problem in caught.value.problems)
    assert any("'shop.Order'" in problem for problem in caught.value.problems)


async def test_unknown_and_existing_run_ids_are_refused() -> None:
    store = MemoryStore()
    with pytest.raises(RunNotFoundError, match="'nobody'"):
        await WORKFLOW.resume_from("nobody", store=store)
    for query in (store.get_run, store.load_snapshot, store.history, store.delete_run):
        with pytest.raises(RunNotFoundError):
            await query("nobody")
    with pytest.raises(InputRequiredError):
        await Workflow("asks", [begin_asking, answer]).run(store=store, run_id="run")
    with pytest.raises(RunExistsError, match="'run'"):
        await Workflow("asks", [begin_asking, answer]).run(store=store, run_id="run")


@step
async def begin_asking(ev: StartEvent) -> InputRequestEvent:
    return InputRequestEvent("?", request_id="q")


async def test_a_snapshot_older_than_the_stored_run_is_not_resumed() -> None:
    asks = Workflow("asks", [begin_asking, answer])
    store = MemoryStore()
    async with asks.run(store=store, run_id="run") as run:
        with pytest.raises(InputRequiredError):
            await run.result()
        snapshot = await run.pause()
        await run.respond("yes")
        await run.unpause()
        assert await run.result() == "yes"
    with pytest.raises(StaleRunError, match="resume_from"):
        await asks.resume(snapshot, store=store)
    # In a store that does not know the run it goes on, and is kept there.
    other = MemoryStore()
    assert await asks.resume_with_input(snapshot, "no", store=other) == "no"
    assert (await other.load_snapshot("run")).result == "no"


async def test_a_snapshot_as_new_as_the_stored_run_resumes(tmp_path: Path) -> None:
    asks = Workflow("asks", [begin_asking, answer])
    async with open_store(f"sqlite:///{tmp_path / 'runs.db'}") as store:
        with pytest.raises(InputRequiredError) as caught:
            await asks.run(store=store, run_id="run")
        assert await asks.resume_with_input(caught.value.snapshot, "yes", store=store) == "yes"
        assert await asks.resume_from("run", store=store) == "yes"


# What is in a database


def spoil(path: Path, sql: str, *arguments: Any) -> None:
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(sql, arguments).rowcount > 0
    connection.close()


@pytest.mark.parametrize(
    ("sql", "argument", "error"),
    [
        ("UPDATE blazen_journal SET data = ? WHERE seq = 2", b"\xff", SerializationError),
        ("UPDATE blazen_journal SET data = ? WHERE seq = 2", b'{"f":99}', SnapshotVersionError),
        (
            (
                "UPDATE blazen_journal SET data = CAST(replace(data, ?, '\"zz\":') AS BLOB) "
                "WHERE seq = 2"
            ),
            '"count":',
            SerializationError,
        ),
        ("UPDATE blazen_journal SET data = CAST(data AS TEXT) || ? WHERE seq = 2", "", StoreError),
        ("DELETE FROM blazen_journal WHERE seq = ?", 1, StoreError),
    ],
)
async def test_a_corrupt_stored_run_is_refused_and_released(
    sql: str, argument: Any, error: type[Exception], tmp_path: Path
) -> None:
    path = tmp_path / "runs.db"
    with trio.fail_after(120):
        await spoilt_and_repaired(path, sql, argument, error)


async def spoilt_and_repaired(path: Path, sql: str, argument: Any, error: type[Exception]) -> None:
    async with open_store(f"sqlite:///{path}") as store:
        with trio.CancelScope() as scope:
            async with WORKFLOW.run(store=store, run_id="run") as run:
                while not run.input_requests:  # noqa: ASYNC110
                    await trio.sleep(0.001)
                scope.cancel()
                await trio.lowlevel.checkpoint()
        kept = sqlite3.connect(path)
        rows = kept.execute("SELECT run_no, seq, part, format, data FROM blazen_journal").fetchall()
        kept.close()
        spoil(path, sql, argument)
        with pytest.raises(error):
            await WORKFLOW.resume_from("run", store=store)
        # Nobody drives it now; and repaired, it goes on.
        repair = sqlite3.connect(path)
        with repair:
            repair.execute("DELETE FROM blazen_journal")
            repair.executemany(
                "INSERT INTO blazen_journal (run_no, seq, part, format, data) VALUES (?,?,?,?,?)",
                rows,
            )
        repair.close()
        async with WORKFLOW.resume_from("run", store=store) as run:
            await run.respond("yes")
            assert await run.result() == "yes"


async def test_an_event_of_an_older_schema_is_upcast_or_refused() -> None:

    @attrs.frozen
    class Task(Event):
        name: str

    @step
    async def start(ev: StartEvent) -> Task:
        return Task("old")

    @step
    async def stop(ev: Task) -> StopEvent:
        await trio.sleep_forever()
        return StopEvent()

    store = MemoryStore()
    with trio.CancelScope() as scope:
        async with Workflow("tasks", [start, stop]).run(store=store, run_id="run") as run:
            while (await run.snapshot()).deliveries[0].step != "stop":
                await trio.lowlevel.checkpoint()
            scope.cancel()
            await trio.lowlevel.checkpoint()

    def newer(upcasts: bool) -> Workflow:
        def upcast(cls: Any, data: dict[str, Any], version: int) -> dict[str, Any]:
            return {"title": data["name"], "version": version} if upcasts else data

        members = {
            "__annotations__": {"title": str, "version": int},
            "event_type": "Task",
            "schema_version": 2,
            "upcast": classmethod(upcast),
        }
        cls: Any = attrs.frozen(type("NewTask", (Event,), members))

        @step(accepts=StartEvent, emits=cls)
        async def start(ev: Any) -> Any:
            return cls("new", 2)

        @step(accepts=cls, emits=StopEvent)
        async def stop(ev: Any) -> Any:
            return StopEvent((ev.title, ev.version))

        return Workflow("tasks", [start, stop])

    with pytest.raises(SerializationError, match="title"):
        await newer(upcasts=False).resume_from("run", store=store)
    assert await newer(upcasts=True).resume_from("run", store=store) == ("old", 1)


@pytest.mark.parametrize("where", ["input", "output", "member", "sent"])
async def test_a_value_that_can_not_be_stored_raises_where_it_is_given(where: str) -> None:
    """Nothing of that step is applied."""

    @attrs.frozen
    class Loose(Event):
        value: Any

    bad = {"deep": [object()]}

    @step
    async def start(ev: StartEvent, ctx: Context) -> Loose | list[Loose]:
        ctx.set("written", 1)
        if where == "sent":
            ctx.send(Loose(bad))
        return [Loose(bad)] if where == "member" else Loose(bad)

    @step
    async def stop(ev: Loose) -> StopEvent:
        return StopEvent("in memory nothing is stored")

    workflow = Workflow("loose", [start, stop])
    store = MemoryStore()
    if where == "input":
        with pytest.raises(SerializationError, match="deep"):
            await workflow.run(bad, store=store)
        return
    with pytest.raises(StepFailedError) as caught:
        await workflow.run(store=store, run_id="run")
    assert isinstance(caught.value.__cause__, SerializationError)
    assert "value" in caught.value.__cause__.path
    assert "Loose" in str(caught.value)
    stored = await store.load_snapshot("run")
    assert stored.state == {}
    assert [one.step for one in stored.deliveries] == ["start"]
    assert await workflow.run() == "in memory nothing is stored"
