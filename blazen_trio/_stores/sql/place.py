"""Where an SQLite database is: a file that is deleted, or replaced, while it is open."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from blazen_trio.errors import StoreError

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["Place", "at_its_place", "file_of", "is_uri"]

_URI = "file:"


def file_of(url: sa.URL) -> Path:
    """Return the file that an SQLite URL names, by a path or by a URI."""
    name = url.database or ""
    if not is_uri(url):
        return Path(name)
    path = name.removeprefix(_URI).partition("?")[0].partition("#")[0]
    if path.startswith("//"):  # and a host, which is this one
        path = "/" + path[2:].partition("/")[2]
    return Path(unquote(path))


def at_its_place(url: sa.URL) -> sa.URL:
    """Return an SQLite URL that names the same file after the program has changed its directory.

    SQLAlchemy does that with paths; to the driver, a URI means something else from then on.
    """
    if not is_uri(url) or file_of(url).is_absolute():
        return url
    here = quote(str(Path.cwd()))
    return url.set(database=f"{_URI}{here}/{str(url.database).removeprefix(_URI)}")


def is_uri(url: sa.URL) -> bool:
    """Whether the driver is told to take it for one; without `uri=true` it is a path like others."""
    flag = str(url.query.get("uri", "")).lower()
    asked = flag in ("true", "yes", "on", "y", "t", "1")
    return asked and (url.database or "").startswith(_URI)


class Place:
    """The file that was opened. SQLite itself goes on writing to it when it has lost its name.

    Looked at after each commit, and before it is told to anybody: what was acknowledged was in the
    file of that name at that moment. It costs a thousandth of a commit.
    """

    __slots__ = ("_path", "_same")

    def __init__(self, connection: sa.Connection) -> None:
        self._path = ""
        self._same: tuple[int, int] | None = None
        if connection.dialect.name == "sqlite":
            files = connection.exec_driver_sql("PRAGMA database_list").all()
            self._path = next((str(row[2]) for row in files if row[1] == "main"), "")
            self._same = self._found()

    def check(self) -> None:
        """Refuse to go on where there is another file, or none.

        Raises:
            StoreError: So it is.
        """
        if self._same is not None and self._found() != self._same:
            msg = (
                f"the database file {self._path} was deleted or replaced while it was open: what "
                "is written now would be in no file. Put it back and open the store again; its "
                "runs can be resumed by their ids as far as that file has them"
            )
            raise StoreError(msg)

    def _found(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116  # half the time of a Path's
        except OSError:
            return None
        return found.st_dev, found.st_ino
