"""Modules in the current folder never replace those that the package needs."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from blazen_trio._cli.imports import NEEDED
from tests.cli.conftest import ROOT, SCRIPT

if TYPE_CHECKING:
    from collections.abc import Iterator

FLOW = """
from blazen_trio import StartEvent, StopEvent, Workflow, step
import shadows
@step
async def only(ev: StartEvent) -> StopEvent:
    return StopEvent("done")
flow = Workflow("flow", [only])
"""


@pytest.mark.parametrize("name", ["alembic", "mako", "sqlalchemy"])
@pytest.mark.parametrize("how", ["-c", "-m"])
def test_modules_of_a_project_never_replace_those_of_the_package(name, how, tmp_path):
    package = tmp_path / name
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemError('the wrong one')\n")
    (tmp_path / "flows.py").write_text(FLOW)
    (tmp_path / "shadows.py").write_text("")
    url = f"sqlite:///{tmp_path}/runs.db"
    command = [SCRIPT] if how == "-c" else ["blazen_trio"]
    done = subprocess.run(
        [
            sys.executable,
            how,
            *command,
            "runs",
            "submit",
            "flow",
            "--workflow",
            "flows:flow",
            "--db",
            url,
            "--json",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    assert "run_id" in json.loads(done.stdout)


def test_the_list_of_needed_modules_is_complete():
    extras = {"cli", "mysql", "postgresql", "otel"}
    known = importlib.metadata.packages_distributions()
    tops = {
        top
        for top, names in known.items()
        if {name.lower() for name in names} & needed("blazen-trio", extras)
    }
    ours = {
        # A folder of stubs, such as wrapt-stubs, is nothing that can be imported.
        top
        for top in tops
        if top.isidentifier() and not top.startswith("_") and top != "blazen_trio"
    }
    assert ours - NEEDED == set()


def needed(name: str, extras: set[str]) -> set[str]:
    found: set[str] = set()
    left = [(name, extras)]
    while left:
        name, extras = left.pop()
        for one, its in requirements(name, extras):
            if one not in found:
                found.add(one)
                left.append((one, its))
    return found


def requirements(name: str, extras: set[str]) -> Iterator[tuple[str, set[str]]]:
    try:
        texts = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return
    for text in texts:
        asked = re.search(r"extra == ['\"]([\w-]+)['\"]", text)
        if asked is None or asked[1] in extras:
            its = re.match(r"[\w.-]+\[([\w,]+)\]", text)
            yield re.match(r"[\w.-]+", text)[0].lower(), set(its[1].split(",")) if its else set()
