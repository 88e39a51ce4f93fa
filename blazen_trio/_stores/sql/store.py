"""The store over SQLAlchemy: what its methods promise is said by `CheckpointStore`."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import sqlalchemy as sa
import trio

from blazen_trio._clock import wall_clock
from blazen_trio._concurrency import protected_methods
from blazen_trio._stores import arguments
from blazen_trio._stores.base import StoreQueries
from blazen_trio._stores.sql import jobs, polling, queries
from blazen_trio._stores.sql.batches import Batches
from blazen_trio._stores.sql.callers import Callers, check_connection
from blazen_trio._stores.sql.clock import DatabaseClock
from blazen_trio._stores.sql.faults import translate
from blazen_trio._stores.sql.reading import Readers
from blazen_trio._stores.sql.troubles import ANSWER_WITHIN
from blazen_trio._stores.sql.watch import Watch
from blazen_trio._stores.sql.writer import Writer
from blazen_trio.errors import StoreError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Collection, Sequence

    from blazen_trio._state.status import RunStatus
    from blazen_trio._stores.protocol import Commit, Mail, NewRun, Poll, RunInfo, StoredRun

__all__ = ["SqlStore", "StoreStatistics"]

T = TypeVar("T")


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


@protected_methods
class SqlStore(StoreQueries):
    """Runs kept in a database. Made by `open_store`, usable while its block lasts."""

    def __init__(
        self,
        engine: sa.Engine,
        batches: Batches,
        writer: Writer,
        *,
        readers: Readers | None = None,
        clock: DatabaseClock | None = None,
    ) -> None:
        self._engine = engine
        self._batches = batches
        self._writer = writer
        self._clock = clock or DatabaseClock(wall_clock())
        self._readers = readers or Readers(
            engine,
            Watch(),
            silence=ANSWER_WITHIN,
            place=None,
            reach=batches.reach,
            clock=self._clock,
        )
        self._callers = Callers(engine, batches)

    def now(self) -> float:
        """See `CheckpointStore.now`."""
        return self._clock.now()

    async def create(self, run: NewRun, first: Commit, *, connection: sa.Connection | None = None) -> None:
        """See `CheckpointStore.create`."""
        job = jobs.Create(run, first)
        await (self._submit(job) if connection is None else self._write_with(connection, job))

    async def claim(self, run_id: str) -> StoredRun:
        """See `CheckpointStore.claim`."""
        stored: StoredRun = await self._submit(jobs.Claim(run_id, self._batches.driven))
        return stored

    async def take(self, workflows: Sequence[str], limit: int, *, suspects: int | None = None) -> list[StoredRun]:
        """See `CheckpointStore.take`."""
        arguments.check_limit(limit)
        taken: list[tuple[sa.Row[Any], jobs.Driven]] = await self._submit(jobs.Take(workflows, limit, suspects))
        if not taken:
            return []
        # They are ours: whatever comes, their caller gets them, or they are given back.
        with trio.CancelScope(shield=True):
            found = await self._read_taken([row for row, _ in taken], [driven for _, driven in taken])
        for (_, driven), stored in zip(taken, found, strict=True):
            driven.last = stored.last
        return found

    async def _read_taken(self, rows: Sequence[sa.Row[Any]], taken: Sequence[jobs.Driven]) -> list[StoredRun]:
        """Read runs that we have begun to drive. Nobody else changes one but its inbox, and polling finds what comes there later.
        Where we have lost them meanwhile nothing can be written to what was read.
        """
        try:
            return await self._read(lambda connection: queries.load_runs(connection, rows))
        except BaseException:
            with contextlib.suppress(StoreError):  # then the whole lease is given back
                await self._writer.submit(jobs.GiveBack(taken))  # noqa: ASYNC102  # shielded by who calls this
            raise

    async def poll(self, workflows: Sequence[str], watched: Collection[str] = ()) -> Poll:
        """See `CheckpointStore.poll`."""
        lease_id = self._batches.lease_id
        return await self._read(lambda connection: polling.poll(connection, lease_id, workflows, list(watched)))

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

    async def release(self, run_id: str, *, wake: float | None = None, hold: float | None = None) -> None:
        """See `CheckpointStore.release`."""
        driven = self._batches.driven.get(run_id)
        if driven is None:
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            driven.released = True
            await self._writer.submit(jobs.Release(driven, wake, hold))

    async def post(
        self, run_id: str, kind: str, data: bytes, *, key: str | None = None, connection: sa.Connection | None = None
    ) -> Mail | None:
        """See `CheckpointStore.post`."""
        job = jobs.Post(run_id, kind, data, key)
        mail: Mail | None = await (self._submit(job) if connection is None else self._write_with(connection, job))
        return mail

    async def load(self, run_id: str) -> StoredRun:
        """See `CheckpointStore.load`."""
        return await self._read(
            lambda connection: queries.load_runs(connection, [queries.find_run(connection, run_id)])[0]
        )

    async def list_runs(
        self,
        *,
        status: RunStatus | str | Sequence[RunStatus | str] | None = None,
        workflow: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[RunInfo]:
        """See `CheckpointStore.list_runs`."""
        arguments.check_limit(limit)
        wanted = arguments.parse_statuses(status, arguments.ALL)
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
        before, statuses = arguments.cutoff(older_than), arguments.parse_statuses(status, arguments.ENDED)
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

    async def _write_with(self, connection: sa.Connection, job: jobs.Job) -> Any:
        """Do a job in its caller's own transaction: it is on disk when, and if, they commit."""
        check_connection(connection)
        write = partial(self._callers.write, connection, job)
        try:
            return await trio.to_thread.run_sync(write, limiter=trio.CapacityLimiter(1))
        except sa.exc.SQLAlchemyError as error:
            raise translate(error, "the store could not be written") from error

    async def _read(self, query: Callable[[sa.Connection], T]) -> T:
        """Run a query in a thread, in one transaction that reads as of one moment."""
        return await self._readers.read(query)
