"""How long the imports take, each in a new process, beside the libraries that the engine stands on."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import partial

from benchmarks.harness import Measurement, in_turns

_TIMED = """
import time
began = time.perf_counter()
{statement}
print(1000 * (time.perf_counter() - began))
"""

_LIBRARIES = "import trio, attrs, cattrs, orjson, ormsgpack"

IMPORTS = {
    "import": ("import blazen_trio", _LIBRARIES, "trio, attrs, cattrs, orjson, ormsgpack"),
    "import-all": (
        "from blazen_trio import *",
        _LIBRARIES,
        "the same",
    ),  # with what is imported when used
    "import-sql": (
        "import blazen_trio, blazen_trio._stores.sql.store",
        f"{_LIBRARIES}, sqlalchemy",
        "the same and SQLAlchemy",
    ),
}
"""The statement, its limit, and what that is: the libraries that the statement imports too."""


def milliseconds(statement: str, bytecode: str) -> float:
    """How long a statement takes in a new process, whose compiled modules are in that folder."""
    command = [sys.executable, "-c", _TIMED.format(statement=statement)]
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)  # noqa: S603
    return float(done.stdout)


def measure_all(repeat: int) -> list[Measurement]:
    """All in turns; the first, which doesn't count, compiles what is not compiled yet."""
    statements = dict.fromkeys(statement for both in IMPORTS.values() for statement in both[:2])
    with tempfile.TemporaryDirectory() as bytecode:
        found = in_turns({one: partial(milliseconds, one, bytecode) for one in statements}, repeat)
    return [
        Measurement(
            name, limit_name, found[ours], found[limit], "milliseconds", more_is_better=False
        )
        for name, (ours, limit, limit_name) in IMPORTS.items()
    ]
