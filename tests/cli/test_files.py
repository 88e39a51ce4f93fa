"""Files that commands write, also through links and pipes, and commands that they print."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from blazen_trio._cli.output import quoted

FLOW = "tests.cli.flows:short"


@pytest.fixture
def write(runs, invoke):
    """Return a function that writes a file with a given command."""
    runs("submit", "short", "--run-id", "r")

    def write(command, path):
        if command == "export":
            return runs("export", "r", "--output", str(path))
        return invoke("graph", FLOW, "--format", "svg", "--output", str(path))

    return write


@pytest.mark.parametrize("command", ["export", "graph"])
def test_links_and_pipes_are_written_to(command, write, tmp_path):
    pipe, link, target = tmp_path / "pipe", tmp_path / "link", tmp_path / "target"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    link.symlink_to(target)
    for path in (pipe, link):
        assert write(command, path).exit_code == 0
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert link.is_symlink()
    assert os.read(reader, 1_000_000) == target.read_bytes() != b""
    os.close(reader)
    null = Path("/dev/null").stat()
    assert write(command, "/dev/null").exit_code == 0
    assert os.path.samestat(null, Path("/dev/null").stat())


@pytest.mark.parametrize("command", ["export", "graph"])
def test_a_file_is_replaced_as_a_whole_and_keeps_its_permissions(
    command, write, tmp_path, monkeypatch
):
    path = tmp_path / "file"
    before = os.umask(0o027)
    try:
        assert write(command, path).exit_code == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.write_text("before")
    path.chmod(0o604)
    monkeypatch.setattr(os, "fchmod", _full)
    failed = write(command, path)
    assert failed.exit_code == 66
    assert "can't be written: No space left" in failed.stderr
    assert path.read_text() == "before"
    monkeypatch.undo()
    assert write(command, path).exit_code == 0
    assert path.read_text() != "before"
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    assert [one.name for one in tmp_path.iterdir() if one.name.endswith(".part")] == []


def _full(*_args):
    raise OSError(28, "No space left on device")


# Commands that are printed, to be pasted

IDS = ["--db=sqlite:////nowhere/theirs.db", "-h", "it's; $(true)", "a\nb\u202e'\\", "--"]


@pytest.mark.parametrize("run_id", IDS)
def test_the_printed_answer_command_works_for_any_ids(run_id, runs):
    runs("submit", "half", f"--run-id={run_id}")
    assert runs("resume", "--no-ask", "--", run_id, "tests.cli.orders:half").exit_code == 5
    shown = runs("show", "--", run_id).stdout
    printed = next(line for line in shown.splitlines() if line.startswith("answer"))
    words = in_a_shell(printed.removeprefix("answer").strip())
    assert words[:2] == ["blazen-trio", "runs"]
    done = runs(*(word.replace("JSON", "-1") for word in words[2:]))
    assert done.exit_code == 0, done.output


def in_a_shell(command):
    """Return the words into which a shell splits a line."""
    line = f"for word in {command}; do printf '%s\\0' \"$word\"; done"
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True, env=environment)
    return done.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize("run_id", IDS)
def test_the_printed_next_page_command_works_for_any_id(run_id, runs):
    for name in (run_id, "second"):
        runs("submit", "half", f"--run-id={name}")
    told = runs("list", "--limit", "1").stderr
    [option] = in_a_shell(told.removeprefix("there are more: ").strip())
    assert "second" in runs("list", option).stdout


def test_a_quoted_text_is_one_line_and_means_the_same():
    for text in (*IDS, "plain", "\x1b[2J", "\U0001f642"):
        assert quoted(text).isprintable()
        assert in_a_shell(quoted(text)) == [text]
    assert quoted("it's") == shlex.quote("it's")
