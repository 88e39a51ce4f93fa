"""The pages about the command line: the session runs as shown, and the reference is complete."""

from __future__ import annotations

import re
import shlex
import subprocess
from typing import TYPE_CHECKING, Any

import click
import pytest

from blazen_trio._cli.exits import RUN_EXIT_CODES
from tests.cli.conftest import ROOT
from tests.cli.options import commands, records, written

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (ROOT / "docs" / "how-to" / "command-line.md").read_text("utf-8")
REFERENCE = (ROOT / "docs" / "reference" / "command-line.md").read_text("utf-8")
_VARIES = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ|\b\d+[smhd] ago\b|\bnow\b|\b\d+\.\d{3} s\b")


def test_the_reference_has_every_command_and_the_help_of_every_option():
    assert written(REFERENCE) == REFERENCE, "`python -m tests.cli.options` writes the commands anew"
    lines = " ".join(REFERENCE.split())
    for name, command in commands():
        assert f"\n### {name}\n" in REFERENCE
        for names, text in records(command):
            assert f"- `{names}`: {' '.join(text.split())}" in lines, (name, names)


def test_the_reference_has_the_json_of_every_command_that_prints_it():
    table = REFERENCE[REFERENCE.index("## JSON") : REFERENCE.index("## Exit codes")]
    firsts = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    rows = {name for first in firsts for name in re.findall("`([^`]+)`", first)}
    assert rows == {
        name
        for name, command in commands()
        if any("--json" in param.opts for param in command.params)
    }


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_help_shows_the_options_that_the_reference_has(name, invoke: Any):
    shown = " ".join(invoke(*name.split(), "--help").stdout.split())
    for names, text in records(dict(commands())[name]):
        assert " ".join(f"{names} {text}".split()) in shown


def test_every_command_has_its_help():
    for name, command in commands():
        assert command.help, name
        assert "..." not in command.get_short_help_str(60), name
        for param in command.params:
            assert not isinstance(param, click.Option) or param.help, (name, param.name)


def test_the_exit_codes_are_those_of_the_help():
    in_help = dict(re.findall(r"^  (\d[\d, ]*?)  +(.*)$", RUN_EXIT_CODES, re.MULTILINE))
    on_page = dict(re.findall(r"^\| (\d[\d, ]*) \| (.*) \|$", REFERENCE, re.MULTILINE))
    assert on_page.keys() == in_help.keys()


def session() -> Iterator[tuple[str, int, str]]:
    """The commands of the page's session, with their exit codes and what they print."""
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        for part in block.split("$ blazen-trio ")[1:]:
            command, _, output = part.partition("\n")
            command, _, code = command.partition("  # exit ")
            yield command, int(code or 0), output


def plain(text: str) -> str:
    """Text without what is another each time, and without the widths that follow from it."""
    return re.sub(r" +", " ", _VARIES.sub("...", text)).strip()


def test_the_session_goes_as_the_page_says(tmp_path, monkeypatch, invoke: Any):
    [program] = re.findall(r"^```python shop.py\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "shop.py").write_text(program)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("BLAZEN_TRIO_DB", "sqlite:///shop.db")
    told = list(session())
    assert len(told) > 10
    for command, code, output in told:
        done = invoke(*shlex.split(command))
        assert (plain(done.output), done.exit_code) == (plain(output), code), command


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell, invoke: Any):
    done = invoke("completion", shell)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "_BLAZEN_TRIO_COMPLETE" in done.stdout
    if shell == "bash":
        checked = subprocess.run(
            ["bash", "-n"], input=done.stdout, text=True, capture_output=True, timeout=60
        )
        assert (checked.returncode, checked.stderr) == (0, "")
    completed = invoke(
        env={
            "_BLAZEN_TRIO_COMPLETE": f"{shell}_complete",
            "COMP_WORDS": "blazen-trio runs re",
            "COMP_CWORD": "re" if shell == "fish" else "2",
        }
    )
    assert {"resume", "respond"} <= set(re.findall(r"\w+", completed.stdout))
