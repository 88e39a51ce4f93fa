"""Actions that need an undriven run check that in a condition of the statement itself.

Other processes change rows between our statements.
"""

from __future__ import annotations

import datetime as dt
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import sqlalchemy as sa
import trio

from blazen_trio._state.status import RunStatus
from blazen_trio._stores.open_store import open_store
from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio._stores.sql.transaction import BatchTransaction
from blazen_trio.errors import RunLockedError, RunNotFoundError, WorkflowError
from tests.databases import SERVERS, execute

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blazen_trio._stores.sql.store import SqlStore

pytestmark = pytest.mark.parametrize("kind", SERVERS)

_NEW = NewRun("w", "1", 1.0)
_ORPHANS = """SELECT count(*) FROM blazen_journal j
WHERE NOT EXISTS (SELECT 1 FROM blazen_run r WHERE r.run_no = j.run_no)"""


class Stretched:
    """The moment before a statement."""

    def __init__(self) -> None:
        self.reached, self.may = threading.Event(), threading.Event()


@contextmanager
def stretched(store: SqlStore, *heads: str) -> Iterator[Stretched]:
    """Hold the writer's thread before its next statement that starts with one of `heads`."""
    moment = Stretched()
    engine = store._batches._writers

    def hold(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.lstrip().startswith(heads) and not moment.reached.is_set():
            moment.reached.set()
            assert moment.may.wait(20)

    sa.event.listen(engine, "before_cursor_execute", hold)
    yield moment
    sa.event.remove(engine, "before_cursor_execute", hold)


@contextmanager
def stretched_post() -> Iterator[Stretched]:
    """Hold the writer's thread between reading a run and posting to it."""
    moment = Stretched()
    real = BatchTransaction.add_mail

    def hold(*given: Any) -> Any:
        moment.reached.set()
        assert moment.may.wait(20)
        return real(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchTransaction, "add_mail", hold)
        yield moment


async def _failed_run(store: SqlStore) -> None:
    first = Commit("a", [(1, b"1")], status=RunStatus.FAILED, at=1.0, release=True)
    await store.create(_NEW, first)


@pytest.mark.parametrize("how", ["delete", "purge"])
async def test_a_run_that_is_claimed_before_the_deletion_is_not_deleted(url: str, how: str) -> None:
    async with open_store(url, migrate=True) as store, open_store(url) as other:
        await _failed_run(store)
        outcomes: list[Any] = []

        async def delete() -> None:
            try:
                if how == "delete":
                    outcomes.append(await store.delete_run("a"))
                else:
                    outcomes.append(await store.purge(older_than=dt.timedelta(0)))
            except WorkflowError as error:
                outcomes.append(type(error))

        with stretched(store, "DELETE FROM blazen_") as moment:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(delete)
                await trio.to_thread.run_sync(moment.reached.wait)
                claimed = await other.claim("a")
                moment.may.set()
        assert outcomes == [RunLockedError if how == "delete" else 0]
        assert claimed.driver is not None
        await other.commit(claimed.driver, Commit("a", [(2, b"2")]))
        assert len((await other.load("a")).entries) == 2


async def test_a_run_that_completes_while_it_is_claimed_is_read_as_completed(url: str) -> None:
    async with open_store(url, migrate=True) as store, open_store(url) as other:
        await _failed_run(store)
        read: list[Any] = []

        async def claim() -> None:
            read.append(await store.claim("a"))

        with stretched(store, "UPDATE blazen_run SET") as moment:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(claim)
                await trio.to_thread.run_sync(moment.reached.wait)
                claimed = await other.claim("a")
                assert claimed.driver is not None
                end = Commit("a", [(2, b"2")], status=RunStatus.COMPLETED, at=2.0, release=True)
                await other.commit(claimed.driver, end)
                moment.may.set()
        assert (read[0].info.status, read[0].driver) == (RunStatus.COMPLETED, None)
        assert len(read[0].entries) == 2
        assert execute(url, "SELECT owner FROM blazen_run") == [(None,)]
        assert store.statistics().driven == 0
        await other.delete_run("a")


async def test_a_run_that_is_deleted_while_it_is_claimed_is_not_found(url: str) -> None:
    async with open_store(url, migrate=True) as store, open_store(url) as other:
        await _failed_run(store)
        with stretched(store, "UPDATE blazen_run SET") as moment:
            async with trio.open_nursery() as nursery:

                async def claim() -> None:
                    with pytest.raises(RunNotFoundError):
                        await store.claim("a")

                nursery.start_soon(claim)
                await trio.to_thread.run_sync(moment.reached.wait)
                await other.delete_run("a")
                moment.may.set()
        assert execute(url, _ORPHANS) == [(0,)]


async def test_a_message_that_slipped_in_behind_a_deletion_is_purged(url: str) -> None:
    async with open_store(url, migrate=True) as store, open_store(url) as other:
        first = Commit("a", [(1, b"1")], status=RunStatus.WAITING, at=1.0, release=True)
        await store.create(_NEW, first)
        with stretched_post() as moment:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.post, "a", "event", b"late")
                await trio.to_thread.run_sync(moment.reached.wait)
                await other.delete_run("a")
                moment.may.set()
        assert execute(url, "SELECT count(*) FROM blazen_inbox") == [(1,)]
        await store.create(_NEW, attrs.evolve(first, run_id="b"))
        await store.post("b", "event", b"kept")
        assert await store.purge(older_than=dt.timedelta(0)) == 0
        assert execute(url, "SELECT count(*) FROM blazen_inbox") == [(1,)]
        assert len((await store.load("b")).inbox) == 1


async def test_purging_while_failed_runs_are_resumed_loses_nothing(url: str) -> None:
    kept: list[str] = []
    async with open_store(url, migrate=True) as store, open_store(url) as other:
        for number in range(60):
            first = Commit(f"r{number}", [(1, b"1")], status=RunStatus.FAILED, at=1.0, release=True)
            await store.create(_NEW, first)

        async def try_again(run_id: str) -> None:
            try:
                claimed = await other.claim(run_id)
            except RunNotFoundError:
                return
            assert claimed.driver is not None
            again = Commit(run_id, [(2, b"2")], status=RunStatus.RUNNING, at=2.0)
            await other.commit(claimed.driver, again)
            kept.append(run_id)

        async with trio.open_nursery() as nursery:
            for number in range(0, 60, 2):
                nursery.start_soon(try_again, f"r{59 - number}")
            nursery.start_soon(lambda: store.purge(older_than=dt.timedelta(0)))
        assert {run.run_id for run in await store.list_runs()} == set(kept)
        for run_id in kept:
            assert len((await other.load(run_id)).entries) == 2
        assert execute(url, _ORPHANS) == [(0,)]
