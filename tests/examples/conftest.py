"""Examples are programs in folders of their own, which import each other as if they were run there."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch):
    """Imports a module of an example: `example("agent", "travel")`."""

    def load(folder, name):
        monkeypatch.syspath_prepend(EXAMPLES / folder)
        return importlib.import_module(name)

    return load
