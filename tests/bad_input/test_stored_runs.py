"""Corrupt stored runs and failing databases raise clear errors; repaired, the run resumes."""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import sqlite3
import sys
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import sqlalchemy as sa
import trio
from hypothesis import given, settings, strategies as st

from blazen_trio import (
    Context,
    Event,
    IncompatibleRunError,
    MemoryStore,
    RunStatus,
    SchemaError,
    SerializationError,
    Snapshot,
    SnapshotVersionError,
    StartEvent,
    StopEvent,
    StoreError,
    Workflow,
    open_store,
    step,
)
from blazen_trio._codec.codec import PLAIN
from blazen_trio._codec.snapshot import iter_state
from blazen_trio._stores.base import fold
from blazen_trio._stores.protocol import Commit, NewRun, StoredRun
from blazen_trio._stores.sql.schema import HEAD
from tests.mixed import INPUT, Log, check_result, mixed_workflow

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REFUSALS = (SerializationError, SnapshotVersionError, IncompatibleRunError, StoreError)
WORKFLOW = mixed_workflow(Log(), slowness=0.0)


async def left_halfway(store: Any, attempts: int = 25) -> None:
    """Drive the mixed workflow up to a commit, and leave it."""
    log = Log()
    with trio.CancelScope() as scope:
        async with mixed_workflow(log, slowness=0.001, history=True).run(
            INPUT, store=store, run_id="run"
        ):
            while len(log.attempts) < attempts:  # noqa: ASYNC110  # no event reports it
                await trio.sleep(0.0005)
            scope.cancel()
            await trio.lowlevel.checkpoint()


def entries(stored: StoredRun, change: Callable[[list[tuple[int, bytes]]], Any]) -> StoredRun:
    changed = list(stored.entries)
    return attrs.evolve(stored, entries=change(changed) or changed)


def changed_entry(number: int, pattern: str, by: str) -> Callable[[StoredRun], StoredRun]:
    def change(rows: list[tuple[int, bytes]]) -> None:
        seq, data = rows[number]
        text, count = re.subn(pattern, by, data.decode(), count=1)
        assert count, (pattern, data)
        rows[number] = seq, text.encode()

    return lambda stored: entries(stored, change)


def image(stored: StoredRun) -> bytes:
    """The data that a run's entries leave in it."""
    return b"".join(iter_state(fold(stored, PLAIN), inline=True))


COLLECTED = r'\],"close_shelf",\["close_shelf"\]'


def is_collected(stored: StoredRun, number: int) -> bool:
    """Return whether an entry brought in an event that a join still holds."""
    collects = re.search(COLLECTED, stored.entries[number][1].decode())
    return collects is not None and b'"Crate"' in image(
        changed_entry(number, '"Read"', '"Crate"')(stored)
    )


async def halfway() -> tuple[StoredRun, Snapshot]:
    """Return a half-done run with collected events; its progress varies with timing."""
    while True:
        store = MemoryStore()
        await left_halfway(store)
        stored = await store.load("run")
        if any(is_collected(stored, number) for number in range(len(stored.entries))):
            return stored, await store.load_snapshot("run")


STORED, SNAPSHOT = trio.run(halfway)


class Spoilt(MemoryStore):
    """A store that returns the stored run changed, as long as it is set to."""

    def __init__(self, spoil: Callable[[StoredRun], StoredRun]) -> None:
        super().__init__()
        self.spoil: Callable[[StoredRun], StoredRun] | None = spoil

    @classmethod
    async def of(cls, spoil: Callable[[StoredRun], StoredRun]) -> Spoilt:
        store = cls(spoil)
        driver = await store.create(
            NewRun("mixed", "1", 1.0), Commit("run", entries=STORED.entries[:1])
        )
        assert driver is not None
        await store.commit(driver, Commit("run", entries=STORED.entries[1:], release=True))
        return store

    async def load(self, run_id: str) -> StoredRun:
        stored = await super().load(run_id)
        return stored if self.spoil is None else self.spoil(stored)

    async def claim(self, run_id: str) -> StoredRun:
        stored = await super().claim(run_id)
        return stored if self.spoil is None else self.spoil(stored)


async def is_refused_and_goes_on(spoil: Callable[[StoredRun], StoredRun], error: Any) -> Exception:
    store = await Spoilt.of(spoil)
    with pytest.raises(error) as caught:
        await WORKFLOW.resume_from("run", store=store)
    store.spoil = None
    check_result(await WORKFLOW.resume_from("run", store=store))
    return caught.value


@pytest.mark.parametrize("missing", [0, 1, 5, -2])
async def test_a_journal_with_a_gap_is_refused(missing: int) -> None:
    error = await is_refused_and_goes_on(
        lambda stored: entries(stored, lambda rows: rows.pop(missing) and None), StoreError
    )
    assert "gap" in str(error) or "starts with entry 2" in str(error)


async def test_a_journal_out_of_order_or_with_doubled_entries_is_refused() -> None:
    for change in (
        lambda rows: rows[::-1],
        lambda rows: rows[:4] + rows[3:],
        lambda rows: [*rows[:4], (5, rows[3][1])],
    ):
        await is_refused_and_goes_on(
            lambda stored, change=change: entries(stored, change), StoreError
        )


async def test_a_run_without_a_journal_is_refused() -> None:
    error = await is_refused_and_goes_on(
        lambda stored: attrs.evolve(stored, entries=()), StoreError
    )
    assert "neither a snapshot nor a journal" in str(error)


@pytest.mark.parametrize(
    ("pattern", "by", "told"),
    [
        (r'"shelf":0', '"shelf":"zero"', "expected int"),
        (r'"shelf":0', '"shelf":null', "expected int"),
        (r'"shelf":0', '"shelf":0.5', "expected int"),
        (r'"shelf":0', '"shelf":[0]', "expected int"),
        (r'"shelf":0,', "", "shelf"),
        (r'"shelf":0', '"shelf":0,"more":1', "more"),
        (r'\{"shelf":0,"books":4\}', "[]", "Shelf"),
        (r'\{"shelf":0,"books":4\}', "7", "Shelf"),
    ],
)
async def test_the_error_of_invalid_event_data_names_the_event_and_the_field(
    pattern: str, by: str, told: str
) -> None:
    error = await is_refused_and_goes_on(changed_entry(1, pattern, by), SerializationError)
    assert "'Shelf'" in str(error)
    assert told in str(error)


async def test_unknown_events_and_steps_are_refused() -> None:
    number = next(index for index in range(len(STORED.entries)) if is_collected(STORED, index))
    error = await is_refused_and_goes_on(
        changed_entry(number, '"Read"', '"Crate"'), IncompatibleRunError
    )
    assert "'Crate'" in str(error)
    elsewhere = changed_entry(number, COLLECTED, '],"elsewhere",["elsewhere"]')
    error = await is_refused_and_goes_on(elsewhere, REFUSALS)
    assert "'elsewhere'" in str(error)


@pytest.mark.parametrize("stamp", [0, 2, 99, -1, '"1"', "null", "true", "1.5", "[]"])
async def test_an_entry_of_another_format_is_refused(stamp: object) -> None:
    await is_refused_and_goes_on(
        changed_entry(3, '"f":1', f'"f":{stamp}'), (SnapshotVersionError, SerializationError)
    )


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_journal_damaged_anywhere_gives_a_typed_error_or_resumes(data: st.DataObject) -> None:
    """Each byte may be changed, missing, or followed by more. Only these errors are raised, unless
    the damage changed a value into another valid one.
    """
    number = data.draw(st.integers(0, len(STORED.entries) - 1))
    seq, good = STORED.entries[number]
    bad = damaged(good, data)
    changed = (*STORED.entries[:number], (seq, bad), *STORED.entries[number + 1 :])

    async def resume() -> None:
        store = await Spoilt.of(lambda stored: attrs.evolve(stored, entries=changed))
        for query in (store.load_snapshot, store.history):
            with contextlib.suppress(*REFUSALS):
                await query("run")
        with contextlib.suppress(*REFUSALS):
            async with WORKFLOW.resume_from("run", store=store) as run:
                run.cancel()

    trio.run(resume)


def damaged(good: bytes, data: st.DataObject) -> bytes:
    start = data.draw(st.integers(0, len(good)))
    length = data.draw(st.sampled_from([0, 1, 1, 2, len(good)]))
    put = data.draw(
        st.sampled_from(
            [
                b"",
                b"0",
                b"-1",
                b"9" * 30,
                b"1e999",
                b"null",
                b"{}",
                b"[]",
                b'""',
                b",",
                b"\0",
                b"\xff",
                b"\xc1",
            ]
        )
    )
    return good[:start] + put + good[start + length :]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_msgpack_snapshot_damaged_anywhere_gives_a_typed_error_or_resumes(
    data: st.DataObject,
) -> None:
    bad = damaged(PACKED, data)

    async def resume() -> None:
        with contextlib.suppress(*REFUSALS):
            async with WORKFLOW.resume(Snapshot.from_msgpack(bad)) as run:
                run.cancel()

    trio.run(resume)


PACKED = SNAPSHOT.to_msgpack()


async def test_a_snapshot_resumes_from_json_and_from_msgpack() -> None:
    check_result(await WORKFLOW.resume(Snapshot.from_msgpack(PACKED)))
    check_result(await WORKFLOW.resume(Snapshot.from_json(SNAPSHOT.to_json())))


@pytest.mark.parametrize("status", [status.value for status in RunStatus])
async def test_a_snapshot_with_a_false_status_resumes_or_is_refused(status: str) -> None:
    """It resumes with its pending work. That it has ended must be supported by an end."""
    document = json.dumps({**json.loads(SNAPSHOT.to_json()), "status": status})
    if RunStatus(status).ended:
        missing = "stop" if status == "completed" else "must have an error"
        with pytest.raises(SerializationError, match=missing):
            await WORKFLOW.resume(Snapshot.from_json(document))
    else:
        check_result(await WORKFLOW.resume(Snapshot.from_json(document)))


@pytest.mark.parametrize(
    "name",
    ["antigravity", "antigravity:main", "builtins.eval", "__import__('antigravity')", "os.system"],
)
async def test_nothing_that_a_snapshot_names_is_imported_or_evaluated(name: str) -> None:
    document = json.loads(SNAPSHOT.to_json())
    text = json.dumps(document)
    for own in ("Read", "Book", "mixed", "read", "close_shelf"):
        changed = text.replace(json.dumps(own), json.dumps(name))
        assert changed != text
        with pytest.raises((SerializationError, IncompatibleRunError)):
            await WORKFLOW.resume(Snapshot.from_json(changed))
    assert "antigravity" not in sys.modules


def test_a_pickle_is_not_a_snapshot() -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return pytest.fail, ("the pickle was loaded",)

    for read in (Snapshot.from_json, Snapshot.from_msgpack):
        with pytest.raises(SerializationError):
            read(pickle.dumps(Trap()))


# Databases that fail under a run


async def goes_on(url: str) -> None:
    async with open_store(url) as store:
        check_result(await WORKFLOW.resume_from("run", store=store))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'runs.db'}"


@attrs.frozen
class Tick(Event):
    n: int


@step
async def begin(ev: StartEvent) -> Tick:
    return Tick(24)


@step
async def grow(ev: Tick, ctx: Context) -> Tick | StopEvent:
    ctx.set(f"key {ev.n}", "x" * 3000)
    return Tick(ev.n - 1) if ev.n else StopEvent("grown")


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_full_disk_fails_the_run_which_resumes_later(url: str, durability: str) -> None:
    """The disk fills up during the run. Once there is room, the run resumes."""
    workflow = Workflow("grows", [begin, grow], durability=durability)
    engine = sa.create_engine(url)
    pages = 2**30

    @sa.event.listens_for(engine, "checkout")
    def bound(connection: sqlite3.Connection, _record: Any, _proxy: Any) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")

    async with open_store(engine):
        with contextlib.closing(engine.raw_connection()) as connection:
            pages = connection.cursor().execute("PRAGMA page_count").fetchone()[0] + 8
    async with open_store(engine) as store:
        with pytest.raises(StoreError, match="no space left") as caught:
            await workflow.run(store=store, run_id="run")
        assert caught.value.run_id == "run"
        assert (await store.get_run("run")).status is RunStatus.RUNNING
        done = (await store.load_snapshot("run")).state
        assert done if durability == "sync" else len(done) < 25
        pages = 2**30
    async with open_store(engine) as store:
        assert await workflow.resume_from("run", store=store) == "grown"
        assert len((await store.load_snapshot("run")).state) == 25
    engine.dispose()


async def test_a_database_locked_by_another_program_fails_the_run(tmp_path: Path, url: str) -> None:
    async with open_store(url, busy_timeout=0.01) as store:
        await left_halfway(store)
        async with WORKFLOW.resume_from("run", store=store) as run:
            theirs = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
            theirs.execute("BEGIN EXCLUSIVE")
            with pytest.raises(StoreError, match="locked"):
                await run.result()
        with pytest.raises(StoreError, match="locked"):
            await WORKFLOW.resume_from("run", store=store)
        theirs.close()
        check_result(await WORKFLOW.resume_from("run", store=store))


async def test_a_read_only_database_is_refused(tmp_path: Path, url: str) -> None:
    async with open_store(url) as store:
        await left_halfway(store)
    async with open_store(f"sqlite:///file:{tmp_path / 'runs.db'}?mode=ro&uri=true") as store:
        with pytest.raises(StoreError, match="read-only"):
            await WORKFLOW.resume_from("run", store=store)
        with pytest.raises(StoreError, match="read-only"):
            await WORKFLOW.run(INPUT, store=store)
        # Looking is free.
        assert (await store.get_run("run")).status is RunStatus.RUNNING
        assert (await store.load_snapshot("run")).deliveries
    await goes_on(url)


async def test_a_database_of_a_newer_version_is_refused_and_unchanged(
    tmp_path: Path, url: str
) -> None:
    async with open_store(url) as store:
        await left_halfway(store)
    tamper(tmp_path, "UPDATE blazen_version SET version_num = '9999'")
    with pytest.raises(SchemaError, match=r"newer version.*9999"):
        await goes_on(url)
    tamper(tmp_path, "UPDATE blazen_version SET version_num = ?", HEAD)
    await goes_on(url)


async def test_a_run_row_with_an_invalid_status_is_refused(tmp_path: Path, url: str) -> None:
    async with open_store(url) as store:
        await left_halfway(store)
        with contextlib.closing(sqlite3.connect(tmp_path / "runs.db")) as connection:
            good = connection.execute("SELECT status FROM blazen_run").fetchone()[0]
        for value in ("x", -(2**62)):
            tamper(tmp_path, "UPDATE blazen_run SET status = ?", value)
            with pytest.raises(SchemaError, match="'run'"):
                await store.get_run("run")
            with pytest.raises(SchemaError, match="'run'"):
                await WORKFLOW.resume_from("run", store=store)
            assert await store.list_runs() == [], "all others are seen"
        tamper(tmp_path, "UPDATE blazen_run SET status = ?", good)
        check_result(await WORKFLOW.resume_from("run", store=store))


@pytest.mark.parametrize("column", ["created", "updated"])
async def test_a_run_row_with_invalid_times_is_refused(
    tmp_path: Path, url: str, column: str
) -> None:
    async with open_store(url) as store:
        await left_halfway(store)
        for value in ("x", -(2**62)):
            tamper(tmp_path, f"UPDATE blazen_run SET {column} = ?", value)
            assert getattr(await store.get_run("run"), column).year == 1
        check_result(await WORKFLOW.resume_from("run", store=store))


def tamper(folder: Path, sql: str, *arguments: Any) -> None:
    with contextlib.closing(sqlite3.connect(folder / "runs.db")) as connection, connection:
        assert connection.execute(sql, arguments).rowcount == 1
