"""Curves, memory and imports, and reports: tables, JSON, comparisons, plots, the command."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import attrs
import pytest
import trio
from rich.console import Console

from benchmarks import __main__ as command, compare, imports, markdown, memory, plots
from benchmarks.cases import durable_chain
from benchmarks.curves import add_ended_runs, all_curves, measure_curve
from benchmarks.databases import new_database, run_on
from benchmarks.harness import Aim, Measurement
from benchmarks.peers.runner import Result
from benchmarks.report import as_json, from_json, show, surroundings
from tests.databases import KINDS, fresh_database

SIZES = {
    "state": (1_000, 20_000),
    "age": (5, 50),
    "stored": (3, 20),
    "resume-deliveries": (3, 20),
    "resume-journal": (3, 20),
}


def printed(show):
    console = Console(file=io.StringIO(), width=120)
    show(console)
    return console.file.getvalue()


@pytest.mark.parametrize("subject", SIZES)
def test_each_curve_measures_its_points_in_turns(subject, tmp_path):
    (curve,) = (one for one in all_curves(["sqlite"], steps=5) if one.name == f"{subject}-sqlite")
    found = measure_curve(attrs.evolve(curve, points=SIZES[subject]), 1, tmp_path)
    assert [one.curve for one in found] == [(curve.name, size) for size in SIZES[subject]]
    assert all(min(one.ours) > 0 for one in found)
    assert found[0].ratios == [1.0]
    assert found[0].aim is None
    assert found[1].aim == curve.aim
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_inserted_runs_have_the_rows_of_ended_runs_of_ten_steps(kind, tmp_path):
    with fresh_database(kind, tmp_path) as url:
        add_ended_runs(url, 12)
        counts = [
            run_on(url, f"SELECT COUNT(*) FROM blazen_{table}")[0][0]
            for table in ("run", "journal", "history")
        ]
    assert counts == [12, 12 * 11, 12 * 2]


@pytest.mark.parametrize("kind", memory.KINDS)
def test_idle_runs_wait_and_are_woken(kind, tmp_path):
    with new_database("sqlite", tmp_path) as url:
        found = trio.run(memory.measure, kind, 30, url)
    assert found.woken > 0
    assert found.latency > 0


def test_a_new_process_measures_the_memory_of_idle_runs(tmp_path):
    assert memory.in_own_process("runtime", 300, tmp_path).mebibytes > 0


def test_imports_are_timed(monkeypatch):
    monkeypatch.setattr(imports, "IMPORTS", {"import": ("import json", "import io", "io")})
    (found,) = imports.measure_all(1)
    assert found.name == "import"
    assert min(found.ours + found.limit) > 0
    assert not found.more_is_better


def curve(ratios, name="fan", limit=1000.0):
    return [
        Measurement(
            f"{name}-{x}",
            "bare",
            [limit * r for r in ratios],
            [limit] * len(ratios),
            aim=Aim(1.5),
            curve=(name, x),
        )
        for x in (10, 100)
    ]


def test_a_table_shows_measurements_and_missed_aims():
    found = printed(lambda console: show(curve([1.0, 1.2, 1.1]), console))
    assert "steps per second" in found
    assert "1,100" in found
    assert "1-1.2" in found
    assert "≥ 1.5" in found
    assert "missed" in found


def test_measurements_survive_a_round_trip_through_json():
    found = curve([1.0, 1.2])
    written = json.loads(json.dumps(as_json(found)))
    assert written[0]["ratios"] == [1.0, 1.2]
    assert from_json(written) == found


def test_tables_for_the_readme_mark_missed_aims_and_better_peers():
    lines = [*markdown.measured(curve([1.0, 1.2]))]
    assert lines[-1] == "| `fan-100` | 1,100 | 1,000 | 1.1 (1-1.2) | **≥ 1.5** |"
    peers = [
        *markdown.peers(
            [
                Result("chain", "x", "1.0", [50.0], [2.0], 1.0),
                Result("chain", "y", "1", [], [], reason="no"),
            ]
        )
    ]
    assert peers[3:] == ["| `chain` | x 1.0 | 50 | **2 (2-2)** | 1.00 |"]


def test_a_change_is_better_or_worse_only_if_the_ratios_do_not_overlap():
    before = curve([1.0, 1.1, 1.2])
    assert [one.verdict for one in compare.changes(before, curve([1.3, 1.4], limit=500.0))] == [
        "better"
    ] * 2
    assert [one.verdict for one in compare.changes(before, curve([0.8, 0.9]))] == ["worse"] * 2
    assert [one.verdict for one in compare.changes(before, curve([1.15, 1.6]))] == ["as before"] * 2
    assert compare.changes(before, curve([1.0], name="other")) == []
    less = [attrs.evolve(one, more_is_better=False) for one in before]
    more = [attrs.evolve(one, more_is_better=False) for one in curve([1.5])]
    assert [one.verdict for one in compare.changes(less, more)] == ["worse"] * 2
    assert "better" in printed(
        lambda console: compare.show(compare.changes(before, curve([1.5])), console)
    )


def test_the_first_point_of_a_curve_is_compared_by_its_own_speed():
    first = Measurement("state at 1", "at 1", [100.0], [100.0])
    (found,) = compare.changes([first], [attrs.evolve(first, ours=[50.0], limit=[50.0])])
    assert found.verdict == "worse"


def test_curves_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    state = [
        attrs.evolve(one, limit_name="at 10 bytes of state") for one in curve([1.0, 1.1], "state")
    ]
    files = plots.write([*curve([1.0, 1.2]), *state, curve([1.0], "alone")[0]], tmp_path / "new")
    assert [file.name for file in files] == ["fan.svg", "state.svg"]
    assert all("<svg" in file.read_text() for file in files)


def test_the_command_selects_tasks_by_subject_or_name():
    known = command.tasks(["sqlite"], 1, Path())

    def names(*arguments, subjects=("cases",)):
        return list(command.chosen(known, subjects, arguments))

    assert names() == list(known["cases"])
    assert names(subjects=("cases", "imports"))[-1] == "imports"
    assert names("state", "chain") == ["chain", "state-sqlite"]
    assert names("memory", "resume") == [
        "resume-deliveries-sqlite",
        "resume-journal-sqlite",
        "memory",
    ]


def test_the_command_measures_writes_and_compares(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(command, "available", lambda: ["sqlite"])
    monkeypatch.setattr(
        command, "all_cases", lambda kinds: [durable_chain(kind, 5) for kind in kinds]
    )
    file = tmp_path / "results.json"

    def run(*more):
        arguments = ["--repeat", "1", "--dir", str(tmp_path), *more]
        monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
        command.main()
        return capsys.readouterr().out

    assert "durable-chain-sqlite" in run("--json", str(file))
    found = json.loads(file.read_text())
    assert found.keys() >= surroundings(set(), tmp_path, {}).keys()
    assert found["databases"].keys() == {"sqlite"}
    assert found["settings"] == {"repeat": 1}
    assert "what has changed" in run("--compare", str(file))
