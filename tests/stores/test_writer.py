"""The group-commit writer: few statements, an answer for every waiter, faults in one run only."""

from __future__ import annotations

import sqlite3
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from blazen_trio._state.status import RunStatus
from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio._stores.sql.databases.base import PlainTransaction
from blazen_trio.errors import RunExistsError, StaleRunError, StoreError
from tests.databases import WRITER_ARGUMENTS, an_engine, execute, trace
from tests.stores.by_id import ById, open_by_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


_NEW = NewRun("w", "1", 1.0)


@asynccontextmanager
async def _traced(
    url: str, folder: Path, options: dict[str, Any]
) -> AsyncIterator[tuple[ById, Callable[[], list[str]]]]:
    """Open a store. Yield it with a function that returns the statements since its last call."""
    with an_engine(url, **options) as engine, trace(engine, folder) as statements:
        async with open_by_id(engine, migrate=True) as store:
            await store.create(_NEW, Commit("first", [(1, b"")]))
            statements()
            yield store, statements


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("sqlite", {}, ["INSERT"]),
        ("postgresql", WRITER_ARGUMENTS["postgresql"], ["WITH"]),
        ("mariadb", WRITER_ARGUMENTS["mariadb"], ["BEGIN"]),
        ("mariadb", {}, ["BEGIN"]),  # an engine that takes one statement at a time
    ],
)
async def test_a_commit_is_one_short_transaction(
    url: str, tmp_path: Path, options: dict[str, Any], expected: list[str]
) -> None:
    async with _traced(url, tmp_path, options) as (store, statements):
        for seq in (2, 3):
            await store.commit(Commit("first", [(seq, b"x")]))
            kinds = [statement.split(maxsplit=1)[0] for statement in statements()]
            assert kinds == expected


async def test_waiting_commits_are_written_together(kind: str, url: str, tmp_path: Path) -> None:
    async with _traced(url, tmp_path, WRITER_ARGUMENTS[kind]) as (store, statements):
        for number in range(50):
            await store.create(_NEW, Commit(f"r{number}", [(1, b"")]))
        statements()
        before = store.statistics()
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(
                    store.commit, Commit(f"r{number}", [(2, b"x")], status=RunStatus.WAITING)
                )
        batches = store.statistics().batches - before.batches
        assert batches <= 3  # the first commit, and those that came during its write
        sent = statements()
        assert batches == sent.count("COMMIT") == sum("blazen_lease" in each for each in sent)
        assert store.statistics().commits - before.commits == 50
        # One statement for any number of rows. On SQLite it is one per row, without round trips.
        assert sum("INTO blazen_journal" in each for each in sent) == (
            50 if kind == "sqlite" else batches
        )
        assert (
            len(sent)
            == {"sqlite": 3 * batches + 100, "postgresql": 5 * batches, "mariadb": 2 * batches}[
                kind
            ]
        )
        lines = await store.list_runs(status=RunStatus.WAITING)
        assert {line.run_id for line in lines} == {f"r{number}" for number in range(50)}


async def test_the_last_of_several_changes_in_one_batch_counts(url: str) -> None:
    async with open_by_id(url, migrate=True) as store:
        for run_id in ("a", "b", "c"):
            await store.create(_NEW, Commit(run_id, [(1, b"")]))
        async with trio.open_nursery() as nursery:
            for seq in range(2, 8):
                for run_id in ("a", "b"):
                    commit = Commit(
                        run_id,
                        status=RunStatus.FAILED,
                        error=str(seq),
                        at=float(seq),
                        entries=[(seq, b"")],
                    )
                    nursery.start_soon(store.commit, commit)
                    await trio.lowlevel.checkpoint()
        for run_id in ("a", "b"):
            assert (await store.get_run(run_id)).error == "7"
        assert (await store.get_run("c")).error is None


async def test_a_batch_is_bounded_in_bytes(url: str) -> None:
    async with open_by_id(url, migrate=True) as store:
        for number in range(6):
            await store.create(_NEW, Commit(f"r{number}", [(1, b"")]))
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(store.commit, Commit(f"r{number}", [(2, bytes(3_000_000))]))
        assert store.statistics().largest_batch == 1


async def test_a_poisoned_record_harms_its_own_run_only(url: str) -> None:
    async with open_by_id(url, migrate=True) as store:
        for run_id in ("good", "bad", "fine"):
            await store.create(_NEW, Commit(run_id, [(1, b"")]))
        # As if another driver had written it.
        row = "SELECT run_no, 2, 0, 1, 'x' FROM blazen_run WHERE run_id = 'bad'"
        execute(url, f"INSERT INTO blazen_journal {row}")
        failed: dict[str, BaseException] = {}

        async def commit(commit: Commit) -> None:
            try:
                await store.commit(commit)
            except Exception as error:  # checked below
                failed[f"{commit.run_id}{commit.entries[0][0]}"] = error

        async with trio.open_nursery() as nursery:
            for seq in (2, 3):
                for run_id in ("good", "bad", "fine"):
                    nursery.start_soon(commit, Commit(run_id, [(seq, b"x")]))
                await trio.lowlevel.checkpoint()
        assert set(failed) == {"bad2", "bad3"}
        assert all(isinstance(error, StaleRunError) for error in failed.values())
        assert {key[:-1] for key in failed} == {"bad"}
        for run_id in ("good", "fine"):
            assert [seq for seq, _ in (await store.load(run_id)).entries] == [1, 2, 3]
        await store.create(_NEW, Commit("later", [(1, b"")]))


async def test_only_one_of_several_creations_of_a_run_succeeds(url: str) -> None:
    async with open_by_id(url, migrate=True) as store:
        refused: list[BaseException] = []

        async def create() -> None:
            try:
                await store.create(_NEW, Commit("a", [(1, b"")]))
            except RunExistsError as error:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(create)
        assert len(refused) == 4


async def test_a_crashed_writer_answers_every_waiter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[BaseException] = []
    async with open_by_id(f"sqlite:///{tmp_path}/a.db") as store:
        await store.create(_NEW, Commit("a", [(1, b"")]))

        def crash(_jobs: object) -> None:
            msg = "a bug"
            raise MemoryError(msg)

        monkeypatch.setattr(store._batches, "write", crash)

        async def post() -> None:
            try:
                await store.post("a", "event", b"")
            except StoreError as error:
                errors.append(error)

        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(post)
            await post()
        with pytest.raises(StoreError, match="resume"):
            await store.commit(Commit("a", [(2, b"")]))
    assert len(errors) == 11
    assert all(isinstance(error.__cause__, MemoryError) for error in errors)


async def test_a_closed_store_refuses_commits(tmp_path: Path) -> None:
    async with open_by_id(f"sqlite:///{tmp_path}/a.db") as store:
        await store.create(_NEW, Commit("a", [(1, b"")]))
    with pytest.raises(StoreError, match="closed"):
        await store.commit(Commit("a", [(2, b"")]))


async def test_an_error_in_the_block_is_not_wrapped(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        async with open_by_id(f"sqlite:///{tmp_path}/a.db") as store:
            await store.create(_NEW, Commit("a", [(1, b"")]))
            raise KeyError
    with trio.move_on_after(3600) as scope:
        async with open_by_id(f"sqlite:///{tmp_path}/a.db") as store:
            await store.claim("a")  # it was released
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_commit_that_was_written_although_it_failed_is_recognized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_by_id(f"sqlite:///{tmp_path}/a.db") as store:
        await store.create(_NEW, Commit("a", [(1, b"")]))
        fails = ["after", "before"]
        commit = PlainTransaction.commit

        def lose_connection(self: PlainTransaction) -> None:
            failing = fails.pop(0) if fails else None
            if failing != "before":
                commit(self)
            if failing is not None:
                msg = "connection lost"
                raise sqlite3.OperationalError(msg)

        monkeypatch.setattr(PlainTransaction, "commit", lose_connection)
        # A single entry would not be written in a transaction of several statements.
        await store.commit(Commit("a", [(2, b"stored"), (3, b"too")]))
        with pytest.raises(StoreError, match="connection lost"):
            await store.commit(Commit("a", [(4, b"not"), (5, b"stored")]))
        assert [seq for seq, _ in (await store.load("a")).entries] == [1, 2, 3]
        # The driver of the failed commit is lost, and the run can be claimed again, even by the
        # same store.
        with pytest.raises(StoreError, match="earlier commit"):
            await store.commit(Commit("a", [(6, b"")]))
        await store.claim("a")
        await store.commit(Commit("a", [(4, b"stored")]))


async def test_a_busy_loop_does_not_stop_the_writer(tmp_path: Path) -> None:
    async with open_by_id(f"sqlite:///{tmp_path}/a.db") as store, trio.open_nursery() as nursery:

        async def compute() -> None:
            while True:
                until = time.perf_counter() + 0.001
                while time.perf_counter() < until:
                    pass
                await trio.lowlevel.checkpoint()

        await store.create(_NEW, Commit("a", [(1, b"")]))
        nursery.start_soon(compute)
        with trio.fail_after(120):
            for seq in range(2, 102):
                await store.commit(Commit("a", [(seq, b"x")]))
        assert store.statistics().commits == 101
        nursery.cancel_scope.cancel()


async def test_an_idle_store_does_not_wake_the_loop(tmp_path: Path) -> None:
    class Turns(trio.abc.Instrument):
        count = 0

        def before_io_wait(self, timeout: float) -> None:
            self.count += 1

    async with open_by_id(f"sqlite:///{tmp_path}/a.db") as store:
        await store.create(_NEW, Commit("a", [(1, b"")]))
        turns = Turns()
        trio.lowlevel.add_instrument(turns)
        await trio.sleep(0.1)
        trio.lowlevel.remove_instrument(turns)
        assert turns.count < 10
