"""The wheel and the source distribution: their contents and metadata.

The wheel alone is enough to create a database and to run a workflow.
"""

from __future__ import annotations

import email
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import blazen_trio

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
FOLDERS = ("benchmarks", "blazen_trio", "docs", "examples", "migrations", "tests")
FILES = {
    ".flake8",
    "CHANGELOG.md",
    "CODE_OF_CONDUCT.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "noxfile.py",
    "pyproject.toml",
}

# Creates a database with the migrations in the wheel.
INSTALLED = """
import pathlib, sys, trio, blazen_trio

@blazen_trio.step
async def only(ev: blazen_trio.StartEvent) -> blazen_trio.StopEvent:
    return blazen_trio.StopEvent(ev.data + 1)

async def main():
    async with blazen_trio.open_store("sqlite:///runs.db") as store:
        return await blazen_trio.Workflow("one", [only]).run(41, store=store)

assert pathlib.Path(sys.argv[1]) in pathlib.Path(blazen_trio.__file__).parents, blazen_trio.__file__
print(trio.run(main))
"""


def build(source, folder, *kinds):
    """Build distributions from a source tree, without using the network."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, *kinds, source]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout


def source_files(folder):
    """Return the files in a folder of this source tree."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".db" not in path.suffix
    }


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The source distribution, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    build(ROOT, folder, "--sdist")
    (packed,) = folder.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    return folder / packed.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, unpacked. Installing it does no more than that."""
    folder = tmp_path_factory.mktemp("wheel")
    build(ROOT, folder, "--wheel")
    return unpacked(folder)


def unpacked(folder):
    (packed,) = folder.glob("*.whl")
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_wheel_contains_only_the_package_and_the_migrations(wheel):
    about = f"blazen_trio-{blazen_trio.__version__}.dist-info"
    names = set(contents(wheel))
    assert {name for name in names if not name.startswith(f"{about}/")} == source_files(
        "blazen_trio"
    ) | {
        name.replace("migrations/", "blazen_trio/_migrations/", 1)
        for name in source_files("migrations")
    }
    assert {
        f"{about}/licenses/LICENSE",
        "blazen_trio/py.typed",
        "blazen_trio/_migrations/env.py",
    } <= names


def test_the_sdist_contains_the_tests_and_everything_they_need(sdist):
    names = {name for name in contents(sdist) if name.partition("/")[0] != ".gitignore"}
    assert names == FILES | {"PKG-INFO"}.union(*map(source_files, FOLDERS))


def test_a_wheel_built_from_the_sdist_is_identical(sdist, wheel, tmp_path):
    build(sdist, tmp_path, "--wheel")
    assert contents(unpacked(tmp_path)) == contents(wheel)


def test_the_wheel_has_complete_metadata(wheel):
    (metadata,) = wheel.glob("*.dist-info/METADATA")
    said = email.message_from_string(metadata.read_text("utf-8"))
    assert (said["Name"], said["Version"]) == ("blazen-trio", blazen_trio.__version__)
    assert (said["License-Expression"], said["License-File"]) == ("MIT", "LICENSE")
    assert said["Description-Content-Type"] == "text/markdown"
    assert said.get_payload().strip() == (ROOT / "README.md").read_text("utf-8").strip()
    assert set(said.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])


def test_every_supported_python_is_classified():
    versions = [
        line.rpartition(" :: ")[2] for line in PROJECT["classifiers"] if " :: Python :: 3." in line
    ]
    assert PROJECT["requires-python"] == f">={versions[0]}"
    assert versions == [f"3.{11 + place}" for place in range(len(versions))]
    assert f"3.{sys.version_info.minor}" in versions


def test_the_wheel_alone_creates_a_database_and_runs_a_workflow(wheel, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(wheel), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-W", "error", "-c", INSTALLED, wheel]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("42\n", "")
