"""Ctrl-C at a sample of the package's lines; `nox -s interrupts` tries every line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.interrupts.scenarios import SCENARIOS

ROOT = Path(__file__).parents[2]


EVERY = {"run": 359, "entered": 839, "served": 1999}
"""Lines from one interrupt to the next; 179 for the others, which are shorter."""


@pytest.mark.parametrize("name", SCENARIOS)
def test_ctrl_c_at_any_line_ends_the_program_and_loses_no_commit(name: str) -> None:
    # In a process without threads, since each attempt is forked from it.
    command = [sys.executable, "-m", "tests.interrupts", name, "--every", str(EVERY.get(name, 179))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
