"""The conditions for a release that a program can check.

`python -m tests.release.checklist` prints what is missing, and fails if anything is.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blazen_trio

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
HEADING = re.compile(r"^## \[(?P<version>[^\]]+)\](?: - (?P<date>.*))?$", re.MULTILINE)
DATE = re.compile(r"\d{4}-\d\d-\d\d")
URLS = ("Source", "Documentation", "Changelog", "Issues")


def version_problems(version: str, changelog: str) -> Iterator[str]:
    """Expect a final version, whose changelog entry is the newest, dated and complete."""
    if re.fullmatch(r"\d+\.\d+\.\d+", version) is None:
        yield f"version {version} is not a final one: set __version__ to MAJOR.MINOR.PATCH"
    headings = list(HEADING.finditer(changelog))
    if headings and headings[0]["version"] == "Unreleased":
        first = headings.pop(0)
        end = headings[0].start() if headings else len(changelog)
        if changelog[first.end() : end].strip():
            yield f"CHANGELOG.md has changes under [Unreleased]: move them under [{version}]"
    newest = headings[0] if headings else None
    if newest is None or newest["version"] != version:
        found = "none" if newest is None else f"[{newest['version']}]"
        yield f"the newest version in CHANGELOG.md is {found}: expected ## [{version}] - DATE"
    elif DATE.fullmatch(newest["date"] or "") is None:
        yield f"CHANGELOG.md has no date for [{version}]: expected ## [{version}] - YYYY-MM-DD"


def url_problems(project: dict[str, Any]) -> Iterator[str]:
    """Expect public addresses of the source, documentation, changelog and issues."""
    urls = project.get("urls", {})
    for name in URLS:
        url = urls.get(name)
        if url is None:
            yield f"pyproject.toml has no {name} in [project.urls]: set it to its public address"
        elif re.fullmatch(r"https://(?!(?:[\w-]+\.)*example\.)[\w.-]+\.\w+(?:/\S*)?", url) is None:
            yield f"{name} in [project.urls] is {url}: expected a public https address"


def tree_problems(status: str) -> Iterator[str]:
    """Expect an empty output of `git status`: distributions are built from committed files."""
    if status.strip():
        yield f"the checkout has changes that are not committed:\n{status.rstrip()}"


def problems() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return [
        *version_problems(blazen_trio.__version__, changelog),
        *url_problems(project),
        *tree_problems(status),
    ]


if __name__ == "__main__":
    found = problems()
    for problem in found:
        print(f"- {problem}")
    print(f"{len(found)} to do before the release" if found else "ready, as far as this can tell")
    sys.exit(bool(found))
