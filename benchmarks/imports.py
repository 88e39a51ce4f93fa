"""Import times of the package, each in a new process, beside those of the libraries it imports."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import partial

from benchmarks.harness import Measurement, in_turns

_TIMED = """
import time
start = time.perf_counter()
{statement}
print(1000 * (time.perf_counter() - start))
"""

_LIBRARIES = "import trio, attrs, cattrs, orjson, ormsgpack"

IMPORTS = {
    "import": ("import blazen_trio", _LIBRARIES, "trio, attrs, cattrs, orjson, ormsgpack"),
    # Includes the modules that the package imports only on first use.
    "import-all": ("from blazen_trio import *", _LIBRARIES, "the same"),
    "import-sql": (
        "import blazen_trio, blazen_trio._stores.sql.store",
        f"{_LIBRARIES}, sqlalchemy",
        "the same and SQLAlchemy",
    ),
}
"""Each measurement's statement, its limit, and the limit's name.

The limit imports the libraries that the statement imports, too.
"""


def milliseconds(statement: str, bytecode: str) -> float:
    """Return the time that a statement takes in a new process.

    Args:
        statement: The statement.
        bytecode: The folder for compiled modules.
    """
    command = [sys.executable, "-c", _TIMED.format(statement=statement)]
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(  # noqa: S603
        command, check=True, capture_output=True, text=True, env=environment
    )
    return float(done.stdout)


def measure_all(repeat: int) -> list[Measurement]:
    """Measure all imports in turns. The first turn doesn't count: it compiles the modules."""
    statements = dict.fromkeys(statement for both in IMPORTS.values() for statement in both[:2])
    with tempfile.TemporaryDirectory() as bytecode:
        found = in_turns({one: partial(milliseconds, one, bytecode) for one in statements}, repeat)
    return [
        Measurement(
            name, limit_name, found[ours], found[limit], "milliseconds", more_is_better=False
        )
        for name, (ours, limit, limit_name) in IMPORTS.items()
    ]
