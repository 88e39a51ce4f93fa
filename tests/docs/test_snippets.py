"""Every Python snippet of the README and the docs runs, each document's in order in a folder of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```python[ ]*(?P<name>\S*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Snippet:
    """A fenced block of a Markdown file.

    Attributes:
        line: Where it begins.
        name: What stands behind "python" on its first line: the file that it is, for later ones to import or run.
        code: The program.
    """

    line: int
    name: str
    code: str


def find_snippets(path: Path) -> list[Snippet]:
    """All Python blocks of a file, in order."""
    text = path.read_text()
    return [
        Snippet(text.count("\n", 0, match.start()) + 1, match["name"], match["code"]) for match in FENCE.finditer(text)
    ]


DOCUMENTS = [path for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))) if find_snippets(path)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_snippets_run(document, tmp_path):
    for snippet in find_snippets(document):
        program = tmp_path / (snippet.name or f"line_{snippet.line}.py")
        program.write_text(snippet.code)
        done = subprocess.run(
            [sys.executable, "-W", "error", program.name], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{document.name}, line {snippet.line}:\n{done.stderr}"


def test_the_readme_has_snippets():
    assert ROOT / "README.md" in DOCUMENTS


def test_the_readmes_program_goes_on_after_a_kill(tmp_path):
    [snippet] = [one for one in find_snippets(ROOT / "README.md") if one.name == "countdown.py"]
    (tmp_path / snippet.name).write_text(snippet.code)
    command = [sys.executable, "-W", "error", snippet.name]

    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as killed:
        for line in killed.stdout:
            if line == "tick 4\n":
                break
        killed.kill()

    resumed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert resumed.stdout.splitlines() == ["tick 4", "tick 3", "tick 2", "tick 1", "lift-off"]
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert again.stdout.splitlines() == ["lift-off"]
