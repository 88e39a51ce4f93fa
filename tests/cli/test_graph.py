"""`blazen-trio graph`: its pictures, its files, and its errors."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest
import trio

from blazen_trio import InputRequiredError, StepFailedError, Workflow, open_store
from blazen_trio._cli.exits import CONFIG, NOINPUT, REFUSED, USAGE
from tests.cli.orders import SECRET, fail
from tests.pictures.drawn import agent, book

BOOK = "tests.pictures.drawn:book"


@pytest.fixture
def waiting(sqlite_url):
    """Return a run of `book` that waits for its answer."""

    async def run():
        async with open_store(sqlite_url) as store:
            with pytest.raises(InputRequiredError):
                await book.run(0, store=store, run_id="book-1")
            return await store.load_snapshot("book-1")

    return sqlite_url, trio.run(run)


def test_a_workflow_is_printed_as_a_flowchart(invoke):
    done = invoke("graph", BOOK)
    assert (done.exit_code, done.stdout) == (0, book.to_mermaid())


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("a.svg", book.to_svg() + "\n"),
        ("a.DOT", book.to_dot()),
        ("a.gv", book.to_dot()),
        ("a.mmd", book.to_mermaid()),
    ],
)
def test_the_file_name_selects_the_format(invoke, tmp_path, name, drawn):
    done = invoke("graph", BOOK, "--output", str(tmp_path / name))
    assert (done.exit_code, done.stdout) == (0, "")
    assert (tmp_path / name).read_text(encoding="utf-8") == drawn


def test_an_explicit_format_takes_precedence(invoke, tmp_path):
    assert invoke("graph", BOOK, "--format", "dot", "-o", str(tmp_path / "a.svg")).exit_code == 0
    assert (tmp_path / "a.svg").read_text(encoding="utf-8") == book.to_dot()


@pytest.mark.parametrize("name", ["x.png", "x", "x.json"])
@pytest.mark.parametrize("more", [[], ["--run", "r", "--timeline", "--db", "sqlite:///r.db"]])
def test_a_file_name_without_a_known_format_is_refused(invoke, tmp_path, name, more):
    done = invoke("graph", BOOK, "-o", str(tmp_path / name), *more)
    assert done.exit_code == USAGE
    assert f"{name}' has no known format: use one of .mmd, .mermaid, .dot, .gv, .svg" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert invoke("graph", BOOK, "--format", "mermaid", "-o", str(tmp_path / name)).exit_code == 0
    assert (tmp_path / name).read_text(encoding="utf-8") == book.to_mermaid()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--format", "mermaid"],
        ["--format", "dot"],
        ["--format", "svg"],
        ["--format", "html"],
        ["--timeline"],
        ["--json"],
    ],
    ids=lambda arguments: arguments[-1],
)
def test_passwords_in_stored_errors_are_not_drawn(invoke, sqlite_url, arguments):
    async def run():
        async with open_store(sqlite_url) as store:
            with pytest.raises(StepFailedError):
                await Workflow("failing", [fail], history=True).run(
                    SECRET, store=store, run_id="fails"
                )

    trio.run(run)
    done = invoke(
        "graph", "tests.cli.orders:failing", "--run", "fails", "--db", sqlite_url, *arguments
    )
    assert done.exit_code == 0
    assert "sesame" not in done.output
    # The others tell no errors, or write them in their own way.
    assert "ann:***@h/d" in done.output or arguments[-1] in ("mermaid", "dot", "--json")


def test_a_run_colours_the_graph(invoke, waiting):
    url, snapshot = waiting
    done = invoke("graph", BOOK, "--run", "book-1", "--db", url)
    assert (done.exit_code, done.stdout) == (0, book.to_mermaid(snapshot))


def test_a_timeline_and_a_page_of_a_run_are_drawn(invoke, waiting, tmp_path):
    url, _ = waiting
    done = invoke("graph", BOOK, "--run", "book-1", "--timeline", env={"BLAZEN_TRIO_DB": url})
    assert done.exit_code == 0
    assert ET.fromstring(done.stdout).get("class") == "blazen-timeline"
    page = str(tmp_path / "book.html")
    assert invoke("graph", BOOK, "--run", "book-1", "--db", url, "-o", page).exit_code == 0
    assert (tmp_path / "book.html").read_text(encoding="utf-8").count("<svg") == 2


def test_a_graph_is_printed_as_json(invoke, waiting, tmp_path):
    url, _ = waiting
    plain = json.loads(invoke("graph", BOOK, "--json").stdout)
    assert invoke("graph", BOOK, "--json", "-o", str(tmp_path / "a.json")).exit_code == 0
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == plain
    assert {node["status"] for node in plain["nodes"]} == {None}
    told = json.loads(invoke("graph", BOOK, "--json", "--run", "book-1", "--db", url).stdout)
    assert [node["happened"] for node in told["nodes"] if node["name"] == "Draft"] == [["1 open"]]
    assert {
        "source": "event:Page",
        "target": "step:fetch",
        "kind": "deliver",
        "taken": False,
    } in told["edges"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--timeline"], USAGE, "--timeline is a picture of one run: name it, --run ID"),
        (["--format", "html"], USAGE, "html is a picture of one run"),
        (["--run", "book-1"], USAGE, "--run needs the database that the run is in"),
        (
            ["--run", "r", "--db", "sqlite:///r.db", "--timeline", "--format", "dot"],
            USAGE,
            "svg or html, not dot",
        ),
        (["--output", "/there/is/no/such/folder/a.svg"], NOINPUT, "can't be written"),
    ],
)
def test_options_that_exclude_each_other_are_refused(invoke, arguments, code, message):
    done = invoke("graph", BOOK, *arguments)
    assert done.exit_code == code
    assert message in done.stderr


def test_a_run_of_another_workflow_is_refused(invoke, waiting):
    url, _ = waiting
    done = invoke("graph", BOOK, "--run", "nosuch", "--db", url)
    assert done.exit_code == NOINPUT
    done = invoke("graph", "tests.pictures.drawn:agent", "--run", "book-1", "--db", url)
    assert done.exit_code == REFUSED
    assert f"is of workflow 'book', but tests.pictures.drawn:agent is {agent.name!r}" in done.stderr


def test_a_target_with_several_workflows_needs_a_name(invoke):
    done = invoke("graph", "tests.cli.flows:ALL")
    assert done.exit_code == CONFIG
    assert "has several workflows" in done.stderr
