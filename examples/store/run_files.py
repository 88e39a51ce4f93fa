"""Files that are written completely or not at all, in a folder that one program locks."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import ormsgpack
from run_record import RUNNABLE, RunRecord

from blazen_trio import StoreError


@contextmanager
def locking(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system releases if the program dies.

    Raises:
        StoreError: Another program holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            msg = f"another program has opened {folder}"
            raise StoreError(msg) from error
        yield


def path_of(folder: Path, run_id: str) -> Path:
    """Return the path of a run's file. An id may have characters that a file name can't."""
    return folder / f"{hashlib.sha256(run_id.encode()).hexdigest()}.run"


def pack(record: RunRecord) -> bytes:
    """Return the bytes of a run's file."""
    return ormsgpack.packb(attrs.asdict(record, recurse=False))


def read_all(folder: Path) -> list[RunRecord]:
    """Read every run. The drivers of an earlier program are dead, since this one has the lock."""
    records = [RunRecord(**ormsgpack.unpackb(path.read_bytes())) for path in folder.glob("*.run")]
    for record in records:
        if record.driven:
            record.crashes += record.status in RUNNABLE
            record.release()
    return records


def replace(path: Path, data: bytes) -> None:
    """Replace a file. A crash at any moment leaves the old file or the new one."""
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    _sync(path.parent)


def remove(path: Path) -> None:
    """Remove a file, durably."""
    path.unlink()
    _sync(path.parent)


def _sync(folder: Path) -> None:
    # Renaming and removing change the folder, so the folder has to reach the disk too.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
