"""Database servers that a test may kill and restart, run from the installed binaries."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Iterator

_START_SECONDS = 300.0


class Server:
    """A server with its data in a folder. It can be killed, as by a power cut, and restarted."""

    def __init__(self, command: list[str], url: str, user: str | None, log: Path) -> None:
        self.url = url
        self._command = command
        self._user = user
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        deadline = time.monotonic() + _START_SECONDS
        while True:
            if self._process is None or self._process.poll() is not None:
                # Launched again if it has ended: PostgreSQL does not start while a process of the
                # killed server is left.
                self._launch()
            try:
                with engine.connect():
                    return
            except sa.exc.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _launch(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, user=self._user, start_new_session=True
            )

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Kill the server. Its processes outside of its process group notice, and end too."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, how)
            self._process.wait(_START_SECONDS)

    def restart(self) -> None:
        """Kill the server, and restart it."""
        self.kill()
        self.start()


@contextlib.contextmanager
def own_server(kind: str, folder: Path) -> Iterator[Server]:
    """Start a new server with an empty database, and kill it afterwards.

    The test is skipped (or fails, see `tests.databases`) if its binaries are not installed.
    """
    user = _owner(folder)
    server = (_postgresql if kind == "postgresql" else _mariadb)(folder, user)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def _owner(folder: Path) -> str | None:
    """Return the user to run the server as: servers refuse to run as root.

    That user gets the folder. `None`: this process does not run as root.
    """
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "mysql", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        for each in (folder, *folder.rglob("*")):
            os.chown(each, entry.pw_uid, entry.pw_gid)
        # Others' temporary folders can't be looked into.
        for parent in (folder, *folder.parents):
            if parent != Path(parent.root) and parent.stat().st_mode & 0o005 != 0o005:
                parent.chmod(parent.stat().st_mode | 0o055)
        return name
    return None


def _postgresql(folder: Path, user: str | None) -> Server:
    binaries = _find("initdb", "/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin").parent
    data, port = folder / "data", _free_port()
    _run(
        [
            binaries / "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "--auth=trust",
            "-E",
            "UTF8",
            "--no-sync",
        ],
        user,
    )
    command = [
        binaries / "postgres",
        "-D",
        data,
        "-p",
        port,
        "-k",
        folder,
        "-c",
        "listen_addresses=127.0.0.1",
    ]
    url = f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
    return Server([str(part) for part in command], url, user, folder / "log")


def _mariadb(folder: Path, user: str | None) -> Server:
    install, server = (
        _find("mariadb-install-db", "/usr/bin"),
        _find("mariadbd", "/usr/sbin", "/usr/libexec"),
    )
    data, port = folder / "data", _free_port()
    own = [
        "--no-defaults",
        f"--datadir={data}",
        f"--tmpdir={folder}",
    ]  # TMPDIR may be closed to the user
    _run([install, *own, "--auth-root-authentication-method=normal", "--skip-test-db"], user)
    command = [
        server,
        *own,
        f"--port={port}",
        "--bind-address=127.0.0.1",
        f"--socket={folder}/socket",
        "--skip-grant-tables",
    ]
    command += ["--skip-networking=0", f"--pid-file={folder}/pid"]
    plain = Server(
        [str(part) for part in command],
        f"mysql+pymysql://root@127.0.0.1:{port}/",
        user,
        folder / "log",
    )
    plain.start()
    engine = sa.create_engine(plain.url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE DATABASE blazen")
    plain.kill(signal.SIGTERM)
    plain.url += "blazen"
    return plain


def _find(name: str, *folders: str) -> Path:
    found = shutil.which(name)
    there = (
        [Path(found)] if found else [path for folder in folders for path in _matching(folder, name)]
    )
    if there:
        return there[0]
    tell = pytest.fail if os.environ.get("BLAZEN_TRIO_TEST_REQUIRE_SERVERS") == "1" else pytest.skip
    raise tell.Exception(f"{name} is not installed, so no server of the test's own can be started")


def _matching(folder: str, name: str) -> list[Path]:
    return sorted(Path("/").glob(f"{folder.lstrip('/')}/{name}"), reverse=True)


def _run(command: list[object], user: str | None) -> None:
    subprocess.run(
        [str(part) for part in command], check=True, capture_output=True, user=user, cwd="/"
    )


def _free_port() -> int:
    """A port that no other test's server gets.

    The system's choice would be free now, but another process may have it, as the port of a
    connection, before the server is there or while it is down. These are below what connections
    get, and another process of the tests has another pid.
    """
    for attempt in range(100):
        port = 12_000 + (os.getpid() * 7 + attempt) % 18_000
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port between 12,000 and 30,000")
