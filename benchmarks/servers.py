"""Database servers started for a benchmark alone, so that no other client moves their counters.

They run the installed binaries with default settings.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

_START_SECONDS = 60.0
_STOP_SECONDS = 60.0


class NotInstalledError(Exception):
    """Something that a benchmark needs is not installed."""


@contextmanager
def own_server(kind: str, parent: Path) -> Iterator[str]:
    """Yield the URL of a new server, which is stopped and deleted afterwards.

    Args:
        kind: `"postgresql"` or `"mariadb"`.
        parent: Where to create a folder for its data.

    Raises:
        NotInstalledError: Its binaries were not found.
    """
    user = _unprivileged_user()
    with tempfile.TemporaryDirectory(dir=parent.resolve(), prefix=".benchmark-") as name:
        folder = Path(name)
        if user is not None:
            _give(folder, user)
        prepare = _postgresql if kind == "postgresql" else _mariadb
        command, url = prepare(folder, user)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603
                command, stdout=log, stderr=log, user=user, start_new_session=True
            )
        try:
            _wait(process, url, folder / "log")
            yield url
        finally:
            # SIGINT makes PostgreSQL shut down cleanly without waiting for its clients.
            process.send_signal(signal.SIGINT if kind == "postgresql" else signal.SIGTERM)
            process.wait(_STOP_SECONDS)


def _unprivileged_user() -> str | None:
    """Return the user to run a server as, because servers refuse to run as root."""
    if os.geteuid() != 0:
        return None
    users = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "mysql", "nobody") if name in users)


def _give(folder: Path, user: str) -> None:
    """Make a user the owner of a folder, and check that the user can reach it.

    Raises:
        PermissionError: A folder above it is closed to the user.
    """
    entry = pwd.getpwnam(user)
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    for each in folder.parents:
        if not each.stat().st_mode & 0o001:
            msg = f"the server would run as {user!r}, who can't enter {each}: use another --dir"
            raise PermissionError(msg)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Wait until the server answers."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            with engine.connect():
                return
        except sa.exc.OperationalError as error:
            if time.monotonic() > deadline or process.poll() is not None:
                msg = f"the server did not start: {log.read_text(errors='replace')[-1000:]}"
                raise RuntimeError(msg) from error
            time.sleep(0.05)


def _postgresql(folder: Path, user: str | None) -> tuple[list[str], str]:
    initdb = _find("initdb", "usr/lib/postgresql/*/bin", "usr/local/pgsql/bin").resolve()
    data, port = folder / "data", _free_port()
    _run([initdb, "-D", data, "-U", "postgres", "--auth=trust", "-E", "UTF8", "--no-sync"], user)
    server = _find("postgres", str(initdb.parent)[1:], "usr/lib/postgresql/*/bin")
    command = [server, "-D", data, "-p", port, "-k", folder, "-c", "listen_addresses=127.0.0.1"]
    return [
        str(part) for part in command
    ], f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"


def _mariadb(folder: Path, user: str | None) -> tuple[list[str], str]:
    install = _find("mariadb-install-db", "usr/bin")
    server = _find("mariadbd", "usr/sbin", "usr/libexec")
    data, port = folder / "data", _free_port()
    # TMPDIR may be closed to the user.
    own = ["--no-defaults", f"--datadir={data}", f"--tmpdir={folder}"]
    _run([install, *own, "--auth-root-authentication-method=normal", "--skip-test-db"], user)
    paths = [f"--socket={folder / 'socket'}", f"--pid-file={folder / 'pid'}"]
    where = [f"--port={port}", "--bind-address=127.0.0.1", *paths]
    command = [server, *own, *where, "--skip-grant-tables", "--skip-networking=0"]
    return [str(part) for part in command], f"mysql+pymysql://root@127.0.0.1:{port}/mysql"


def _find(name: str, *folders: str) -> Path:
    found = shutil.which(name)
    there = [Path(found)] if found else []
    for folder in folders:
        there += sorted(Path("/").glob(f"{folder}/{name}"), reverse=True)
    if not there:
        msg = f"{name} is not installed"
        raise NotInstalledError(msg)
    return there[0]


def _run(command: list[object], user: str | None) -> None:
    subprocess.run(  # noqa: S603
        [str(part) for part in command], check=True, capture_output=True, user=user, cwd="/"
    )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
