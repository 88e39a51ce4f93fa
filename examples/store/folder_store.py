"""A checkpoint store with one file per run, which each commit rewrites.

It is for one program at a time, and for small runs: the larger a run, the more a commit costs.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio
from run_files import locking, pack, path_of, read_all, remove, replace
from run_record import RunRecord

from blazen_trio import (
    RunExistsError,
    RunFinishedError,
    RunInfo,
    RunLockedError,
    RunNotFoundError,
    RunStatus,
    StaleRunError,
    StoreError,
)
from blazen_trio.stores import (
    SUSPECT,
    Commit,
    Driver,
    KeyUsedError,
    Mail,
    NewRun,
    Poll,
    StoredRun,
    StoreQueries,
    Utc,
    WallClock,
)


class FolderStore(StoreQueries):
    """A store over the records of one folder. `open_folder` opens it.

    `CheckpointStore` documents its public methods. `StoreQueries` has the other two, `history` and
    `load_snapshot`.

    Args:
        folder: The folder.
        records: The runs in it.
    """

    def __init__(self, folder: Path, records: Iterable[RunRecord]) -> None:
        self._folder = folder
        self._records = {record.run_id: record for record in records}
        # Readers see only what is on disk, so no crash can take back what they saw.
        self._on_disk = {run_id: record.stored() for run_id, record in self._records.items()}
        self._drivers: dict[str, Driver] = {}
        self._writing = trio.Lock()  # granted in the order of the requests
        self._broken: OSError | None = None
        self._last_mail_id = 0
        self._clock = WallClock()

    def clock(self) -> Utc:
        """Return the clock for due times."""
        return self._clock

    # Creating and driving runs

    async def create(self, run: NewRun, first: Commit, *, connection: Any = None) -> Driver | None:
        """Store a new run."""
        await trio.lowlevel.checkpoint_if_cancelled()
        _refuse(connection)
        if first.run_id in self._records:
            msg = f"run {first.run_id!r} exists already"
            raise RunExistsError(msg, run_id=first.run_id)
        record = RunRecord(first.run_id, run.workflow, run.version, run.created, run.created)
        driver = None if first.release else self._drive(record)
        record.apply(first)
        self._records[record.run_id] = record
        await self._save(record)
        return driver

    async def claim(self, run_id: str) -> StoredRun:
        """Drive a run; one that has completed is only read."""
        await trio.lowlevel.checkpoint_if_cancelled()
        record = self._find(run_id)
        if record.status is RunStatus.COMPLETED:
            stored = record.stored()
        else:
            self._check_free(record)
            record.crashes = 0
            stored = attrs.evolve(record.stored(), driver=self._drive(record))
        await self._save(record)
        return stored

    async def take(
        self,
        workflows: Sequence[str],
        limit: int,
        *,
        suspects: int | None = None,
        patient: bool = False,  # noqa: ARG002  # no other process can hold a lease
    ) -> list[StoredRun]:
        """Drive runs of these workflows that can resume."""
        await trio.lowlevel.checkpoint_if_cancelled()
        taken: list[RunRecord] = []
        for record in sorted(self._ready(workflows), key=lambda record: record.wake or 0.0):
            if len(taken) == limit:
                break
            if record.crashes >= SUSPECT and suspects is not None:
                if not suspects:
                    continue
                suspects -= 1
            taken.append(record)
        stored = [attrs.evolve(record.stored(), driver=self._drive(record)) for record in taken]
        await self._save(*taken)
        return stored

    async def commit(self, driver: Driver, commit: Commit) -> None:
        """Store what a driver has done."""
        record = self._driven_by(driver)
        if isinstance(driver.lost, StoreError):
            msg = f"an earlier commit of run {driver.run_id!r} failed"
            raise StoreError(msg, run_id=driver.run_id)
        if record is None or driver.lost is not None or driver.run_id != commit.run_id:
            msg = f"run {commit.run_id!r} has another driver, or none"
            raise StaleRunError(msg, run_id=commit.run_id)
        try:
            record.apply(commit)  # before any checkpoint, so commits keep the order of the calls
        except (StaleRunError, StoreError) as error:
            driver.lose(error)
            raise
        await self._save(record)

    async def release(
        self,
        driver: Driver,
        *,
        wake: float | None = None,
        hold: float | None = None,
        crash: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Leave a run without a driver."""
        record = self._driven_by(driver)
        if record is not None:
            record.crashes += crash is not None
            record.error = crash or reason or record.error
        await self._release(record, wake, hold or 0.0)

    async def set_aside(self, driver: Driver, error: str) -> None:
        """Mark a run that can't be read as failed."""
        record = self._driven_by(driver)
        if record is not None:
            record.status, record.error, record.updated = RunStatus.FAILED, error, time.time()
        await self._release(record)

    async def poll(self, workflows: Sequence[str], watched: Collection[str] = ()) -> Poll:
        """Return whether a run can be taken, and the rows of the watched runs."""
        await trio.lowlevel.checkpoint()
        infos = {
            run_id: self._on_disk[run_id].info for run_id in watched if run_id in self._on_disk
        }
        return Poll(any(self._ready(workflows)), infos)

    # Inboxes

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
        """Store a message in a run's inbox, and hand it to the run's driver."""
        await trio.lowlevel.checkpoint_if_cancelled()
        _refuse(connection)
        record = self._find(run_id)
        used = key is not None and key in record.keys
        if record.status.ended and not used:
            msg = f"run {run_id!r} has ended"
            raise RunFinishedError(msg, run_id=run_id, status=record.status)
        if used:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return None
        if second_key is not None and second_key in record.keys:
            msg = f"the key {second_key!r} was used before"
            raise KeyUsedError(msg, run_id=run_id)
        # Larger than any id that an earlier opening gave.
        self._last_mail_id = max(self._last_mail_id + 1, time.time_ns())
        record.inbox.append((self._last_mail_id, kind, bytes(data), key))
        record.keys += [each for each in (key, second_key) if each is not None]
        mail = Mail(*record.inbox[-1])
        if record.driven:  # the commit that takes it is written after it
            self._drivers[run_id].deliver([mail])
        await self._save(record)
        return mail

    async def has_key(self, run_id: str, key: str, *, connection: Any = None) -> bool:
        """Return whether a key was used with a run."""
        await trio.lowlevel.checkpoint()
        _refuse(connection)
        return key in self._find(run_id).keys

    # Reading and deleting

    async def load(self, run_id: str, *, connection: Any = None) -> StoredRun:
        """Return what is stored of a run."""
        await trio.lowlevel.checkpoint()
        _refuse(connection)
        self._find(run_id)
        return self._on_disk[run_id]

    async def get_run(self, run_id: str) -> RunInfo:
        """Return one line about a run."""
        return (await self.load(run_id)).info

    async def list_runs(
        self,
        *,
        status: RunStatus | str | Sequence[RunStatus | str] | None = None,
        workflow: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[RunInfo]:
        """Return a page of the runs, oldest first."""
        await trio.lowlevel.checkpoint()
        infos = sorted((each.info for each in self._on_disk.values()), key=lambda one: one.created)
        if after is not None:
            infos = infos[[info.run_id for info in infos].index(after) + 1 :]
        wanted = _statuses(status, tuple(RunStatus))
        chosen = [info for info in infos if info.status in wanted]
        return [info for info in chosen if info.workflow == (workflow or info.workflow)][:limit]

    async def delete_run(self, run_id: str) -> None:
        """Delete a run that has no driver."""
        await trio.lowlevel.checkpoint_if_cancelled()
        record = self._find(run_id)
        self._check_free(record)
        del self._records[run_id]
        with trio.CancelScope(shield=True):
            async with self._writing:
                await self._in_a_thread(remove, path_of(self._folder, run_id))
                del self._on_disk[run_id]

    async def purge(
        self,
        *,
        older_than: dt.timedelta | dt.datetime,
        status: Sequence[RunStatus | str] | None = None,
    ) -> int:
        """Delete runs that ended long ago."""
        if isinstance(older_than, dt.timedelta):
            older_than = dt.datetime.now(dt.UTC) - older_than
        before = older_than.timestamp()
        wanted = _statuses(status, tuple(each for each in RunStatus if each.ended))
        old = [
            record.run_id
            for record in self._records.values()
            if record.status in wanted and record.updated < before and not record.driven
        ]
        for run_id in old:
            await self.delete_run(run_id)
        await trio.lowlevel.checkpoint()
        return len(old)

    async def release_all(self) -> None:
        """Leave every run without a driver, for the next program that opens the folder."""
        driven = [record for record in self._records.values() if record.driven]
        for record in driven:
            record.release()
        await self._save(*driven)

    # The records and their files

    def _find(self, run_id: str) -> RunRecord:
        if run_id not in self._records:
            msg = f"run {run_id!r} not found"
            raise RunNotFoundError(msg, run_id=run_id)
        return self._records[run_id]

    def _check_free(self, record: RunRecord) -> None:
        if record.driven and self._drivers[record.run_id].lost is None:
            msg = f"this program drives run {record.run_id!r}"
            raise RunLockedError(msg, run_id=record.run_id, owner="this program")

    def _ready(self, workflows: Sequence[str]) -> Iterable[RunRecord]:
        now = time.time()
        ours = (record for record in self._records.values() if record.workflow in workflows)
        return (record for record in ours if record.can_resume(now))

    def _drive(self, record: RunRecord) -> Driver:
        record.drive()
        driver = self._drivers[record.run_id] = Driver(record.run_id)
        return driver

    def _driven_by(self, driver: Driver) -> RunRecord | None:
        record = self._records.get(driver.run_id)
        if record is None or not record.driven:
            return None
        return record if self._drivers[record.run_id] is driver else None

    async def _release(
        self, record: RunRecord | None, wake: float | None = None, hold: float = 0.0
    ) -> None:
        if record is not None:
            record.release(wake, hold)
            await self._save(record)
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def _save(self, *changed: RunRecord) -> None:
        """Write these records as they are now, after all earlier writes. Can't be cancelled."""
        images = [(record.run_id, pack(record), record.stored()) for record in changed]
        with trio.CancelScope(shield=True):
            async with self._writing:
                for run_id, data, stored in images:
                    await self._in_a_thread(replace, path_of(self._folder, run_id), data)
                    self._on_disk[run_id] = stored
            await trio.lowlevel.checkpoint()

    async def _in_a_thread(self, change: Callable[..., None], *args: Any) -> None:
        try:
            if self._broken is None:
                await trio.to_thread.run_sync(change, *args)
                return
        except OSError as error:
            # Memory is ahead of the disk now, so nothing more is written or trusted.
            self._broken = error
        failure = StoreError(f"{self._folder} could not be written: {self._broken}")
        for driver in self._drivers.values():
            driver.lose(failure)
        raise failure from self._broken


def _refuse(connection: object) -> None:
    if connection is not None:
        msg = "connection= is for SQL stores"
        raise TypeError(msg)


def _statuses(
    given: RunStatus | str | Sequence[RunStatus | str] | None, default: Sequence[RunStatus]
) -> set[RunStatus]:
    if given is None:
        return set(default)
    return {RunStatus(given)} if isinstance(given, str) else {RunStatus(each) for each in given}


@asynccontextmanager
async def open_folder(folder: Path) -> AsyncIterator[FolderStore]:
    """Open the store of a folder, which is created if there is none.

    Raises:
        StoreError: Another program has opened it.
    """
    with locking(folder):
        store = FolderStore(folder, await trio.to_thread.run_sync(read_all, folder))
        try:
            yield store
        finally:
            await store.release_all()  # noqa: ASYNC102  # `_save` shields itself
