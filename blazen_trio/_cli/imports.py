"""An import hook that finds the package's dependencies outside the current folder.

A project may have a folder `alembic` (made by `alembic init`) or a module with the name of another
dependency. The current folder comes first on the path, for the project's own modules, so a
dependency that is imported late, such as a database driver, would be taken from the project.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

__all__ = ["NEEDED", "prefer_installed"]

NEEDED: Final = frozenset(
    {
        *("alembic", "mako", "markupsafe", "sqlalchemy", "greenlet", "typing_extensions"),
        *("psycopg", "psycopg_binary", "psycopg_c", "psycopg2", "pymysql", "MySQLdb"),
        *("cryptography", "cffi", "_cffi_backend", "pycparser"),
        *("attr", "attrs", "cattr", "cattrs", "orjson", "ormsgpack"),
        *("trio", "outcome", "sniffio", "sortedcontainers", "idna", "tzdata"),
        *("click", "rich", "markdown_it", "mdurl", "commonmark", "pygments"),
        *("opentelemetry", "deprecated", "wrapt", "importlib_metadata", "zipp"),
    }
)
"""The packages that this package and its extras import, and the dependencies of those.

Some are dependencies of older versions only: commonmark of rich, the last four of OpenTelemetry.
"""


class _InstalledFirst(MetaPathFinder):
    def __init__(self, here: Path) -> None:
        self._here = here

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Find a needed package on the path without the current folder.

        Other names are left to the next finders, and so are packages that only that folder has.
        """
        if path is not None or fullname not in NEEDED:
            return None
        elsewhere = [entry for entry in sys.path if entry and Path(entry) != self._here]
        return PathFinder.find_spec(fullname, elsewhere, target)


def prefer_installed() -> None:
    """Install the import hook, for the life of the process."""
    sys.meta_path.insert(0, _InstalledFirst(Path.cwd()))
