"""Each stand-alone benchmark program does the work that it measures, in a small size."""

from __future__ import annotations

import shutil
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import pytest
import trio

from benchmarks import idle, retention, syncs, takeover, workers
from benchmarks.databases import SERVERS, available, left_out, new_database, run_on, version_of
from benchmarks.once import prepare
from benchmarks.servers import NotInstalledError
from tests.databases import KINDS, fresh_database

PROGRAMS = [
    "__main__",
    "compare",
    "idle",
    "markdown",
    "memory",
    "once",
    "plots",
    "retention",
    "syncs",
    "takeover",
    "worker",
    "workers",
]


@pytest.fixture
def reachable(tmp_path, monkeypatch):
    """Return a function that makes a kind of database available, or skips the test."""
    with_servers = []

    def reach(kind):
        if kind in SERVERS:
            database = fresh_database(kind, tmp_path)
            monkeypatch.setenv(SERVERS[kind], database.__enter__())
            with_servers.append(database)
        return kind

    yield reach
    for database in with_servers:
        database.__exit__(None, None, None)


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_program_has_help(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--help"])
    with pytest.raises(SystemExit) as end:
        import_module(f"benchmarks.{name}").main()
    assert end.value.code == 0
    assert "usage: benchmarks" in capsys.readouterr().out


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_database_is_empty_and_is_dropped_afterwards(kind, reachable, tmp_path):
    reachable(kind)
    assert kind in available()
    assert kind not in left_out()
    with new_database(kind, tmp_path) as url:
        run_on(url, "CREATE TABLE a (b INTEGER)")
        assert version_of(url)
    with new_database(kind, tmp_path) as url:
        run_on(url, "CREATE TABLE a (b INTEGER)")
    assert list(tmp_path.iterdir()) == []


def test_databases_that_can_not_be_measured_are_reported(monkeypatch):
    monkeypatch.delenv(SERVERS["postgresql"], raising=False)
    monkeypatch.setenv(SERVERS["mariadb"], "mysql+pymysql://host/name")
    monkeypatch.setitem(sys.modules, "pymysql", None)
    assert left_out() == {
        "postgresql": "BLAZEN_TRIO_TEST_POSTGRESQL is not set",
        "mariadb": "the package pymysql is not installed",
    }
    assert available() == ["sqlite"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_cost_of_waiting_runs_is_measured(kind, reachable, tmp_path):
    with new_database(reachable(kind), tmp_path) as url:
        cost = trio.run(idle.measure, url, 20, 1)
    assert cost.poll > 0
    assert cost.wake > 0


@pytest.mark.parametrize("kind", KINDS)
def test_database_sizes_are_measured(kind, reachable, tmp_path):
    with new_database(reachable(kind), tmp_path) as url:
        sizes = trio.run(retention.soak, url, 2, 3)
    assert len(sizes) == 2
    assert min(sizes) > 0


def test_runs_are_shared_between_processes(reachable, tmp_path):
    # Enough runs to last longer than either worker's next poll.
    turn = workers.turn(reachable("postgresql"), tmp_path, 160, 20)
    assert min(turn.one, turn.two) > 0
    assert sum(turn.shares) == 1
    assert len(turn.shares) == 2


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_killed_workers_runs_resume_elsewhere(elsewhere, tmp_path):
    found = takeover.take_over("sqlite", tmp_path, 3, lease_ttl=1.5, elsewhere=elsewhere)
    assert 0 < found.first <= found.last


def test_syncs_of_a_process_are_counted(tmp_path):
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    with new_database("sqlite", tmp_path) as url:
        trio.run(prepare, url)
        assert syncs.count_by_strace("chain", "ours", url, 1, 5) >= 5


@pytest.mark.parametrize("kind", KINDS[1:])
def test_syncs_of_a_server_are_counted(kind):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # a server started by root runs as another user
        try:
            found = syncs.count_all(kind, folder, 4, 5)
        except (NotInstalledError, ModuleNotFoundError) as error:
            pytest.skip(str(error))
        assert list(folder.iterdir()) == []
    assert [one.case for one in found] == ["many", "chain"]
    assert all(one.ours > 0 and one.limit > 0 for one in found)
    assert found[1].ours >= 20
