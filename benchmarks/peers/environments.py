"""The peers, and an environment for each, created once and kept in a cache folder."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import attrs


class UnavailableError(Exception):
    """A peer can't be installed or loaded. The message says why."""


@attrs.frozen
class Peer:
    """Another engine.

    Attributes:
        name: The distribution whose version is shown.
        module: The module of its program in this package.
        packages: The packages that pip installs.
        imports: A statement that fails if the peer can't be loaded.
    """

    name: str
    module: str
    packages: tuple[str, ...]
    imports: str


PEERS = (
    Peer(
        "llama-index-workflows", "llama_index", ("llama-index-workflows>=2.26",), "import workflows"
    ),
    Peer(
        "langgraph",
        "langgraph",
        (
            "langgraph>=1.2",
            "langgraph-checkpoint-sqlite",
            "langgraph-checkpoint-postgres",
            "psycopg[binary]",
        ),
        "import langgraph.graph",
    ),
    Peer("dbos", "dbos", ("dbos>=3.4", "psycopg[binary]"), "import dbos"),
    Peer(
        "apache-burr",
        "burr",
        ("apache-burr[tracking-client]>=0.43", "aiosqlite", "asyncpg", "psycopg2-binary"),
        "import burr.core",
    ),
    Peer("pydantic-graph", "pydantic_graph", ("pydantic-graph>=2.68",), "import pydantic_graph"),
    Peer("blazen", "blazen", ("blazen>=0.6.74",), "import blazen"),
)


@attrs.frozen
class Environment:
    """The environment of a peer's program: its interpreter, and the peer's version."""

    python: str
    version: str


def environment_of(peer: Peer, cache: Path) -> Environment:
    """Return a peer's environment, and create it first if necessary.

    Raises:
        UnavailableError: The peer can't be installed or loaded.
    """
    folder = cache.resolve() / peer.name
    python = str(folder / "bin" / "python")
    complete = folder / "complete"
    if not complete.exists() or complete.read_text() != repr(peer.packages):
        venv.create(folder, clear=True, with_pip=True)
        _run([python, "-m", "pip", "install", "--quiet", *peer.packages], "can't be installed")
        complete.write_text(repr(peer.packages))
    _run([python, "-c", peer.imports], "doesn't load")
    version = f"from importlib.metadata import version; print(version({peer.name!r}))"
    return Environment(python, _run([python, "-c", version], "has no version"))


def own_environment(version: str) -> Environment:
    """Return the environment of this program."""
    return Environment(sys.executable, version)


def _run(command: list[str], fault: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        *_, reason = [
            line for line in done.stderr.splitlines() if not line.startswith("[notice]")
        ] or [""]
        raise UnavailableError(f"{fault}: {reason}")
    return done.stdout.strip()
