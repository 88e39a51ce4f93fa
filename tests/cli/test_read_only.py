"""Read-only commands by a user who may not write the SQLite file or its folder."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blazen_trio._cli.exits import TEMPFAIL
from tests.cli.orders import half
from tests.cli.test_runs_reading import drive, submit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs users, as on Linux")

LOOKS = [
    ["runs", "list"],
    ["runs", "show", "half-1"],
    ["runs", "history", "half-1"],
    ["runs", "export", "half-1"],
    ["graph", "tests.cli.orders:half", "--run", "half-1"],
    ["db", "check"],
    ["db", "current"],
]

# Holds the file open, with a commit in its log, and reports it.
_WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1])
connection.execute("UPDATE blazen_run SET version = 'from the log'")
connection.commit()
print("written", flush=True)
sys.stdin.read()
"""
_BUSY = """
import itertools, sqlite3, sys
for number in itertools.count():
    connection = sqlite3.connect(sys.argv[1], timeout=20)
    connection.execute("UPDATE blazen_run SET version = ?", (f"{number}",))
    connection.commit()
    if number % 5:
        connection.close()
    if number == 3:
        print("written", flush=True)
"""


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Run the block as a user without permissions, if this process runs as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


class Kept:
    """A file with two runs, in a folder that everyone may read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "runs.db"
        self.url = f"sqlite:///{self.file}"

    def allow(self, *, folder: int, files: int) -> None:
        for each in self.folder.iterdir():
            each.chmod(files)
        self.folder.chmod(folder)

    def names(self) -> list[str]:
        return sorted(each.name for each in self.folder.iterdir())

    @contextlib.contextmanager
    def opened(self, program: str = _WRITER) -> Iterator[None]:
        """Keep the file open in a process that may write it."""
        command = [sys.executable, "-c", program, str(self.file)]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, **pipes) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "written\n"
                yield
            finally:
                process.kill()


@pytest.fixture
def kept(invoke: Callable[..., Any]) -> Iterator[Kept]:
    # Of pytest's own folders others may see nothing.
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    kept = Kept(folder)
    submit(kept.url, "short", 1)
    drive(kept.url, half, [0, 1, 2, 3], "half-1")
    for command in LOOKS:  # now, as nobody may perhaps not read what is imported
        assert invoke(*command, env={"BLAZEN_TRIO_DB": kept.url}).exit_code == 0
    yield kept
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def look(kept: Kept, invoke: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that runs a command as the user `nobody`."""

    def run(*arguments: str) -> Any:
        with nobody():
            return invoke(*arguments, env={"BLAZEN_TRIO_DB": kept.url})

    return run


@pytest.mark.parametrize("command", LOOKS, ids=" ".join)
@pytest.mark.parametrize(
    ("folder", "files"), [(0o555, 0o444), (0o555, 0o666), (0o777, 0o444)], ids=str
)
def test_commands_that_read_write_nothing(
    kept: Kept, look: Any, command: list[str], folder: int, files: int
) -> None:
    kept.allow(folder=folder, files=files)
    before = kept.names()
    done = look(*command)
    assert done.exit_code == 0, done.stderr
    # What it left there would belong to it, and keep others from writing.
    assert kept.names() == before == ["runs.db"]


@pytest.mark.parametrize("folder", [0o755, 0o777], ids=str)
def test_an_open_writers_commits_are_seen(kept: Kept, look: Any, folder: int) -> None:
    with kept.opened():
        kept.allow(folder=folder, files=0o644)
        if os.geteuid() != 0:
            kept.allow(folder=0o555, files=0o444)
        before = kept.names()
        done = look("runs", "list", "--json")
        versions = {run["version"] for run in json.loads(done.stdout)["runs"]}
        assert versions == {"from the log"}
        assert kept.names() == before
        assert look("db", "check").exit_code == 0


def test_a_file_that_others_keep_opening_and_closing_can_be_read(kept: Kept, look: Any) -> None:
    kept.allow(folder=0o755, files=0o644)
    with kept.opened(_BUSY):
        for _ in range(30):
            done = look("runs", "list", "--json")
            assert done.exit_code == 0, done.stderr
            assert len({run["version"] for run in json.loads(done.stdout)["runs"]}) == 1


def test_the_log_of_a_dead_process_is_read(kept: Kept, look: Any) -> None:
    with kept.opened():
        pass
    kept.allow(folder=0o555, files=0o444)
    done = look("runs", "list", "--json")
    assert {run["version"] for run in json.loads(done.stdout)["runs"]} == {"from the log"}
    # In a copy without what its readers need beside it, it can't be.
    kept.allow(folder=0o755, files=0o644)
    (kept.folder / "runs.db-shm").unlink()
    kept.allow(folder=0o555, files=0o444)
    for command in (["runs", "list"], ["db", "check"]):
        done = look(*command)
        assert done.exit_code == TEMPFAIL
        assert "its newest commits are in" in done.stderr
        assert "copy the file and its -wal" in done.stderr


@pytest.mark.parametrize("name", ["runs.db", "runs.db-wal", "runs.db-shm"])
def test_the_error_of_an_unreadable_file_names_it(kept: Kept, look: Any, name: str) -> None:
    with kept.opened():
        kept.allow(folder=0o555, files=0o444)
        (kept.folder / name).chmod(0)
        done = look("runs", "list")
        assert done.exit_code == TEMPFAIL
        assert f"{kept.folder}/{name}" in done.stderr
        assert "this user can't read" in done.stderr


def test_the_error_of_an_inaccessible_folder_names_it(kept: Kept, look: Any) -> None:
    kept.folder.chmod(0)
    for command in (["runs", "list"], ["db", "check"], ["runs", "cancel", "half-1"]):
        done = look(*command)
        assert done.exit_code == TEMPFAIL
        assert "Permission denied" in done.stderr


def test_a_command_that_writes_says_which_permission_it_needs(kept: Kept, look: Any) -> None:
    kept.allow(folder=0o555, files=0o444)
    done = look("runs", "cancel", "half-1")
    assert done.exit_code == TEMPFAIL
    assert "read-only" in done.stderr


@pytest.mark.parametrize("uri", [False, True])
def test_links_and_uris_lead_to_the_file(kept: Kept, invoke: Any, uri: bool) -> None:
    link = kept.folder.with_name(f"{kept.folder.name} #link.db")
    link.symlink_to(kept.file)
    try:
        url = f"sqlite:///file:{kept.file}?uri=true" if uri else f"sqlite:///{link}"
        with kept.opened():
            kept.allow(folder=0o555, files=0o444)
            with nobody():
                done = invoke("runs", "list", "--json", "--db", url)
        assert done.exit_code == 0, done.stderr
        assert {run["version"] for run in json.loads(done.stdout)["runs"]} == {"from the log"}
    finally:
        link.unlink()


def test_a_backup_without_a_log_is_read_unchanged(kept: Kept, invoke: Any) -> None:
    """`VACUUM INTO` makes one in another journal mode, which reading does not change."""
    copy = kept.folder / "copy.db"
    with contextlib.closing(sqlite3.connect(kept.file)) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))
    before = copy.read_bytes()
    done = invoke("runs", "list", "--json", "--db", f"sqlite:///{copy}")
    assert len(json.loads(done.stdout)["runs"]) == 2
    assert copy.read_bytes() == before
