"""The benchmarks of other engines, as far as they can be tested without installing those."""

from __future__ import annotations

import ast
import importlib.util
import io
import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.databases import new_database
from benchmarks.peers import environments, program, runner
from benchmarks.peers.environments import PEERS, Environment, Peer, UnavailableError
from benchmarks.peers.program import Size, UnsupportedError
from benchmarks.peers.runner import Result, Work, works


def console():
    return Console(file=io.StringIO(), width=100)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_each_peer_has_a_program_that_does_not_import_the_package(peer):
    found = importlib.util.find_spec(f"benchmarks.peers.{peer.module}")
    tree = ast.parse(Path(found.origin).read_text())
    ours = {
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and node.module.startswith(("benchmarks", "blazen_trio"))
    }
    assert ours == {"benchmarks.peers.program"}


def test_a_size_describes_its_database():
    postgresql = Size(url="postgresql+psycopg://me@host:1/name")
    assert (postgresql.kind, postgresql.plain_url) == ("postgresql", "postgresql://me@host:1/name")
    sqlite = Size(url="sqlite:////folder/file.db")
    assert (sqlite.kind, sqlite.file) == ("sqlite", "/folder/file.db")


def test_a_program_warms_up_and_prints_its_seconds(monkeypatch, capsys):
    sizes = []

    def refuse(_size):
        raise UnsupportedError("no")

    def do(size):
        sizes.append((size.runs, size.steps))
        return 1.5

    def answer(name):
        monkeypatch.setattr(sys, "argv", ["peer", name, "--runs", "100", "--steps", "20"])
        program.main({"chain": do, "many": refuse})
        return json.loads(capsys.readouterr().out)

    assert answer("chain") == {"seconds": 1.5}
    assert sizes == [(3, 10), (100, 20)]
    assert answer("many") == {"unsupported": "no"}
    assert answer("fan") == {"unsupported": "not supported"}


@pytest.fixture
def alone(monkeypatch):
    """Leave only this engine and one that fails."""
    monkeypatch.setattr(runner, "PEERS", [Peer("pytest", "no_such_program", (), "")])
    monkeypatch.setattr(
        runner, "environment_of", lambda peer, cache: Environment(sys.executable, "1")
    )


def test_engines_take_turns_and_a_failure_is_reported(alone, tmp_path):
    sizes = ((1, 10), (1, 15))
    work = Work("durable-chain-sqlite", "durable-chain", 1, 5, "sqlite", sizes)
    ours, other = runner.measure([work], 1, tmp_path, tmp_path, console(), count=True)
    assert len(ours.per_second) == 1
    assert ours.ratios == [1.0]
    assert ours.syncs == (1.0 if shutil.which("strace") else None)
    assert other.per_second == []
    assert other.reason.startswith("failed: ")
    assert list(tmp_path.iterdir()) == []


def test_this_engines_program_does_every_workload(monkeypatch, tmp_path):
    known = {}
    monkeypatch.setattr(program, "main", known.update)
    runpy.run_module("benchmarks.peers.ours", run_name="__main__")
    for work in works(["sqlite"]):
        with new_database("sqlite", tmp_path) as url:
            assert known[work.program](Size(min(2, work.runs), 5, url)) > 0


def test_peers_that_can_not_be_installed_or_loaded_are_reported(tmp_path, monkeypatch):
    with pytest.raises(UnavailableError, match="doesn't load: ModuleNotFoundError"):
        environments._run([sys.executable, "-c", "import no_such_module"], "doesn't load")

    def unavailable(peer, cache):
        raise UnavailableError("doesn't load: no such module")

    monkeypatch.setattr(runner, "environment_of", unavailable)
    output = console()
    assert list(runner.environments(tmp_path, output)) == [runner.OURS]
    assert "left out: dbos doesn't load: no such module" in output.file.getvalue()


def test_the_table_of_peers_shows_ratios_syncs_and_missing_results():
    output = console()
    runner.show(
        [
            Result("chain", runner.OURS, "1", [100.0, 200.0, 300.0], [1.0, 1.0, 1.0], 1.0),
            Result("chain", "dbos", "1", [10.0, 20.0, 30.0], [0.1, 0.2, 0.3], 4.0),
            Result("chain", "burr", "1", [], [], reason="it [can't]"),
        ],
        output,
    )
    found = output.file.getvalue()
    assert "0.1-0.3" in found
    assert "4.00" in found
    assert "burr is not in chain: it [can't]" in found
