"""The site builds without a warning or the network; its reference has every public name."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import blazen_trio

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DOCUMENTED = re.compile(r"^\.\. auto\w+:: ([^\s(]+)(?:\(.*\))?$", re.MULTILINE)
LOADED = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=["'](https?:|//)""")


def public_names() -> set[str]:
    """Return every public name, qualified by the shortest module path."""
    modules = [
        module.name
        for module in pkgutil.iter_modules(blazen_trio.__path__)
        if module.name[0] != "_"
    ]
    own = {
        f"blazen_trio.{module}.{name}"
        for module in modules
        for name in importlib.import_module(f"blazen_trio.{module}").__all__
        if name not in blazen_trio.__all__
    }
    return own | {f"blazen_trio.{name}" for name in blazen_trio.__all__}


def test_the_reference_has_exactly_the_public_names():
    found = [
        name
        for page in DOCS.glob("reference/*.md")
        for name in DOCUMENTED.findall(page.read_text("utf-8"))
    ]
    assert len(found) == len(set(found))
    assert {name for name in found if "._" not in name} == public_names()


def test_every_state_diagram_has_an_up_to_date_picture():
    spec = importlib.util.spec_from_file_location("diagrams", DOCS / "diagrams.py")
    diagrams = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(diagrams)
    drawn = {name: diagrams.picture_of(source) for name, source in diagrams.find_diagrams().items()}
    assert "state-machine-1" in drawn
    assert None not in drawn.values(), "run `python docs/diagrams.py`"


def test_the_site_builds_without_a_warning_and_loads_nothing_from_other_hosts(tmp_path):
    for package in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(
            package,
            reason='the site is built where its packages are: pip install "blazen-trio[docs]"',
        )
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "-n",
        "--keep-going",
        "-q",
        str(DOCS),
        str(tmp_path / "site"),
    ]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (built.returncode, built.stderr) == (0, "")
    pages = list((tmp_path / "site").rglob("*.html"))
    assert {page.name for page in pages} >= {f"{source.stem}.html" for source in DOCS.rglob("*.md")}
    assert [page.name for page in pages if LOADED.search(page.read_text("utf-8"))] == []
