"""What the package needs is imported from where it is installed, and not from the current folder.

A project may have a folder `alembic` (as `alembic init` makes one) or a module of any other such
name. The current folder comes first on the path, for the project's own modules; so what is imported
late, as a database's driver is, would be the project's.
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
        *("click", "rich", "markdown_it", "mdurl", "pygments"),
        "opentelemetry",
    }
)
"""What the package and its extras import, and what these import in turn."""


class _InstalledFirst(MetaPathFinder):
    def __init__(self, here: Path) -> None:
        self._here = here

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Find what is needed in all of the path but the current folder; leave the rest to others.

        What is in that folder alone is found there by those who come next.
        """
        if path is not None or fullname not in NEEDED:
            return None
        elsewhere = [entry for entry in sys.path if entry and Path(entry) != self._here]
        return PathFinder.find_spec(fullname, elsewhere, target)


def prefer_installed() -> None:
    """Begin to find what the package needs where it is installed, for the process's life."""
    sys.meta_path.insert(0, _InstalledFirst(Path.cwd()))
