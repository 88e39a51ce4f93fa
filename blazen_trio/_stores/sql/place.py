"""Where an SQLite database is: a file that is deleted, or replaced, while it is open."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from blazen_trio.errors import StoreError

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["Place"]


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
