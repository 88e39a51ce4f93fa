"""A store that fails on demand, for tests of what runs do then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from blazen_trio._stores import excerpts
from blazen_trio._stores.base import StoreQueries
from blazen_trio.errors import StoreError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Collection, Sequence

    from blazen_trio._clock import Utc
    from blazen_trio._state.status import RunStatus
    from blazen_trio._stores.driver import Driver, Mail
    from blazen_trio._stores.excerpts import AskedRun, RunEnd
    from blazen_trio._stores.protocol import (
        CheckpointStore,
        Commit,
        NewRun,
        Poll,
        RunInfo,
        StoredRun,
    )

__all__ = ["FaultyStore"]


class FaultyStore(StoreQueries):
    """A wrapper of a store that is severed at a commit of your choice.

    Once severed, all of its methods raise `StoreError`: a process that is killed at that point does
    nothing more either. The runs that it drove are released in the wrapped store, as those of a
    dead process are. Resume them there::

        faulty = FaultyStore(store, fail_after=3)     # stored, but the caller gets an error

    Args:
        store: The wrapped store.
        fail_before: The number of a commit, from 1. The store is severed before it, so the commit
            is not stored.
        fail_after: The number of a commit. The store is severed after it, so the commit is stored.
        on_commit: Called with each commit's number before it is stored. The commit raises any
            exception that it raises.

    Attributes:
        commits: The number of commits so far; `create` counts as one.
        severed: Whether the store is severed.
    """

    def __init__(
        self,
        store: CheckpointStore,
        *,
        fail_before: int | None = None,
        fail_after: int | None = None,
        on_commit: Callable[[int], object] | None = None,
    ) -> None:
        self.commits = 0
        self.severed = False
        self._store = store
        self._fail_before = fail_before
        self._fail_after = fail_after
        self._on_commit = on_commit
        self._driven: set[Driver] = set()

    def fail_next(self) -> None:
        """Sever the store before the next commit, which is not stored."""
        self._fail_before = self.commits + 1

    async def sever(self) -> None:
        """Sever the store now."""
        self.severed = True
        with trio.CancelScope(shield=True):
            while self._driven:
                await self._store.release(self._driven.pop())
            await trio.lowlevel.checkpoint()

    def clock(self) -> Utc:
        """See `CheckpointStore.clock`."""
        return self._store.clock()

    async def create(self, run: NewRun, first: Commit, *, connection: Any = None) -> Driver | None:
        """See `CheckpointStore.create`."""
        number = await self._begin()
        driver = await self._store.create(run, first, connection=connection)
        if driver is not None:
            self._driven.add(driver)
        await self._end(number)
        return driver

    async def commit(self, driver: Driver, commit: Commit) -> None:
        """See `CheckpointStore.commit`."""
        number = await self._begin()
        await self._store.commit(driver, commit)
        if commit.release:
            self._driven.discard(driver)
        await self._end(number)

    async def claim(self, run_id: str) -> StoredRun:
        """See `CheckpointStore.claim`."""
        self._check()
        stored = await self._store.claim(run_id)
        self._note([stored])
        await self._end(0)
        return stored

    async def claim_end(self, run_id: str, kinds: Collection[str]) -> RunEnd:
        """See `excerpts.claim_end`."""
        self._check()
        end = await excerpts.claim_end(self._store, run_id, kinds)
        if end.driver is not None:
            self._driven.add(end.driver)
        await self._end(0)
        return end

    async def asked_run(
        self, run_id: str, request_id: str | None = None, *, connection: Any = None
    ) -> AskedRun:
        """See `excerpts.asked_run`."""
        self._check()
        return await excerpts.asked_run(self._store, run_id, request_id, connection=connection)

    async def take(
        self,
        workflows: Sequence[str],
        limit: int,
        *,
        suspects: int | None = None,
        patient: bool = False,
    ) -> list[StoredRun]:
        """See `CheckpointStore.take`."""
        self._check()
        taken = await self._store.take(workflows, limit, suspects=suspects, patient=patient)
        self._note(taken)
        await self._end(0)
        return taken

    async def poll(self, workflows: Sequence[str], watched: Collection[str] = ()) -> Poll:
        """See `CheckpointStore.poll`."""
        self._check()
        return await self._store.poll(workflows, watched)

    def _note(self, driven: Sequence[StoredRun]) -> None:
        self._driven.update(stored.driver for stored in driven if stored.driver is not None)

    async def release(
        self,
        driver: Driver,
        *,
        wake: float | None = None,
        hold: float | None = None,
        crash: str | None = None,
        reason: str | None = None,
    ) -> None:
        """See `CheckpointStore.release`."""
        self._check()
        self._driven.discard(driver)
        more = {} if reason is None else {"reason": reason}
        await self._store.release(driver, wake=wake, hold=hold, crash=crash, **more)

    async def set_aside(self, driver: Driver, error: str) -> None:
        """See `CheckpointStore.set_aside`."""
        self._check()
        self._driven.discard(driver)
        await self._store.set_aside(driver, error)

    async def post(
        self,
        run_id: str,
        kind: str,
        data: bytes,
        *,
        key: str | None = None,
        second_key: str | None = None,
        connection: Any = None,
    ) -> Mail | None:
        """See `CheckpointStore.post`."""
        self._check()
        keys = {"key": key} if second_key is None else {"key": key, "second_key": second_key}
        mail = await self._store.post(run_id, kind, data, **keys, connection=connection)
        self._check()
        return mail

    async def has_key(self, run_id: str, key: str, *, connection: Any = None) -> bool:
        """See `CheckpointStore.has_key`."""
        self._check()
        given = {} if connection is None else {"connection": connection}
        return await self._store.has_key(run_id, key, **given)

    async def load(self, run_id: str, *, connection: Any = None) -> StoredRun:
        """See `CheckpointStore.load`."""
        self._check()
        given = {} if connection is None else {"connection": connection}
        return await self._store.load(run_id, **given)

    async def list_runs(
        self,
        *,
        status: RunStatus | str | Sequence[RunStatus | str] | None = None,
        workflow: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[RunInfo]:
        """See `CheckpointStore.list_runs`."""
        self._check()
        return await self._store.list_runs(
            status=status, workflow=workflow, limit=limit, after=after
        )

    async def get_run(self, run_id: str) -> RunInfo:
        """See `CheckpointStore.get_run`."""
        self._check()
        return await self._store.get_run(run_id)

    async def delete_run(self, run_id: str) -> None:
        """See `CheckpointStore.delete_run`."""
        self._check()
        await self._store.delete_run(run_id)

    async def purge(
        self,
        *,
        older_than: dt.timedelta | dt.datetime,
        status: Sequence[RunStatus | str] | None = None,
    ) -> int:
        """See `CheckpointStore.purge`."""
        self._check()
        return await self._store.purge(older_than=older_than, status=status)

    def _check(self) -> None:
        if self.severed:
            raise StoreError(
                "severed: this FaultyStore was severed by its test, so every call fails; "
                "continue with the wrapped store"
            )

    async def _begin(self) -> int:
        """Count a commit before it is handed over.

        Suspends only where it severs the store, so commits keep the order of their calls.
        """
        self._check()
        self.commits += 1
        number = self.commits
        if self._on_commit is not None:
            self._on_commit(number)
        if number == self._fail_before:
            await self.sever()
        self._check()
        return number  # noqa: ASYNC910  # suspending could reorder the commits

    async def _end(self, number: int) -> None:  # noqa: ASYNC910  # the wrapped store has suspended
        if self.severed or number == self._fail_after:
            await self.sever()
        # Also if another commit has severed the store by now: a killed process gets no answer, even
        # to what was stored.
        self._check()
