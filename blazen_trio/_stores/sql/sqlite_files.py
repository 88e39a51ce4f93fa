"""SQLite files: detecting a file that was deleted or replaced, and reading one without writing.

SQLite keeps the newest commits in a file beside the database (`-wal`), and an index of them for its
readers in a third (`-shm`). While both exist, any user who may read them can read the database. If
they don't, SQLite would create them. It can't in a folder that this user may not write to; and
where it can, they would belong to this user, and keep the database's own user from writing. Such a
file is therefore opened as one that no process writes to (`immutable`), and afterwards this module
checks whether that was true.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar
from urllib.parse import quote, unquote

import attrs
import sqlalchemy as sa

from blazen_trio._stores.sql import databases
from blazen_trio.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable


__all__ = [
    "Looker",
    "Place",
    "at_its_place",
    "file_of",
    "is_there",
    "is_uri",
]


_URI = "file:"


def file_of(url: sa.URL) -> Path:
    """Return the file that an SQLite URL names, by a path or by a URI."""
    name = url.database or ""
    if not is_uri(url):
        return Path(name)
    path = name.removeprefix(_URI).partition("?")[0].partition("#")[0]
    if path.startswith("//"):  # followed by a host, which is this one
        path = "/" + path[2:].partition("/")[2]
    return Path(unquote(path))


def at_its_place(url: sa.URL) -> sa.URL:
    """Return an SQLite URL that still names its file after the process changes its directory.

    SQLAlchemy makes paths absolute, but not URIs.
    """
    if not is_uri(url) or file_of(url).is_absolute():
        return url
    here = quote(str(Path.cwd()))
    return url.set(database=f"{_URI}{here}/{str(url.database).removeprefix(_URI)}")


def is_uri(url: sa.URL) -> bool:
    """Return whether the driver reads it as a URI; without `uri=true` it is a path."""
    flag = str(url.query.get("uri", "")).lower()
    asked = flag in ("true", "yes", "on", "y", "t", "1")
    return asked and (url.database or "").startswith(_URI)


class Place:
    """The file that was opened. SQLite itself keeps writing to a file that has lost its name.

    The file is checked after each commit, before the commit is acknowledged: anything acknowledged
    was in the file of that name at that moment. The check costs a thousandth of a commit.
    """

    __slots__ = ("_path", "_same")

    def __init__(self, connection: sa.Connection) -> None:
        self._path = ""
        self._same: tuple[int, int] | None = None
        if databases.of(connection).in_a_file:
            files = connection.exec_driver_sql("PRAGMA database_list").all()
            self._path = next((str(row[2]) for row in files if row[1] == "main"), "")
            self._same = self._found()

    def check(self) -> None:
        """Refuse to continue if the name has another file, or none.

        Raises:
            StoreError: The file was deleted or replaced.
        """
        if self._same is not None and self._found() != self._same:
            msg = (
                f"the database file {self._path} was deleted or replaced while it was open, so "
                "further writes would be lost. Put it back and open the store again; the runs "
                "in that file can be resumed by their ids"
            )
            raise StoreError(msg)

    def _found(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116  # half the time of a Path's
        except OSError:
            return None
        return found.st_dev, found.st_ino


T = TypeVar("T")

_TRIES: Final = 20
_PAUSE: Final = 0.05
"""Seconds between two attempts to read a file whose writer is just coming or going."""
_USERS_OWN: Final = ("mode", "immutable", "nolock", "vfs")
"""Options of a URL that say how its file is opened, which are then left alone."""
_Part = tuple[int, ...] | None


class _OrphanedError(StoreError):
    """There is a `-wal` but no `-shm`: the writer is dead, or is just coming or going."""


@attrs.frozen
class _Sight:
    """The state of the file and those beside it.

    Attributes:
        how: How to open the file: as usual, only for reading, or as one that no process writes to.
        parts: Values that change when one of the files does.
    """

    how: Literal["as usual", "for reading", "as it stands"]
    parts: tuple[_Part, ...]


def is_there(path: Path) -> bool:
    """Return whether there is such a file.

    Raises:
        StoreError: This user may not even know that.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        msg = f"the database file {path} can't be accessed: {error.strerror}"
        raise StoreError(msg) from error
    return True


class Looker:
    """Decides how to open the file for each connection of an engine that only reads.

    Args:
        engine: The engine. Each of its connections is new.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._local = threading.local()
        url = engine.url
        ours = engine.dialect.driver == "pysqlite" and not set(_USERS_OWN) & url.query.keys()
        if ours and not any(f"{name}=" in str(url.database) for name in _USERS_OWN):
            # The files beside it are where it is, not where a link to it is.
            self._path = os.path.realpath(file_of(url))
            self._uri = is_uri(url)
            sa.event.listen(engine, "do_connect", self._connecting)

    def steadily(self, read: Callable[[], T]) -> T:
        """Read the database by a connection of this thread, and check that the read was consistent.

        A file opened as `immutable` takes no locks. If another process wrote to it during the read,
        the result may mix two states, so the read is repeated.

        Raises:
            StoreError: The file can't be read; the message says what to do.
        """
        told: Exception | None = None
        for _ in range(_TRIES):
            self._local.sight = None
            try:
                found = read()
            except _OrphanedError as error:
                told = error
            except Exception as error:
                if not self._has_changed(failed=True):
                    raise
                told = error
            else:
                if not self._has_changed(failed=False):
                    return found
            time.sleep(_PAUSE)
        if isinstance(told, StoreError):
            raise told
        msg = (
            f"the database file {self._path} kept changing while it was read, by writers that "
            "leave no files beside it that this user could read; try again"
        )
        raise StoreError(msg) from told

    def _has_changed(self, *, failed: bool) -> bool:
        sight: _Sight | None = self._local.sight
        if sight is None or sight.how == "as usual":
            return False
        if sight.how == "for reading" and not failed:
            return False  # SQLite's own locks kept the read consistent
        try:
            return self._look() != sight
        except _OrphanedError:
            return True

    def _connecting(
        self, _dialect: Any, _record: Any, arguments: list[Any], options: dict[str, Any]
    ) -> None:
        sight = self._local.sight = self._look()
        name = str(arguments[0]) if self._uri else f"file:{quote(os.fsencode(self._path))}"
        mode = "mode=rw"
        if sight.how == "for reading":
            mode = "mode=ro" if _may(self._path, os.W_OK) else "mode=ro&readonly_shm=1"
        elif sight.how == "as it stands":
            mode = "mode=ro&immutable=1"
        arguments[0] = f"{name}{'&' if '?' in name else '?'}{mode}"
        options["uri"] = True

    def _look(self) -> _Sight:
        path, folder = self._path, os.path.dirname(self._path)  # noqa: PTH120  # as named below
        beside = [f"{path}-wal", f"{path}-shm"]
        there = [each for each in beside if os.path.lexists(each)]
        writable = _may(folder, os.W_OK | os.X_OK)
        if writable and all(_may(each, os.W_OK) for each in (path, *there)):
            return _Sight("as usual", ())
        if not _may(path, os.R_OK):
            msg = (
                "this user can't read the database file "
                f"{path}: grant read access, or run this as another user"
            )
            raise StoreError(msg)
        log, index, journal = _part(beside[0]), _part(beside[1]), _part(f"{path}-journal")
        if (log and log[2]) or (log and index):
            for each in there:
                if not _may(each, os.R_OK):
                    msg = (
                        f"this user can't read the database file {path} without {each}, which has "
                        "its newest commits: grant read access to that file, too"
                    )
                    raise StoreError(msg)
            if index is None:
                msg = (
                    f"this user can't read the database file {path}: its newest commits are in "
                    f"{beside[0]}, its writer is dead, and to find them SQLite has to write "
                    f"{beside[1]}. Run this as a user who may write there, or copy the file and "
                    "its -wal to a folder of your own and read the copy"
                )
                raise _OrphanedError(msg)
            return _Sight("for reading", (log[:2], index[:2]))
        if journal and journal[2]:
            return _Sight("for reading", (journal[:2],))  # its journal mode is not one that we set
        return _Sight("as it stands", (_part(path), log, journal))


def _part(path: str) -> _Part:
    """Return values that change with a file, or `None` if there is none. The third is its size."""
    try:
        found = os.stat(path)  # noqa: PTH116  # as it is named here
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _may(path: str, mode: int) -> bool:
    """Return whether this process may access a file in this mode.

    On a read-only file system no process may write.
    """
    if os.access in os.supports_effective_ids:
        return os.access(path, mode, effective_ids=True)
    return os.access(path, mode)
