"""The commands, extras, files, links and figures that the documents name exist."""

from __future__ import annotations

import itertools
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from blazen_trio._cli.app import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
]

# A line of a block, or a piece of code in a sentence.
COMMAND = re.compile(
    r"(?:^\s*(?:\$ )?|`|=)(?:\S*/)?(?:blazen-trio|python -m blazen_trio) ([^`\n]+)", re.MULTILINE
)
EXTRAS = re.compile(r"(?:blazen-trio|pip install [^\n]*['\"]\.|\.whl)\[([\w,-]+)\]")
FILE = re.compile(
    r"\b(?:examples|benchmarks|docs|tests|blazen_trio|migrations)/[\w./-]+\.(?:py|md)\b"
)


def commands_in(text: str) -> list[list[str]]:
    """Return the arguments of every `blazen-trio` in a text, up to a pipe or a redirection."""
    found = []
    for line in COMMAND.findall(text.replace("\\\n", " ")):
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        found.append(list(itertools.takewhile(lambda word: word[0] not in "|&;<>()", words)))
    return found


ALL_COMMANDS = [
    pytest.param(words, id=f"{document.name}: {shlex.join(words)}")
    for document in DOCUMENTS
    for words in commands_in(document.read_text("utf-8"))
]


def takes(command: click.Command, option: str) -> bool:
    """Return whether an option takes a value.

    Raises:
        AssertionError: The command has no such option.
    """
    context = click.Context(command)
    for one in command.get_params(context):
        if option in (*one.opts, *one.secondary_opts):
            return isinstance(one, click.Option) and not (one.is_flag or one.count)
    raise AssertionError(f"{command.name} has no option {option}")


@pytest.mark.parametrize("words", ALL_COMMANDS)
def test_every_command_and_its_options_exist(words):
    command: click.Command = app
    path: list[str] = []
    left = iter(words)
    for word in left:
        if word.startswith("-") and word != "-":
            option, _, value = word.partition("=")
            if takes(command, option) and not value:
                next(left)
        elif isinstance(command, click.Group):
            assert word in command.commands, f"blazen-trio {' '.join(path)} has no command {word}"
            command = command.commands[word]
            path.append(word)
    done = CliRunner().invoke(app, [*path, "--help"])
    assert done.exit_code == 0, done.output


def test_commands_are_found():
    assert commands_in(
        "`blazen-trio a --b` and\n\n    $ x/bin/blazen-trio c \\\n  d | less  # e\n"
    ) == [
        ["a", "--b"],
        ["c", "d"],
    ]
    assert len(ALL_COMMANDS) > 3


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_extras_and_files_that_a_document_names_exist(document):
    text = document.read_text("utf-8")
    extras = {extra for several in EXTRAS.findall(text) for extra in several.split(",")}
    known = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    assert extras <= set(known)
    assert [name for name in FILE.findall(text) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(
    "document",
    [*DOCUMENTS, *sorted(ROOT.glob("examples/**/*.md"))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_every_relative_link_leads_to_a_file(document):
    prose = re.sub(r"^```.*?^```$", "", document.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", prose)
    assert [link for link in links if not (document.parent / link).exists()] == []
    assert links or document.name != "README.md"


def test_the_readme_quotes_only_figures_of_the_benchmarks():
    readme = (ROOT / "README.md").read_text("utf-8")
    section = readme[readme.index("## Performance") : readme.index("## Where to go next")]
    figures = set(re.findall(r"\b\d+\.\d+\b", section))
    assert len(figures) > 10
    tables = [
        line
        for line in (ROOT / "benchmarks" / "README.md").read_text("utf-8").splitlines()
        if line.startswith("|")
    ]
    assert figures <= set(re.findall(r"\b\d+\.\d+\b", "\n".join(tables)))
