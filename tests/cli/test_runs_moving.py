"""`runs export` and `runs import`: a run resumes in another database as it would have here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

from blazen_trio import Snapshot, open_store
from blazen_trio._cli.exits import DATAERR, NOINPUT, REFUSED, USAGE
from tests.cli.orders import half
from tests.databases import KINDS, fresh_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HALF = "tests.cli.orders:half"


@pytest.fixture
def elsewhere(
    tmp_path: Path, invoke: Any, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Any]]:
    """Return a function that runs a command of `runs` on another database."""
    with fresh_database(getattr(request, "param", "sqlite"), tmp_path) as url:
        invoke("db", "upgrade", "--db", url)
        yield lambda *arguments, **more: invoke(
            "runs", *arguments, env={"BLAZEN_TRIO_DB": url}, **more
        )


@pytest.fixture
def half_way(sqlite_url: str, runs: Any) -> str:
    """Return a run with collected members, a question, a delayed event and a large value."""
    runs("submit", "half", "--run-id", "half-1", "--metadata", '{"who": "ann"}')
    assert runs("resume", "half-1", HALF, "--json").exit_code == 5
    return "half-1"


def shown(runs: Any, run_id: str) -> dict[str, Any]:
    return json.loads(runs("show", run_id, "--json").stdout)


@pytest.mark.parametrize("elsewhere", KINDS, indirect=True)
@pytest.mark.parametrize("name", ["run.json", "run.msgpack"])
def test_an_imported_run_resumes(tmp_path, runs, half_way, elsewhere, name):
    file = str(tmp_path / name)
    done = runs("export", half_way, "-o", file, "--json")
    told = json.loads(done.stdout)
    assert told == {
        "run_id": half_way,
        "file": file,
        "format": name[4:],
        "bytes": (tmp_path / name).stat().st_size,
    }
    assert elsewhere("import", file).stdout == "stored run half-1 of half: waiting\n"
    there, here = shown(elsewhere, half_way), shown(runs, half_way)
    assert there == here
    assert (
        elsewhere("history", half_way, "--json").stdout
        == runs("history", half_way, "--json").stdout
    )
    again = elsewhere("import", file)
    assert (again.exit_code, again.stdout) == (REFUSED, "")
    assert "run 'half-1' already exists" in again.stderr
    results = []
    for each in (runs, elsewhere):
        assert each("respond", half_way, "4").exit_code == 0
        results.append(json.loads(each("resume", half_way, HALF, "--json").stdout)["result"])
    assert results == [[[0, 1, 4, 9], 40_000, "ann"]] * 2


def test_a_run_can_be_imported_with_another_id(tmp_path, runs, half_way):
    file = str(tmp_path / "run.json")
    runs("export", half_way, "--output", file)
    told = json.loads(runs("import", file, "--run-id", "half-2", "--json").stdout)
    assert (told["run_id"], told["status"]) == ("half-2", "waiting")
    for run_id in ("half-1", "half-2"):
        runs("respond", run_id, "4")
        assert json.loads(runs("resume", run_id, HALF, "--json").stdout)["result"][0] == [
            0,
            1,
            4,
            9,
        ]


def test_a_run_can_be_exported_and_imported_through_a_pipe(runs, half_way, elsewhere):
    for arguments in ([], ["--format", "msgpack"]):
        done = runs("export", half_way, *arguments)
        read = Snapshot.from_msgpack if arguments else Snapshot.from_json
        assert read(done.stdout_bytes).run_id == half_way
        imported = elsewhere("import", "-", input=done.stdout_bytes, catch_exceptions=False)
        assert imported.exit_code == 0, imported.output
        assert elsewhere("delete", half_way, "-y").exit_code == 0


def test_a_worker_takes_an_imported_run(tmp_path, sqlite_url, runs, half_way, start_worker):
    runs("export", half_way, "-o", str(tmp_path / "run.json"))
    runs("respond", half_way, "4")
    left_out = runs("export", half_way, "-o", str(tmp_path / "late.json"))
    assert left_out.stderr == "left out: inbox messages that no driver has taken yet (1)\n"
    for run_id, file in (("half-2", "run.json"), ("half-3", "late.json")):
        runs("import", str(tmp_path / file), "--run-id", run_id)
        runs("respond", run_id, "5")
    start_worker(sqlite_url, HALF)
    for run_id, square in (("half-1", 4), ("half-2", 5), ("half-3", 5)):
        assert runs("watch", run_id, "--interval", "0.05").exit_code == 0
        assert shown(runs, run_id)["result"][0] == [0, 1, square, 9]


def test_a_delayed_event_wakes_an_imported_run(tmp_path, sqlite_url, runs, half_way, start_worker):
    """A worker takes the run for its time alone."""
    runs("export", half_way, "-o", str(tmp_path / "run.json"))
    runs("import", str(tmp_path / "run.json"), "--run-id", "half-2")
    assert len(shown(runs, "half-2")["delayed"]) == 1
    start_worker(sqlite_url, HALF)

    async def main() -> None:
        async with open_store(sqlite_url) as store:
            with trio.fail_after(120):
                while (await store.load_snapshot("half-2")).delayed:  # noqa: ASYNC110
                    await trio.sleep(0.05)

    trio.run(main)


def test_ended_runs_are_imported_unchanged(tmp_path, runs, elsewhere):
    runs("submit", "half", "--run-id", "a")
    runs("cancel", "a", "--reason", "no tea")
    runs("export", "a", "-o", str(tmp_path / "a"))
    told = json.loads(elsewhere("import", str(tmp_path / "a"), "--json").stdout)
    assert told == json.loads(runs("list", "--json").stdout)["runs"][0]
    assert shown(elsewhere, "a")["failure"] == shown(runs, "a")["failure"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not msgpack"),
        (b"tea", "snapshot"),
        (b"{", "not JSON"),
        (b"{}", "version"),
        (b'{"version": 99}', "99"),
        (b"\x80", "version"),
        (b"\xff\xfe\x00", "snapshot"),
        ("long", "1 to 200 characters"),
        ("nul", "1 to 200 characters"),
        ("nameless", "1 to 200 characters"),
    ],
)
def test_invalid_snapshots_are_refused(tmp_path, runs, half_way, elsewhere, content, message):
    if isinstance(content, str):
        document = json.loads(runs("export", half_way).stdout)
        spoilt = {
            "long": {"run_id": "x" * 201},
            "nul": {"run_id": "a\0b"},
            "nameless": {"workflow": ""},
        }
        content = json.dumps(document | spoilt[content]).encode()
    (tmp_path / "x").write_bytes(content)
    done = elsewhere("import", str(tmp_path / "x"))
    assert (done.exit_code, done.stdout) == (DATAERR, ""), done.output
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(elsewhere("list", "--json").stdout)["runs"] == []


def test_missing_files_are_reported(tmp_path, runs, half_way):
    missing = tmp_path / "nothing"
    done = runs("import", str(missing))
    assert (done.exit_code, done.stdout) == (NOINPUT, "")
    assert done.stderr == f"blazen-trio: {missing} can't be read: No such file or directory\n"
    told = json.loads(runs("import", str(missing), "--json").stderr)
    assert (told["event"], told["exit_code"]) == ("error", NOINPUT)
    assert runs("import", str(tmp_path)).exit_code == NOINPUT  # a directory
    for bad in ("nowhere/x", "."):
        done = runs("export", half_way, "-o", str(tmp_path / bad))
        assert done.exit_code in (NOINPUT, USAGE)
        assert done.stdout == ""
    kept = tmp_path / "kept"
    kept.write_text("kept")
    assert runs("export", "nobody", "-o", str(kept)).exit_code == NOINPUT
    assert kept.read_text() == "kept"
    assert not list(tmp_path.glob("*.part"))


def test_a_snapshot_saved_by_a_program_can_be_imported(tmp_path, sqlite_url, elsewhere):
    async def main() -> Snapshot:
        async with (
            open_store(sqlite_url) as store,
            half.run(run_id="a", store=store, metadata={"who": "ann"}) as run,
        ):
            return await run.pause()

    snapshot = trio.run(main)
    (tmp_path / "a").write_text(snapshot.to_json())
    assert elsewhere("import", str(tmp_path / "a")).stdout == "stored run a of half: paused\n"
    assert shown(elsewhere, "a")["metadata"] == {"who": "ann"}
