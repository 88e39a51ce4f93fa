"""`import blazen_trio` and a run in memory import only the modules that they use."""

from __future__ import annotations

import subprocess
import sys

import pytest

import blazen_trio

EXTRAS = {
    "click",
    "hypercorn",
    "matplotlib",
    "opentelemetry",
    "psycopg",
    "pymysql",
    "rich",
    "sphinx",
    "starlette",
}
DATABASES = {"alembic", "sqlalchemy", "sqlite3"}
WHEN_USED = {
    "blazen_trio._codec.snapshot",
    "blazen_trio._dispatch.journal",
    "blazen_trio._pictures",
    "blazen_trio._stores.memory",
    "blazen_trio._stores.protocol",
    "blazen_trio._runtime.runtime",
    "ormsgpack",
    "zoneinfo",
}

RUN = """
import trio
from blazen_trio import Context, StartEvent, StopEvent, Workflow, step

@step
async def only(ev: StartEvent, ctx: Context) -> StopEvent:
    ctx.set("seen", ev.data)
    return StopEvent(ev.data)

assert trio.run(Workflow("one", [only], history=True).run, 7) == 7
"""


def imported_by(program):
    """Return the modules that a program imports, with their parent packages."""
    program = f"import sys; before = set(sys.modules)\n{program}\nprint(*set(sys.modules) - before)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("program", ["import blazen_trio", RUN], ids=["import", "run"])
def test_a_run_in_memory_imports_only_what_it_uses(program):
    assert imported_by(program) & (EXTRAS | DATABASES | WHEN_USED) == set()


@pytest.mark.parametrize(
    "program",
    [
        "import blazen_trio.pictures, blazen_trio.telemetry",
        "import blazen_trio.stores, blazen_trio.testing",
        "from blazen_trio import *",
    ],
)
def test_no_public_module_imports_a_database_or_an_extra(program):
    assert imported_by(program) & (EXTRAS | DATABASES) == set()


def test_dir_lists_names_that_are_imported_on_first_use():
    program = (
        "import blazen_trio; print(*dir(blazen_trio));"
        " assert blazen_trio.Runtime is blazen_trio.Runtime"
    )
    assert imported_by(program) >= {*blazen_trio.__all__, "blazen_trio._runtime.runtime"}


def test_a_misspelt_name_raises_an_error():
    with pytest.raises(ImportError, match="cannot import name 'Workflw' from 'blazen_trio'"):
        from blazen_trio import Workflw  # noqa: F401
    with pytest.raises(AttributeError, match="module 'blazen_trio' has no attribute 'runtime'"):
        _ = blazen_trio.runtime
