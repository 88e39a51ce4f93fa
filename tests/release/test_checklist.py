"""The release checklist finds everything that is missing, and nothing else."""

from __future__ import annotations

import re
import tomllib

import pytest

import blazen_trio
from tests.release.checklist import (
    HEADING,
    ROOT,
    URLS,
    tree_problems,
    url_problems,
    version_problems,
)

CHANGELOG = "# Changelog\n\n## [Unreleased]\n\n## [1.2.0] - 2026-12-24\n\n### Added\n- x\n"


def test_a_version_with_a_dated_heading_is_ready():
    assert list(version_problems("1.2.0", CHANGELOG)) == []
    assert list(version_problems("1.2.0", CHANGELOG.replace("## [Unreleased]\n\n", ""))) == []


@pytest.mark.parametrize(
    ("version", "changelog", "problem"),
    [
        ("1.3.0", CHANGELOG, r"the newest version in CHANGELOG.md is \[1.2.0\]"),
        ("1.2.0", "# Changelog\n\n## [Unreleased]\n", "the newest version in CHANGELOG.md is none"),
        ("1.2.0", CHANGELOG.replace("ed]\n", "ed]\n- y\n"), r"changes under \[Unreleased\]"),
        ("1.2.0", CHANGELOG.replace(" - 2026-12-24", ""), r"no date for \[1.2.0\]"),
        ("1.2.0", CHANGELOG.replace("2026-12-24", "soon"), r"no date for \[1.2.0\]"),
    ],
)
def test_a_version_without_a_complete_changelog_entry_is_not_ready(version, changelog, problem):
    [found] = version_problems(version, changelog)
    assert re.search(problem, found)


def test_a_version_that_is_not_final_is_not_ready():
    found = list(version_problems("1.2.0.dev1", CHANGELOG))
    assert "version 1.2.0.dev1 is not a final one" in found[0]


def test_the_changelog_of_this_checkout_can_be_read():
    headings = HEADING.findall((ROOT / "CHANGELOG.md").read_text("utf-8"))
    assert headings[0][0] in ("Unreleased", blazen_trio.__version__)


def test_public_urls_are_ready():
    urls = {name: f"https://host.org/blazen-trio/{name.lower()}" for name in URLS}
    assert list(url_problems({"urls": urls})) == []


def test_missing_and_placeholder_urls_are_not_ready():
    assert len(list(url_problems({}))) == len(URLS)
    urls = dict.fromkeys(URLS, "https://host.org")
    for wrong in ("http://host.org", "https://example.com/x", "https://docs.example.org", "TODO"):
        [found] = url_problems({"urls": {**urls, "Source": wrong}})
        assert wrong in found


def test_the_urls_of_this_checkout_are_public():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wrong = [problem for problem in url_problems(project) if "has no" not in problem]
    assert wrong == []


def test_a_checkout_with_changes_is_not_ready():
    assert list(tree_problems("")) == []
    [found] = tree_problems(" M README.md\n")
    assert "README.md" in found
