"""The store over SQLAlchemy: what its methods promise is said by `CheckpointStore`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import sqlalchemy as sa
import trio

from blazen_trio._stores import arguments
from blazen_trio._stores.base import StoreQueries
from blazen_trio._stores.sql import jobs, queries
from blazen_trio._stores.sql.batches import Batches
from blazen_trio._stores.sql.engine import make_engine
from blazen_trio._stores.sql.faults import translate
from blazen_trio._stores.sql.migrate import prepare_database
from blazen_trio._stores.sql.writer import Writer

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import AsyncIterator, Callable, Sequence

    from blazen_trio._state.status import RunStatus
    from blazen_trio._stores.protocol import Commit, Mail, NewRun, RunInfo, StoredRun

__all__ = ["SqlStore", "StoreStatistics", "open_sql_store"]

T = TypeVar("T")
_READERS = 4  # threads that read at once


@attrs.frozen
class StoreStatistics:
    """What an opening of a store has done so far.

    Attributes:
        commits: How many commits, posts and the like were stored.
        batches: In how many transactions.
        bytes: How many bytes of payload they had.
        largest_batch: The most of them in one transaction.
        lease_id: The id of its lease; `None` while it has none.
        driven: How many runs it drives.
    """

    commits: int
    batches: int
    bytes: int
    largest_batch: int
    lease_id: int | None
    driven: int


class SqlStore(StoreQueries):
    """Runs kept in a database. Made by `open_store`, usable while its block lasts."""

    def __init__(self, engine: sa.Engine, batches: Batches, writer: Writer) -> None:
        self._engine = engine
        self._batches = batches
        self._writer = writer
        self._readers = trio.CapacityLimiter(_READERS)

    async def create(self, run: NewRun, first: Commit) -> None:
        """See `CheckpointStore.create`."""
        await self._submit(jobs.Create(run, first))

    async def claim(self, run_id: str) -> StoredRun:
        """See `CheckpointStore.claim`."""
        stored: StoredRun = await self._submit(jobs.Claim(run_id, self._batches.driven))
        return stored

    async def commit(self, commit: Commit) -> None:
        """See `CheckpointStore.commit`."""
        driven = self._batches.driven.get(commit.run_id)
        if driven is None or driven.released:
            self._writer.check_open()
            raise arguments.not_driven(commit.run_id)
        if driven.failed is not None:
            driven.check()
        driven.last = arguments.following(commit, driven.last)
        driven.released = commit.release
        await self._writer.submit(jobs.Append(driven, commit))

    async def release(self, run_id: str) -> None:
        """See `CheckpointStore.release`."""
        driven = self._batches.driven.get(run_id)
        if driven is None:
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            driven.released = True
            await self._writer.submit(jobs.Release(driven))

    async def post(self, run_id: str, kind: str, data: bytes, *, key: str | None = None) -> Mail | None:
        """See `CheckpointStore.post`."""
        mail: Mail | None = await self._submit(jobs.Post(run_id, kind, data, key))
        return mail

    async def load(self, run_id: str) -> StoredRun:
        """See `CheckpointStore.load`."""
        return await self._read(lambda connection: queries.load_run(connection, queries.find_run(connection, run_id)))

    async def list_runs(
        self,
        *,
        status: RunStatus | str | None = None,
        workflow: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[RunInfo]:
        """See `CheckpointStore.list_runs`."""
        arguments.check_limit(limit)
        wanted = None if status is None else arguments.parse_status(status)
        return await self._read(lambda connection: queries.list_runs(connection, wanted, workflow, limit, after))

    async def get_run(self, run_id: str) -> RunInfo:
        """See `CheckpointStore.get_run`."""
        return await self._read(lambda connection: queries.get_run(connection, run_id))

    async def delete_run(self, run_id: str) -> None:
        """See `CheckpointStore.delete_run`."""
        await self._submit(jobs.Delete(run_id, self._batches.driven))

    async def purge(
        self, *, older_than: dt.timedelta | dt.datetime, status: Sequence[RunStatus | str] | None = None
    ) -> int:
        """See `CheckpointStore.purge`. Deletes a hundred runs per transaction, so other runs are not held up."""
        before, statuses = arguments.cutoff(older_than), arguments.parse_statuses(status)
        total = after_no = 0
        while True:
            deleted: int
            last: int | None
            deleted, last = await self._submit(jobs.Purge(before, statuses, after_no, self._batches.driven))
            total += deleted
            if last is None:
                return total
            after_no = last

    def statistics(self) -> StoreStatistics:
        """What this opening has done so far."""
        batches = self._batches
        return StoreStatistics(
            commits=batches.commits,
            batches=batches.batches,
            bytes=batches.bytes,
            largest_batch=batches.largest,
            lease_id=batches.lease_id,
            driven=len(batches.driven),
        )

    async def _submit(self, job: jobs.Job) -> Any:
        """Have a job written; cancelled only before it is handed over."""
        await trio.lowlevel.checkpoint_if_cancelled()
        return await self._writer.submit(job)

    async def _read(self, query: Callable[[sa.Connection], T]) -> T:
        """Run a query in a thread, in one transaction that reads as of one moment."""

        def read() -> T:
            try:
                with self._engine.connect() as connection, connection.begin():
                    return query(connection)
            except sa.exc.DBAPIError as error:
                raise translate(error, "the store could not be read") from error

        return await trio.to_thread.run_sync(read, limiter=self._readers)


@contextlib.asynccontextmanager
async def open_sql_store(
    url_or_engine: str | sa.URL | sa.Engine, *, lease_ttl: float, busy_timeout: float, migrate: bool
) -> AsyncIterator[SqlStore]:
    """See `open_store`."""
    limiter = trio.CapacityLimiter(1)
    engine, ours = make_engine(url_or_engine)
    failure: BaseException | None = None
    try:

        def prepare() -> Batches:
            prepare_database(engine, migrate=migrate)
            return Batches(engine, lease_ttl=lease_ttl, busy_timeout=busy_timeout)

        batches = await trio.to_thread.run_sync(prepare, limiter=limiter)
        writer = Writer(batches, renew_every=lease_ttl / 3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            nursery.start_soon(writer.pace)
            try:
                yield SqlStore(engine, batches, writer)
            except BaseException as error:  # noqa: BLE001, ASYNC103  # raised again below, outside the nursery, bare
                failure = error
            await writer.close()
            nursery.cancel_scope.cancel(reason="the store is closed")
        if failure is not None:
            raise failure
    finally:
        if ours:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(engine.dispose, limiter=limiter)
