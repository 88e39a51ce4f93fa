"""The stores that a simulation keeps its runs in.

One is the store in memory. The other is the SQL store on a real SQLite file, without threads and
in simulated time.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import sqlalchemy as sa
import trio

from blazen_trio import MemoryStore
from blazen_trio._stores.protocol import RunInfo, StoredRun
from blazen_trio._stores.sql import leases, queries
from blazen_trio._stores.sql.batches import Batches
from blazen_trio._stores.sql.engine import make_engine
from blazen_trio._stores.sql.migrate import prepare_database
from blazen_trio._stores.sql.schema import inbox, journal, lease, runs
from blazen_trio._stores.sql.store import SqlStore
from tests.simulation.scheduler import EPOCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEASE_TTL = 15.0  # seconds


@attrs.frozen
class RunRow:
    """A run's row, as the invariants see it.

    `wake` and `hold` are UTC, in seconds since the epoch.
    """

    info: RunInfo
    owner: Any
    wake: float | None
    hold: float
    crashes: int
    inbox: int
    last: int | None
    load: Callable[[], StoredRun] = attrs.field(eq=False, repr=False)


class Backend(Protocol):
    """A store that several processes have opened."""

    def open(self) -> Any:
        """Open the store once more, as another process would."""

    def renew(self, store: Any) -> None:
        """Renew the lease of an opening that does nothing else."""

    async def watch_inboxes(self, store: Any) -> None:
        """Poll forever for inbox messages from other processes, as a task of the store does."""

    def expire(self, store: Any) -> None:
        """Let the others know that the process of this opening is dead."""

    def lapse(self, store: Any) -> None:
        """Handle an opening that has been silent for longer than its lease."""

    def abandon(self, store: Any) -> Any:
        """Make an opening forget which runs it drives.

        Return the opening that its process continues with.
        """

    def drives(self, store: Any, run_id: str) -> bool:
        """Return whether this opening drives the run, and has not been declared dead."""

    def rows(self) -> Iterator[RunRow]:
        """Yield the rows of all runs."""


class InMemory:
    """The store in memory."""

    def __init__(self) -> None:
        self._storage = MemoryStore()

    def open(self) -> MemoryStore:
        return self._storage.beside()

    def renew(self, store: MemoryStore) -> None:
        pass

    async def watch_inboxes(self, store: MemoryStore) -> None:
        await trio.lowlevel.checkpoint()  # `post` delivers messages itself

    def expire(self, store: MemoryStore) -> None:
        store.expire()

    lapse = expire

    def abandon(self, store: MemoryStore) -> MemoryStore:
        store.expire()
        return self.open()

    def drives(self, store: MemoryStore, run_id: str) -> bool:
        return self._storage._runs[run_id].owner is store._lease

    def rows(self) -> Iterator[RunRow]:
        for kept in self._storage._runs.values():
            yield RunRow(
                kept.info,
                kept.owner,
                kept.wake,
                kept.hold,
                kept.crashes,
                len(kept.inbox),
                kept.last,
                kept.stored,
            )


class _InlineWriter:
    """A writer that writes each job immediately, in the task that submits it."""

    def __init__(self, batches: Batches, process: int) -> None:
        self._batches = batches
        self.process = process

    async def submit(self, job: Any) -> Any:
        self.write([job])
        await trio.lowlevel.cancel_shielded_checkpoint()
        if job.error is not None:
            raise job.error
        return job.result

    def write(self, jobs: list[Any]) -> None:
        _writing[0] = self.process
        for job in self._batches.write(jobs):
            job.settle()

    def check_open(self) -> None:
        pass


_writing = [0]
"""The simulated process that is writing."""


class InSqlite:
    """The SQL store on a file.

    Calls replace its threads, Trio's clock replaces the database's, and numbers replace processes.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._dead: set[int] = set()
        self._opened = 0
        self._stack = ExitStack()
        self._engine = self._make_engine()
        prepare_database(self._engine, migrate=True)

    @classmethod
    @contextmanager
    def simulated(cls) -> Iterator[InSqlite]:
        """Provide a store on a new file."""
        holder = leases.Holder
        this_process, known_dead, run_sync = (
            holder.this_process,
            holder.known_dead,
            trio.to_thread.run_sync,
        )
        with TemporaryDirectory() as folder:
            backend = cls(f"sqlite:///{Path(folder) / 'runs.db'}")
            try:
                holder.this_process = staticmethod(
                    lambda: holder("host", "boot", "pids", _writing[0], 1)
                )  # type: ignore[method-assign,assignment]
                holder.known_dead = (  # type: ignore[method-assign]
                    lambda self: self.pid in backend._dead
                )
                trio.to_thread.run_sync = _run_here  # type: ignore[assignment]
                yield backend
            finally:
                holder.this_process = this_process  # type: ignore[method-assign]
                holder.known_dead = known_dead  # type: ignore[method-assign]
                trio.to_thread.run_sync = run_sync
                backend._stack.close()

    def _make_engine(self) -> sa.Engine:
        engine, _ = make_engine(self._url)
        self._stack.callback(engine.dispose)

        @sa.event.listens_for(engine, "connect")
        def use_simulated_time(connection: Any, _record: Any) -> None:
            connection.create_function("julianday", 1, lambda _now: _utc() / 86400 + 2440587.5)
            connection.execute("PRAGMA synchronous = OFF")

        return engine

    def open(self) -> SqlStore:
        engine = self._make_engine()
        batches = Batches(engine, lease_ttl=LEASE_TTL, busy_timeout=1.0)
        batches.sights = leases.Sights(LEASE_TTL, clock=trio.current_time)
        batches._number = self._opened * 1_000_000
        self._opened += 1
        writer: Any = _InlineWriter(batches, self._opened)
        return SqlStore(engine, batches, writer)

    async def watch_inboxes(self, store: SqlStore) -> None:
        await store.watch_mail()

    def renew(self, store: SqlStore) -> None:
        store._writer.write([])  # type: ignore[attr-defined]

    def expire(self, store: SqlStore) -> None:
        self._dead.add(store._writer.process)  # type: ignore[attr-defined]

    def lapse(self, store: SqlStore) -> None:
        """Do nothing: the database's clock shows it."""

    def abandon(self, store: SqlStore) -> SqlStore:
        batches = store._batches
        if batches.lease_id is not None:
            batches._abandon(batches.lease_id)
        losses, batches._losses = batches._losses, []
        for loss in losses:
            loss.settle()
        return store

    def drives(self, store: SqlStore, run_id: str) -> bool:
        alive = sa.select(lease.c.lease_id).where(lease.c.state == 1)
        owner = sa.select(runs.c.owner).where(runs.c.run_id == run_id, runs.c.owner.in_(alive))
        with self._engine.connect() as connection, connection.begin():
            found = connection.execute(owner).scalar()
        return found is not None and found == store._batches.lease_id

    def rows(self) -> Iterator[RunRow]:
        with self._engine.connect() as connection, connection.begin():
            last = (
                sa.select(sa.func.max(journal.c.seq))
                .where(journal.c.run_no == runs.c.run_no)
                .scalar_subquery()
            )
            messages = (
                sa.select(sa.func.count()).where(inbox.c.run_no == runs.c.run_no).scalar_subquery()
            )
            for row in connection.execute(
                sa.select(runs, last.label("last"), messages.label("messages"))
            ).all():
                yield RunRow(
                    queries.info_of(row),
                    row.owner,
                    None if row.wake is None else row.wake / 1e6,
                    row.hold / 1e6,
                    row.crashes,
                    row.messages,
                    row.last,
                    lambda row=row: queries.load_runs(connection, [row])[0],  # type: ignore[misc]
                )


def _utc() -> float:
    try:
        return EPOCH + trio.current_time()
    except RuntimeError:  # before the simulation starts
        return EPOCH


async def _run_here(function: Callable[..., Any], *args: Any, **_options: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return function(*args)
