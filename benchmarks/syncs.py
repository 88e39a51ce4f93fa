"""Count the syncs of the disk per step: `python -m benchmarks.syncs [--runs N] [--steps N]`.

Nothing is timed. For a server, the program starts one that no other client uses, and reads its
counters. For SQLite it uses strace, if that is installed. It counts from opening a database whose
tables exist until closing it.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import attrs
import trio
from rich.console import Console
from rich.table import Table

from benchmarks.databases import new_database, run_on
from benchmarks.harness import Stopwatch
from benchmarks.once import case_of, prepare
from benchmarks.servers import NotInstalledError, own_server

AIM = 0.1
"""The aim for many runs: fewer syncs per step than this."""

Count = Callable[[str, str, str, int, int], int]
"""A function that counts the syncs of one side of a case.

It takes the case's name, the side, the database's URL, the number of runs, and the steps per run.
"""

_SYNC = re.compile(r"\bf(?:data)?sync\(")
_LEAVE_SECONDS = 10.0


@attrs.frozen
class Syncs:
    """The counts for one case in one kind of database.

    Attributes:
        database: The kind of database.
        case: The case's name.
        steps: The number of steps that each side did.
        ours: The number of syncs by the engine.
        limit: The number of syncs by its limit.
    """

    database: str
    case: str
    steps: int
    ours: int
    limit: int


def count_by_strace(case: str, side: str, url: str, runs: int, steps: int) -> int:
    """Count the calls of fsync and fdatasync in a process that uses SQLite."""
    with tempfile.NamedTemporaryFile(prefix=".benchmark-") as log:
        # Stop the process at these two calls only. If every call were traced, it would be so slow
        # that more steps would share a commit.
        trace = ["strace", "-f", "--seccomp-bpf", "-e", "trace=fsync,fdatasync", "-o", log.name]
        sizes = ["--runs", str(runs), "--steps", str(steps)]
        work = [sys.executable, "-m", "benchmarks.once", case, side, url, *sizes]
        subprocess.run([*trace, *work], check=True, capture_output=True)  # noqa: S603
        return len(_SYNC.findall(Path(log.name).read_text()))


def count_by_server(server: str, case: str, side: str, url: str, runs: int, steps: int) -> int:
    """Count the syncs by the server's own counter."""
    one = case_of(case, "", runs, steps)
    before = syncs_of(server)
    trio.run(one.ours if side == "ours" else one.limit, Stopwatch(url))
    return syncs_of(server) - before


def syncs_of(server: str) -> int:
    """Return how often a server has synced its log so far."""
    if "postgresql" in server:
        # A backend adds its counts to the statistics when it ends, so wait for all others to end.
        others = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        deadline = time.monotonic() + _LEAVE_SECONDS
        while run_on(server, others)[0][0]:
            if time.monotonic() > deadline:
                msg = f"another client has been connected to {server} for {_LEAVE_SECONDS} s"
                raise RuntimeError(msg)
            time.sleep(0.02)
        return int(run_on(server, "SELECT wal_sync FROM pg_stat_wal")[0][0])
    # Newer servers have no count for the log alone: theirs includes the syncs of InnoDB's tables.
    found: dict[str, str] = dict(run_on(server, "SHOW GLOBAL STATUS LIKE 'Innodb%%fsyncs'"))
    return int(found.get("Innodb_os_log_fsyncs") or found["Innodb_data_fsyncs"])


def count_all(kind: str, folder: Path, runs: int, steps: int) -> list[Syncs]:
    """Count for both sides of both cases, each in a new database of this kind.

    Raises:
        NotInstalledError: The server or strace is not installed.
    """
    found = []
    with ExitStack() as stack:
        count: Count = count_by_strace
        server = None
        if kind != "sqlite":
            server = stack.enter_context(own_server(kind, folder))
            count = partial(count_by_server, server)
        elif shutil.which("strace") is None:
            msg = "strace is not installed"
            raise NotInstalledError(msg)
        for case in ("many", "chain"):
            counts = {}
            for side in ("ours", "limit"):
                with new_database(kind, folder, server) as url:
                    trio.run(prepare, url)
                    counts[side] = count(case, side, url, runs, steps)
            found.append(Syncs(kind, case, runs * steps, **counts))
    return found


def show(found: list[Syncs], console: Console) -> None:
    """Print the table."""
    table = Table(
        title="syncs of the disk per step", caption="many: 100 INSERTs per COMMIT; chain: one"
    )
    for heading in ("database", "case", "steps", "blazen_trio", "limit", "aim"):
        table.add_column(heading, justify="left" if heading in ("database", "case") else "right")
    for one in found:
        per_step = (f"{syncs / one.steps:.3f}" for syncs in (one.ours, one.limit))
        table.add_row(
            one.database,
            one.case,
            f"{one.steps:,}",
            *per_step,
            f"< {AIM}" if one.case == "many" else "",
        )
    console.print(table)


def main() -> None:
    """Count on each kind of database and print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.syncs", description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="concurrent runs (default: 200)")
    parser.add_argument("--steps", type=int, default=10, help="steps per run (default: 10)")
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="a folder for the databases (default: the temporary folder)",
    )
    options = parser.parse_args()
    console = Console()
    found: list[Syncs] = []
    for kind in ("sqlite", "postgresql", "mariadb"):
        try:
            found += count_all(kind, options.dir, options.runs, options.steps)
        except (NotInstalledError, ModuleNotFoundError) as error:
            console.print(f"left out: {kind} ({error})")
    show(found, console)


if __name__ == "__main__":
    main()
