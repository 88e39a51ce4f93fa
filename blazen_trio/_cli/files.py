"""Output files of commands with the option `--output`."""

from __future__ import annotations

import os
import secrets
import stat
from typing import TYPE_CHECKING

from blazen_trio._cli.exits import NotThereError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["write_file"]


def write_file(path: Path, data: bytes) -> None:
    """Write to a file.

    A regular file is replaced atomically; a link, a pipe or a device is written to directly.

    Raises:
        NotThereError: The file can't be written.
    """
    try:
        there = path.lstat() if os.path.lexists(path) else None
        if there is None or stat.S_ISREG(there.st_mode):
            _put(path, data, None if there is None else stat.S_IMODE(there.st_mode))
        else:
            path.write_bytes(data)
    except OSError as error:
        raise NotThereError(f"{path} can't be written: {error.strerror}") from error


def _put(path: Path, data: bytes, mode: int | None) -> None:
    # An unpredictable name, and O_EXCL: in a folder that others may write to, they could otherwise
    # put a link there that leads to a file of ours.
    beside = path.with_name(f".{secrets.token_hex(8)}.part")
    number = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(number, "wb") as file:
            if mode is not None:
                os.fchmod(number, mode)
            file.write(data)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
