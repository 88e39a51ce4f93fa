"""Tables at terminals of any width: one line per row, with whole ids and statuses."""

from __future__ import annotations

import io
import re

import pytest
import trio
from rich.console import Console

from blazen_trio import StepFailedError, Workflow, open_store
from blazen_trio._cli.runs.tables import table
from tests.cli.orders import fail
from tests.cli.terminal import Terminal

IDS = ("0197d4a2-5d0c-7c3e-9d5b-0f6f5a6f0001", "0197d4a2-5d0c-7c3e-9d5b-0f6f5a6f0002")
NAMES = ("failing", "a-workflow-whose-name-is-as-long-as-names-become")
LONG = "the payment service answered with something that nobody could make sense of, " * 4


def lines(url, width, *arguments, code=0):
    """Return the output of a command at a terminal of this width, without colours."""
    more = {"COLUMNS": str(width), "NO_COLOR": "1"}
    with Terminal(url, *arguments, environment=more) as terminal:
        assert terminal.ends() == code
        text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.screen)
    return [line.rstrip() for line in text.splitlines()]


@pytest.fixture
def failed(sqlite_url):
    """Return a database with two failed runs that have long errors."""

    async def main():
        async with open_store(sqlite_url) as store:
            for name, run_id in zip(NAMES, IDS, strict=True):
                with pytest.raises(StepFailedError):
                    await Workflow(name, [fail], history=True).run(LONG, run_id=run_id, store=store)

    trio.run(main)
    return sqlite_url


@pytest.mark.parametrize("width", [80, 100])
def test_a_list_has_one_line_for_each_failed_run(failed, width):
    heading, *rows = lines(failed, width, "runs", "list")
    names = heading.split()
    assert names[:3] == ["ID", "WORKFLOW", "STATUS"]
    assert names[-1] == "ERROR"
    assert ("CREATED" in names) == (width == 100)
    assert [row.split()[0] for row in rows] == list(IDS)
    status, error = heading.index("STATUS"), heading.index("ERROR")
    assert [row[status : status + 6] for row in rows] == ["failed", "failed"]
    assert all(
        row[error:].startswith("step 'fail' failed:") and row.endswith("\N{HORIZONTAL ELLIPSIS}")
        for row in rows
    )
    assert all(len(row) <= width for row in rows)


@pytest.mark.parametrize("width", [80, 100])
def test_a_history_has_one_line_for_each_record(failed, width):
    heading, *rows = lines(failed, width, "runs", "history", IDS[0])
    kind, step, error = (heading.index(name) for name in ("KIND", "STEP", "ERROR"))
    kinds = [row[kind:step].strip() for row in rows]
    assert kinds == ["workflow_started", "step_dispatched", "step_failed", "workflow_failed"]
    assert [row[error:][:14] for row in rows[2:]] == ["RuntimeError: ", "step 'fail' fa"]
    assert all(re.search(r"\d\d:\d\d:\d\d", row[:kind]) for row in rows)
    assert all(len(row) <= width for row in rows)


def test_watch_prints_one_line_for_each_record(failed):
    shown = lines(failed, 80, "runs", "watch", IDS[0], code=1)
    place = next(index for index, line in enumerate(shown) if line.startswith("TIME"))
    kinds = [line.split()[1] for line in shown[place + 1 : place + 5]]
    assert kinds == ["workflow_started", "step_dispatched", "step_failed", "workflow_failed"]


# Fitting a table


def fitted(width, **settings):
    """Return a table of one row at a terminal of this width."""
    text = io.StringIO()
    made = table(
        "ID",
        "NAME",
        "WHEN",
        "ERROR",
        rows=[["i" * 10, "n" * 10, "2026-01-02 03:04", "e" * 30]],
        **settings,
    )
    Console(file=text, width=width, force_terminal=True, no_color=True).print(made)
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text.getvalue()).splitlines()]


GIVES_WAY = (
    ("ERROR", 10),
    ("WHEN", slice(10)),
    ("NAME", 4),
    ("WHEN", 0),
    ("ERROR", 0),
    ("NAME", 0),
)


@pytest.mark.parametrize(
    ("width", "row"),
    [
        (72, f"{'i' * 10}  {'n' * 10}  2026-01-02 03:04  {'e' * 30}"),
        (71, f"{'i' * 10}  {'n' * 10}  2026-01-02 03:04  {'e' * 28}…"),
        (52, f"{'i' * 10}  {'n' * 10}  2026-01-02 03:04  {'e' * 9}…"),
        (
            51,
            f"{'i' * 10}  {'n' * 10}  2026-01-02  {'e' * 14}…",
        ),  # what the date leaves is the error's
        (45, f"{'i' * 10}  {'n' * 8}…  2026-01-02  {'e' * 9}…"),
        (40, f"{'i' * 10}  nnn…  2026-01-02  {'e' * 9}…"),
        (39, f"{'i' * 10}  nnn…  {'e' * 20}…"),
        (28, f"{'i' * 10}  nnn…  {'e' * 9}…"),
        (27, f"{'i' * 10}  {'n' * 10}"),
        (10, "i" * 10),
    ],
)
def test_columns_are_dropped_one_after_another(width, row):
    assert fitted(width, gives_way=GIVES_WAY)[1:] == [row]


def test_a_column_that_must_be_shown_is_wrapped():
    assert fitted(6, gives_way=GIVES_WAY) == ["ID", "iiiiii", "iiii"]


def test_a_last_column_without_spaces_is_cut():
    assert fitted(55)[1] == f"{'i' * 10}  {'n' * 10}  2026-01-02 03:04  {'e' * 12}…"
