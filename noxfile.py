"""The checks of this project: `nox` runs them all, `nox -s tests-3.12` one of them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "tests", "docs", "wheel", "installed"]

PYTHONS = [
    line.rsplit(" :: ", 1)[1]
    for line in nox.project.load_toml("pyproject.toml")["project"]["classifiers"]
    if line.startswith("Programming Language :: Python :: 3.")
]
EXTRAS = ["postgresql", "mysql", "cli", "otel"]
"""Those that are for who installs the package."""
CODE = ["blazen_trio", "migrations", "tests", "benchmarks", "examples", "noxfile.py"]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests; what is given after `--` goes to pytest."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=PYTHONS[0])
def oldest(session: nox.Session) -> None:
    """Run the tests with the oldest versions of what the package needs that pyproject.toml allows."""
    constraints = Path(session.create_tmp()) / "oldest.txt"
    constraints.write_text("".join(f"{bound}\n" for bound in lower_bounds()))
    session.install("-e", ".[test]", "--constraint", str(constraints))
    session.run("python", "-m", "pytest", *session.posargs)


def lower_bounds() -> list[str]:
    """The lower bounds of what an installed package needs, extras included, as constraints of pip."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    extras = (project["optional-dependencies"][name] for name in EXTRAS)
    needed = [*project["dependencies"], *(one for extra in extras for one in extra)]
    bounds = [re.fullmatch(r"([\w-]+)(?:\[[\w,]+\])?>=([\d.]+)", one) for one in needed]
    assert all(bounds), f"not all of {needed} are lower bounds"
    return [f"{bound[1]}=={bound[2]}" for bound in bounds if bound]


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests and tell which lines and branches they leave out."""
    session.install("-e", ".[test]")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "combine", "-q")
    session.run("coverage", "report")


@nox.session
def simulation(session: nox.Session) -> None:
    """Simulate clusters that fail: a thousand seeds in memory, a hundred in SQL, or as `-- --seeds N` and the like say."""
    session.install("-e", ".[test]")
    for arguments in (
        [session.posargs]
        if session.posargs
        else [["--seeds=1000"], ["--seeds=100", "--sql"], ["--every-point"]]
    ):
        session.run("python", "-m", "tests.simulation", *arguments)


@nox.session
def chaos(session: nox.Session) -> None:
    """Kill and freeze workers, and the databases under them, for longer: BLAZEN_TRIO_CHAOS_SECONDS and _RUNS say for how long."""
    session.install("-e", ".[test]")
    longer = {"BLAZEN_TRIO_CHAOS_SECONDS": "120", "BLAZEN_TRIO_CHAOS_RUNS": "2000"}
    session.run(
        "python", "-m", "pytest", "tests/chaos", *session.posargs, env={**longer, **session.env}
    )


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz everything that reads input from outside; `-- --rounds N` and targets."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.fuzz", *session.posargs)


@nox.session
def interrupts(session: nox.Session) -> None:
    """Interrupt programs at each line of the package; names of scenarios and the like go after `--`."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.interrupts", *session.posargs)


@nox.session
def scale(session: nox.Session) -> None:
    """What a worker costs beside 100,000 waiting runs, and whether a database grows over 10,000 runs."""
    session.install(".[benchmarks]")
    session.run("python", "-m", "benchmarks.idle", *session.posargs)
    session.run("python", "-m", "benchmarks.retention", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Look for faults without running anything."""
    session.install(".[lint]")
    session.run("ruff", "format", "--check", *CODE)
    session.run("ruff", "check", *CODE)
    session.run("flake8", *CODE)


@nox.session
def types(session: nox.Session) -> None:
    """Check the package's types, and the public ones as a user's checker sees them."""
    session.install("-e", ".[types]")  # has what benchmarks and examples import, too
    session.run("mypy", "blazen_trio", "benchmarks", "examples", "tests/typing/api.py")
    session.run("pyright", "tests/typing/api.py")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into build/docs; a warning is an error."""
    session.install("-e", ".[docs]")
    session.run(
        "python", "-m", "sphinx", "-W", "-n", "--keep-going", "docs", "build/docs", *session.posargs
    )


@nox.session
def docs_snippets(session: nox.Session) -> None:
    """Test the README and the docs: snippets and commands run, links lead somewhere, the site builds."""
    session.install("-e", ".[test,docs]")
    session.run("python", "-m", "pytest", "tests/docs", *session.posargs)


def build(session: nox.Session) -> tuple[Path, Path, Path]:
    """A new folder, and in it a source distribution and the wheel that was built of it; both checked."""
    session.install("build", "twine")
    out = Path(session.create_tmp()).resolve()
    shutil.rmtree(out)
    out.mkdir()
    session.run("python", "-m", "build", "--outdir", str(out), ".", silent=True)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    session.run("twine", "check", "--strict", str(sdist), str(wheel))
    return out, sdist, wheel


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the wheel, install it in a clean environment, and run the example from outside the checkout."""
    out, _, built = build(session)
    clean = out / "clean"
    session.run("python", "-m", "venv", str(clean))
    python = str(clean / "bin" / "python")
    session.run(python, "-m", "pip", "install", "-q", f"{built}[examples]", external=True)
    shutil.copytree("examples", out / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    with session.chdir(out):
        session.run(python, "examples/stdlib_report.py", *session.posargs, external=True)


@nox.session
def installed(session: nox.Session) -> None:
    """Run the source distribution's tests on the wheel, with no source of the package present."""
    out, sdist, built = build(session)
    session.install(f"{built}[test]")
    session.install(
        "--force-reinstall", "--no-deps", str(built)
    )  # an earlier build may be there, of the same version
    shutil.unpack_archive(sdist, out, filter="data")
    source = out / sdist.name.removesuffix(".tar.gz")
    for folder in ("blazen_trio", "migrations"):
        shutil.rmtree(source / folder)
    of_the_source = (
        "tests/docs",
        "tests/release/test_distributions.py",
        "tests/test_house.py",
        "tests/test_layers.py",
    )
    with session.chdir(source):
        session.run(
            "python",
            "-m",
            "pytest",
            *(f"--ignore={path}" for path in of_the_source),
            *session.posargs,
        )


@nox.session
def release(session: nox.Session) -> None:
    """Check that this commit can be released, as far as docs/internals/releasing.md has it so."""
    # Queued first: they run whether or not what follows fails, so one call reports all there is to do.
    session.notify("docs", posargs=[])
    session.notify("wheel", posargs=[])
    session.notify("installed")
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", "tests/release")
    session.run("python", "-m", "tests.release.checklist")


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Measure the engine beside its limits; what is given after `--` goes to `python -m benchmarks`."""
    session.install(".[benchmarks]")
    session.run("python", "-m", "benchmarks", *session.posargs)
    if not session.posargs:
        for subject in ("syncs", "workers", "takeover"):
            session.run("python", "-m", f"benchmarks.{subject}")
