"""Every Python snippet of the README and the docs runs.

The snippets of a document run in order, in a folder of their own. If a console session of the
document runs a snippet, it prints what the session shows.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```python[ ]*(?P<name>\S*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(
    r"^\$ python (?P<program>\S+\.py)(?P<arguments>.*)\n(?P<shown>(?:(?!\$ ).*\n)*)", re.MULTILINE
)


@dataclass(frozen=True)
class Snippet:
    """A fenced block of a Markdown file.

    Attributes:
        line: Its first line.
        name: The name after "python" on its first line: the file that later snippets import or run.
        code: The program.
    """

    line: int
    name: str
    code: str


def find_snippets(path: Path) -> list[Snippet]:
    """Return all Python blocks of a file, in order."""
    text = path.read_text()
    return [
        Snippet(text.count("\n", 0, match.start()) + 1, match["name"], match["code"])
        for match in FENCE.finditer(text)
    ]


def find_commands(path: Path) -> list[re.Match[str]]:
    """Return the commands by which console sessions of a file run its snippets, in order."""
    return [
        command
        for session in CONSOLE.findall(path.read_text())
        for command in COMMAND.finditer(session)
    ]


DOCUMENTS = [
    path for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))) if find_snippets(path)
]


FORKS = """
import json, os, runpy, sys
import blazen_trio._stores.sql.store
for command in sys.stdin:
    if os.fork() == 0:
        for stream, name in enumerate((os.devnull, "out", "err")):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), stream)
        sys.argv = json.loads(command)
        runpy.run_path(sys.argv[0], run_name="__main__")
        sys.exit()
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


class Programs:
    """Runs programs in a folder, each in a process forked from one that has imported the engine.

    A process of its own for each would spend most of its time on imports.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._forks = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", FORKS],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def __enter__(self) -> Programs:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._forks.pid, signal.SIGKILL)
        with self._forks:
            self._forks.wait()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        self._forks.stdin.write(json.dumps(command).encode() + b"\n")
        self._forks.stdin.flush()
        assert select.select([self._forks.stdout], [], [], 120)[0], f"{command} does not end"
        code = int(self._forks.stdout.readline())
        out, err = [(self._folder / name).read_text() for name in ("out", "err")]
        return subprocess.CompletedProcess(command, code, out, err)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_snippets_run(document, tmp_path):
    commands = find_commands(document)
    shown = {command["program"] for command in commands}
    with Programs(tmp_path) as programs:
        for snippet in find_snippets(document):
            program = tmp_path / (snippet.name or f"line_{snippet.line}.py")
            program.write_text(snippet.code)
            if program.name not in shown:
                done = programs.run(program.name)
                assert done.returncode == 0, f"{document.name}:{snippet.line}:\n{done.stderr}"
        for command in commands:
            done = programs.run(command["program"], *command["arguments"].split())
            is_killed = done.returncode == -signal.SIGKILL
            assert done.stdout + is_killed * "Killed\n" == command["shown"], (
                f"{command[0]}{done.stderr}"
            )
            assert is_killed or done.returncode == 0, done.stderr


def test_the_readme_has_snippets():
    assert ROOT / "README.md" in DOCUMENTS


def test_console_sessions_are_found():
    commands = find_commands(ROOT / "docs" / "tutorial.md")
    assert [command["arguments"] for command in commands] == [" --crash", "", ""]
    assert commands[0]["shown"].endswith("tick 3\nKilled\n")


def test_the_program_of_the_readme_resumes_after_a_kill(tmp_path):
    [snippet] = [one for one in find_snippets(ROOT / "README.md") if one.name == "countdown.py"]
    (tmp_path / snippet.name).write_text(snippet.code)
    command = [sys.executable, "-W", "error", snippet.name]

    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as killed:
        for line in killed.stdout:
            if line == "tick 4\n":
                break
        killed.kill()

    resumed = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert resumed.stdout.splitlines() == ["tick 4", "tick 3", "tick 2", "tick 1", "lift-off"]
    again = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert again.stdout.splitlines() == ["lift-off"]
