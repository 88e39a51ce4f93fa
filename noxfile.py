"""The project's checks. `nox` runs those that a change must pass; `nox -s NAME` runs one."""

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
"""The extras for users of the package. The others are for developing it."""
CODE = ["blazen_trio", "migrations", "tests", "benchmarks", "examples", "noxfile.py"]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests. Arguments after `--` go to pytest."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", *(session.posargs or ["-n", "auto"]))


@nox.session(python=PYTHONS[0])
def oldest(session: nox.Session) -> None:
    """Run the tests with the oldest dependencies that pyproject.toml allows."""
    constraints = Path(session.create_tmp()) / "oldest.txt"
    constraints.write_text("".join(f"{bound}\n" for bound in lower_bounds()))
    session.install("-e", ".[test]", "--constraint", str(constraints))
    session.run("python", "-m", "pytest", *(session.posargs or ["-n", "auto"]))


def lower_bounds() -> list[str]:
    """Return the lower bounds of the dependencies, extras included, as constraints for pip."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    extras = (project["optional-dependencies"][name] for name in EXTRAS)
    needed = [*project["dependencies"], *(one for extra in extras for one in extra)]
    bounds = [re.fullmatch(r"([\w-]+)(?:\[[\w,]+\])?>=([\d.]+)", one) for one in needed]
    assert all(bounds), f"not all of {needed} are lower bounds"
    return [f"{bound[1]}=={bound[2]}" for bound in bounds if bound]


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests and report which lines and branches they miss."""
    session.install("-e", ".[test]")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *(session.posargs or ["-n", "auto"]))
    session.run("coverage", "combine", "-q")
    session.run("coverage", "report")


@nox.session
def thorough(session: nox.Session) -> None:
    """Run the exhaustive tests with all their seeds, examples and points, not just some."""
    session.install("-e", ".[test]")
    everything = {"BLAZEN_TRIO_TEST_THOROUGH": "1", "BLAZEN_TRIO_SIMULATION_SEEDS": "200"}
    paths = [
        "tests/state",
        "tests/kills",
        "tests/simulation",
        "tests/bad_input/test_rows.py",
        "tests/runtime/test_cancelled_anywhere.py",
        "tests/stores/test_migrations.py",
    ]
    session.run(
        "python",
        "-m",
        "pytest",
        *(session.posargs or ["-n", "auto", *paths]),
        env={**everything, **session.env},
    )


@nox.session
def simulation(session: nox.Session) -> None:
    """Simulate failing clusters with 1,000 seeds in memory and 100 in SQL, or with arguments."""
    session.install("-e", ".[test]")
    for arguments in (
        [session.posargs]
        if session.posargs
        else [["--seeds=1000"], ["--seeds=100", "--sql"], ["--every-point"]]
    ):
        session.run("python", "-m", "tests.simulation", *arguments)


@nox.session
def chaos(session: nox.Session) -> None:
    """Kill and freeze workers and their databases for longer than the default tests do.

    BLAZEN_TRIO_CHAOS_SECONDS and BLAZEN_TRIO_CHAOS_RUNS set the length.
    """
    session.install("-e", ".[test]")
    longer = {"BLAZEN_TRIO_CHAOS_SECONDS": "120", "BLAZEN_TRIO_CHAOS_RUNS": "2000"}
    session.run(
        "python", "-m", "pytest", "tests/chaos", *session.posargs, env={**longer, **session.env}
    )


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz everything that reads external input. `-- --rounds N TARGET...` selects targets."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.fuzz", *session.posargs)


@nox.session
def interrupts(session: nox.Session) -> None:
    """Interrupt programs at each line of the package. Arguments after `--` select scenarios."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.interrupts", *session.posargs)


@nox.session
def scale(session: nox.Session) -> None:
    """Measure a worker beside 100,000 waiting runs, and a database's growth over 10,000 runs."""
    session.install(".[benchmarks]")
    session.run("python", "-m", "benchmarks.idle", *session.posargs)
    session.run("python", "-m", "benchmarks.retention", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check formatting and lint, without changing anything."""
    session.install(".[lint]")
    session.run("ruff", "format", "--check", *CODE)
    session.run("ruff", "check", *CODE)
    session.run("flake8", *CODE)


@nox.session
def types(session: nox.Session) -> None:
    """Check the package's types, and its public types as a user's type checker sees them."""
    session.install("-e", ".[types]")  # includes the imports of benchmarks and examples
    session.run("mypy", "blazen_trio", "benchmarks", "examples", "tests/typing/api.py")
    session.run("pyright", "tests/typing/api.py")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into build/docs. Warnings are errors."""
    session.install("-e", ".[docs]")
    session.run(
        "python", "-m", "sphinx", "-W", "-n", "--keep-going", "docs", "build/docs", *session.posargs
    )


@nox.session
def docs_snippets(session: nox.Session) -> None:
    """Test the snippets, commands and links of the README and the docs, and the site's build."""
    session.install("-e", ".[test,docs]")
    session.run("python", "-m", "pytest", "tests/docs", *session.posargs)


def build(session: nox.Session) -> tuple[Path, Path, Path]:
    """Build and check a source distribution and a wheel. Return their folder and their paths."""
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
    """Install the wheel in a clean environment and run an example outside the checkout."""
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
    """Run the source distribution's tests against the wheel, without the package's source."""
    out, sdist, built = build(session)
    session.install(f"{built}[test]")
    # An earlier build of the same version may be installed.
    session.install("--force-reinstall", "--no-deps", str(built))
    shutil.unpack_archive(sdist, out, filter="data")
    source = out / sdist.name.removesuffix(".tar.gz")
    for folder in ("blazen_trio", "migrations"):
        shutil.rmtree(source / folder)
    need_the_source = (
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
            *(f"--ignore={path}" for path in need_the_source),
            *(session.posargs or ["-n", "auto"]),
        )


@nox.session
def release(session: nox.Session) -> None:
    """Check if this commit can be released: the first table of docs/internals/releasing.md."""
    # Queued first, so that they run even if this session fails, and one call reports everything.
    session.notify("docs", posargs=[])
    session.notify("wheel", posargs=[])
    session.notify("installed")
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", "tests/release")
    session.run("python", "-m", "tests.release.checklist")


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Measure the engine against its baselines. Arguments after `--` go to its command line."""
    session.install(".[benchmarks]")
    session.run("python", "-m", "benchmarks", *session.posargs)
    if not session.posargs:
        for subject in ("syncs", "workers", "takeover"):
            session.run("python", "-m", f"benchmarks.{subject}")
