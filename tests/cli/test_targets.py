"""Targets: the workflows that they name, and the errors of those that name none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

from blazen_trio._cli.exits import ConfigError
from blazen_trio._cli.targets import Target, load_workflows, parse_targets
from tests.cli import flows
from tests.cli.conftest import ROOT, SCRIPT

if TYPE_CHECKING:
    from collections.abc import Iterator

FLOWS = "tests.cli.flows"
NONE: Any = None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the current directory, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def load(*texts: str) -> list[Any]:
    return load_workflows(parse_targets(NONE, NONE, texts))


def test_a_target_may_be_a_workflow_a_list_or_a_dotted_attribute():
    assert load(f"{FLOWS}:short") == [flows.short]
    assert load(f"{FLOWS}:ALL") == flows.ALL
    assert load(f"{FLOWS}:Shop.gated", f"{FLOWS}:gated", f"{FLOWS}:ALL") == [
        flows.gated,
        flows.short,
        flows.poison,
    ]


def test_the_current_directory_can_be_imported_from(folder):
    (folder / "here").mkdir()
    (folder / "here" / "flows_of_mine.py").write_text("from tests.cli.flows import short as mine")
    assert load("here.flows_of_mine:mine") == [flows.short]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "nowhere:flow",
            r"no module 'nowhere': neither the current directory \(.+\) nor the installed packages",
        ),
        ("tests.cli.nowhere:flow", "no module 'tests.cli.nowhere'"),
        ("nowhere.flows:flow", "no module 'nowhere', and so no 'nowhere.flows'"),
        (
            "tests.cli.flows.gated:flow",
            "'tests.cli.flows' is a module, not a package; did you mean tests.cli.flows:gated?",
        ),
        (
            f"{FLOWS}:gone",
            (
                "has no attribute 'gone'; its workflows are "
                f"{FLOWS}:gated, {FLOWS}:short, {FLOWS}:poison"
            ),
        ),
        (
            f"{FLOWS}:Shop.gone",
            r"<class '.*Shop'> in .* has no attribute 'gone'; its workflows are",
        ),
        (
            f"{FLOWS}:gate",
            "is a function, not a Workflow nor a list of Workflows; its workflows are",
        ),
        (f"{FLOWS}:MIXED", r"MIXED\[1\] is a function, not a Workflow"),
        (f"{FLOWS}:__all__", "has no attribute"),
        ("blazen_trio:__all__", r"__all__\[0\] is a str, not a Workflow"),
        ("blazen_trio:__version__", "is a str, .*the module has no workflows"),
    ],
)
def test_a_missing_target_is_reported(target, message):
    with pytest.raises(ConfigError, match=message):
        load(target)


def test_two_workflows_with_the_same_name_are_refused():
    with pytest.raises(
        ConfigError, match=rf"{FLOWS}:ALL\[0\] and {FLOWS}:Shop.other are two .*'gated'"
    ):
        load(f"{FLOWS}:ALL", f"{FLOWS}:Shop.other")


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("x = 1\n\n1 / 0", r"at .*faulty.py:3: ZeroDivisionError: division by zero"),
        (
            "import not_installed",
            r"at .*faulty.py:1: ModuleNotFoundError: No module named 'not_installed'",
        ),
        ("def", r"SyntaxError: .*faulty.py, line 1"),
        ("import sys\nsys.exit(3)", r"faulty.py:2: SystemExit: 3"),
        (
            "from blazen_trio import Workflow\nWorkflow('x', [])",
            r"(?s)faulty.py:2: .*'x' is not valid:.*no steps",
        ),
        ("flows = []", "faulty:flows is empty"),
    ],
)
def test_an_error_in_a_targets_module_is_reported(program, message, folder):
    (folder / "faulty.py").write_text(program)
    with pytest.raises(ConfigError, match=message):
        load("faulty:flows")


@pytest.mark.parametrize(
    "text", ["flows", "flows:", ":flow", "flows:a b", "a-b:flow", "flows:x()", ""]
)
def test_an_invalid_target_is_refused(text):
    with pytest.raises(click.BadParameter, match=r"not of the form package\.module:workflow$"):
        load(text)


def test_a_file_name_is_not_a_target():
    with pytest.raises(click.BadParameter, match=r"as for import: shop\.flows:ticks"):
        load("./shop/flows.py:ticks")


def test_errors_show_a_target_as_it_was_given():
    assert str(Target("shop.flows", "Shop.ticks")) == "shop.flows:Shop.ticks"


def test_without_the_extra_one_line_says_what_to_install():
    program = f"import sys; sys.modules['click'] = None; {SCRIPT}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 78
    assert done.stderr == 'blazen-trio needs its extra [cli]: pip install "blazen-trio[cli]"\n'


def test_importing_the_package_loads_nothing_of_the_command_line():
    program = (
        "import sys, blazen_trio, blazen_trio.testing; "
        "sys.exit(sorted({'click', 'rich'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
