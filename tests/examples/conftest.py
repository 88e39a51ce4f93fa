"""A fixture to import the examples, whose modules import each other as top-level modules."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch):
    """Return a function that imports an example's module: `example("agent", "travel")`."""

    def load(folder, name):
        monkeypatch.syspath_prepend(EXAMPLES / folder)
        return importlib.import_module(name)

    return load
