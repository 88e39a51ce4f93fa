"""The main example works, and its demonstration fails if it proves nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "stdlib_report.py"


def run_example(*options, cwd):
    return subprocess.run(
        [sys.executable, EXAMPLE, *options],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_killed_run_gives_the_report_of_an_undisturbed_one(tmp_path):
    done = run_example("--files", "150", "--kills", "2", "--seed", "1", cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "read 150 files" in done.stdout
    assert "killed with SIGKILL 2 times" in done.stdout
    assert int(re.search(r"Steps redone, .*: (\d+)\.", done.stdout)[1]) > 0
    assert "Identical to the report of an undisturbed run: yes." in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_run_started_by_hand_is_resumed_by_its_id(tmp_path):
    first = run_example("--db", "runs.db", "--run", "mine", "--files", "20", cwd=tmp_path)
    again = run_example("--db", "runs.db", "--resume", "mine", cwd=tmp_path)

    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert first.stdout == again.stdout
    assert "20 files" in first.stdout


def test_a_demonstration_with_too_few_files_fails(tmp_path):
    done = run_example("--files", "1", "--kills", "3", cwd=tmp_path)

    assert done.returncode == 1
    assert "proves nothing" in done.stdout
