"""Runs that are created at the same time share few statements, and each is refused separately."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
import trio

from blazen_trio._state.status import RunStatus
from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio._stores.sql import jobs
from blazen_trio.errors import RunExistsError, StoreError
from tests.databases import SERVERS, WRITER_ARGUMENTS, an_engine, execute, fresh_database, trace
from tests.stores.by_id import ById, open_by_id

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


_NEW = NewRun("w", "1", 1.0)


async def _create_all(store: ById, run_ids: Iterable[str], **more: Any) -> list[str]:
    """Create these runs at once. Return the ids of those that exist already."""
    refused: list[str] = []

    async def create(run_id: str, number: int) -> None:
        try:
            await store.create(_NEW, Commit(run_id, [(1, b"%d" % number)], **more))
        except RunExistsError as error:
            refused.append(str(error.run_id))

    async with trio.open_nursery() as nursery:
        for number, run_id in enumerate(run_ids):
            nursery.start_soon(create, run_id, number)
    return refused


def _batches(statements: list[str]) -> list[list[str]]:
    """Split statements behind each COMMIT."""
    batches: list[list[str]] = [[]]
    for statement in statements:
        batches[-1].append(statement)
        if statement == "COMMIT":
            batches.append([])
    return batches[:-1]


@pytest.mark.parametrize(
    ("kind", "statements_of_a_batch"),
    [
        ("postgresql", ["BEGIN", "UPDATE", "SELECT", "INSERT", "SELECT", "INSERT", "COMMIT"]),
        ("mariadb", ["UPDATE", "SELECT", "INSERT", "SELECT", "INSERT", "COMMIT"]),
    ],
)
async def test_creations_and_ends_share_their_round_trips(
    kind: str, statements_of_a_batch: list[str], tmp_path: Path
) -> None:
    with (
        fresh_database(kind, tmp_path) as url,
        an_engine(url, **WRITER_ARGUMENTS[kind]) as engine,
        trace(engine, tmp_path) as statements,
    ):
        async with open_by_id(engine, migrate=True) as store:
            await _create_all(store, ["first"])
            for number in range(3):
                await store.create(_NEW, Commit(f"alone{number}", [(1, b"")]))
            statements()
            before = store.statistics()
            ids = [f"r{number}" for number in range(60)]
            assert await _create_all(store, ids) == []
            batches = store.statistics().batches - before.batches
            assert batches <= 2
            shapes = _batches([each.split()[0] for each in statements()])
            assert len(shapes) == batches
            # A database returns the number of a single row, so a batch of one need not look for it.
            of_one = statements_of_a_batch.copy()
            del of_one[len(of_one) - 3]
            assert all(shape in (statements_of_a_batch, of_one) for shape in shapes)
            # Each has its own number and entry, in whatever order the database numbered them.
            for number, run_id in enumerate(ids):
                assert list((await store.load(run_id)).entries) == [(1, b"%d" % number)]
            statements()
            async with trio.open_nursery() as nursery:
                for run_id in ids:
                    end = Commit(
                        run_id,
                        [(2, b"end")],
                        status=RunStatus.COMPLETED,
                        release=True,
                        history=(1, b"h"),
                    )
                    nursery.start_soon(store.commit, end)
            ended = store.statistics().batches - before.batches - batches
            # On PostgreSQL: BEGIN, the fence, the entries, the history, the rows of the runs, the
            # inboxes and COMMIT.
            assert len(statements()) == ended * {"postgresql": 7, "mariadb": 2}[kind]
            assert {run.run_id for run in await store.list_runs(status=RunStatus.COMPLETED)} == set(
                ids
            )
            assert store.statistics().driven == 4


@pytest.mark.parametrize("more", [{}, {"status": RunStatus.QUEUED, "release": True}])
async def test_each_creation_of_a_batch_is_refused_separately(
    url: str, more: dict[str, Any]
) -> None:
    async with open_by_id(url, migrate=True) as store:
        await _create_all(store, ["old", "older"], **more)
        refused = await _create_all(store, ["a", "old", "b", "a", "c", "older", "b", "a"], **more)
        assert sorted(refused) == ["a", "a", "b", "old", "older"]
        runs = {run.run_id for run in await store.list_runs()}
        assert runs == {"old", "older", "a", "b", "c"}
        for run_id, first in (("a", b"037"), ("b", b"26"), ("c", b"4")):
            [(_, data)] = (await store.load(run_id)).entries
            assert data in first
        if not more:
            await store.commit(Commit("c", [(2, b"")]))
            assert [seq for seq, _ in (await store.load("c")).entries] == [1, 2]


@pytest.mark.parametrize("kind", SERVERS)
async def test_only_the_run_that_another_process_is_creating_is_refused(
    url: str,
) -> None:
    async with open_by_id(url, migrate=True) as store:
        await _create_all(store, ["first"])
        with an_engine(url) as engine, engine.connect() as other:
            begun = other.begin()
            columns = "run_id, workflow, version, status, created, updated"
            other.execute(
                sa.text(f"INSERT INTO blazen_run ({columns}) VALUES ('b', 'w', '1', 1, 1, 1)")
            )
            refused: list[str] = []
            async with trio.open_nursery() as nursery:

                async def create() -> None:
                    refused.extend(await _create_all(store, ["a", "b", "c"]))

                nursery.start_soon(create)
                await trio.sleep(0.3)
                # All but "b": the others may have been submitted before it.
                assert store.statistics().commits <= 3
                await trio.to_thread.run_sync(begun.commit)
        assert refused == ["b"]
        assert {run.run_id for run in await store.list_runs()} == {"first", "a", "b", "c"}
        for run_id in ("a", "c"):
            await store.commit(Commit(run_id, [(2, b"2")]))


@pytest.mark.parametrize("kind", SERVERS)
async def test_runs_that_two_processes_create_at_once_are_each_created_once(
    url: str,
) -> None:
    """This holds in whatever order they wait for each other, and however deadlocks are resolved."""
    refused: list[str] = []
    async with open_by_id(url, migrate=True) as one, open_by_id(url) as another:

        async def create(store: ById, run_ids: list[str], more: dict[str, Any]) -> None:
            refused.extend(await _create_all(store, run_ids, **more))

        for number in range(20):
            ids = [f"{number}-{each}" for each in range(12)]
            more = {"status": RunStatus.QUEUED, "release": True} if number % 2 else {}
            async with trio.open_nursery() as nursery:
                nursery.start_soon(create, one, ids, more)
                nursery.start_soon(create, another, ids[::-1], more)
        runs = {run.run_id for run in await one.list_runs(limit=1000)}
    assert len(runs) == 240
    assert sorted(refused) == sorted(runs)


# Makes some insertions in a row fail like the victim of a deadlock. The count is in a table without
# transactions, so a rollback does not change it.
_DEADLOCKS = (
    "CREATE TABLE deadlocks (left_over INT) ENGINE=MyISAM",
    "INSERT INTO deadlocks VALUES (0)",
    """
    CREATE TRIGGER deadlocked BEFORE INSERT ON blazen_run FOR EACH ROW BEGIN
        IF (SELECT left_over FROM deadlocks) > 0 THEN
            UPDATE deadlocks SET left_over = left_over - 1;
            SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'Deadlock found';
        END IF;
    END
    """,
)


@pytest.mark.parametrize("kind", ["mariadb"])
async def test_a_creation_that_is_the_victim_of_a_deadlock_is_retried(url: str) -> None:
    async with open_by_id(url, migrate=True) as store:
        for statement in _DEADLOCKS:
            execute(url, statement)
        execute(url, "UPDATE deadlocks SET left_over = 8")
        assert await _create_all(store, ["a", "b"]) == []
        execute(url, "UPDATE deadlocks SET left_over = 8")
        assert await _create_all(store, ["b", "c"]) == ["b"]
        await store.commit(Commit("c", [(2, b"2")]))
        # The retries are bounded.
        execute(url, "UPDATE deadlocks SET left_over = 1000")
        with pytest.raises(StoreError, match="deadlock"):
            await store.create(_NEW, Commit("d", [(1, b"")]))
        execute(url, "UPDATE deadlocks SET left_over = 0")
        assert await _create_all(store, ["d"]) == []


async def test_a_message_posted_while_its_run_is_created_reaches_that_run(url: str) -> None:
    async with open_by_id(url, migrate=True) as store:
        await _create_all(store, ["first"])
        async with trio.open_nursery() as nursery:
            for run_id in ("a", "b"):
                nursery.start_soon(store.create, _NEW, Commit(run_id, [(1, run_id.encode())]))
                await trio.lowlevel.checkpoint()
                nursery.start_soon(store.post, "first", "event", run_id.encode())
        # In one batch, in this order.
        jobs_at_once = [
            jobs.Create(_NEW, Commit("c", [(1, b"c")]), store._drivers),
            jobs.Post("c", "event", b"for c", None),
            jobs.Create(_NEW, Commit("d", [(1, b"d")]), store._drivers),
            jobs.Post("missing", "event", b"", None),
        ]
        await trio.to_thread.run_sync(store._batches.write, jobs_at_once)
        assert [type(job.error).__name__ for job in jobs_at_once] == ["NoneType"] * 3 + [
            "RunNotFoundError"
        ]
        stored = await store.load("c")
        assert list(stored.entries) == [(1, b"c")]
        assert [mail.data for mail in stored.inbox] == [b"for c"]
        assert len((await store.load("first")).inbox) == 2
        store.drivers.update(
            {job.run_id: job.result for job in jobs_at_once if isinstance(job, jobs.Create)}
        )
        for run_id in ("a", "b", "c", "d"):
            await store.commit(Commit(run_id, [(2, b"2")]))
