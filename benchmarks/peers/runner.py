"""Run the workloads on all peers in turns, each time in a new process, and count disk syncs."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import attrs
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

import benchmarks
from benchmarks.databases import new_database, run_on
from benchmarks.peers.environments import (
    PEERS,
    Environment,
    UnavailableError,
    environment_of,
    own_environment,
)
from benchmarks.report import number
from benchmarks.servers import NotInstalledError, own_server
from benchmarks.syncs import syncs_of

OURS = "blazen-trio"
KINDS = ("sqlite", "postgresql")
"""The databases that several peers support."""

_SYNC = re.compile(r"\bf(?:data)?sync\(")
_SECONDS = 300.0  # for one process


@attrs.frozen
class Work:
    """A workload that several engines can do.

    Attributes:
        name: The name in the tables.
        program: The name in the peers' programs.
        runs: The number of concurrent runs.
        steps: The steps per run, or the width of a fan-out.
        database: The kind of database, or `None`.
        counted: Two sizes for counting syncs. Their difference does not contain the syncs of start
            and end.
    """

    name: str
    program: str
    runs: int
    steps: int
    database: str | None = None
    counted: tuple[tuple[int, int], tuple[int, int]] | None = None


@attrs.frozen
class Result:
    """The result of one engine on one workload.

    Attributes:
        work: The workload's name.
        peer: The engine's name.
        version: The engine's version.
        per_second: Steps per second, one number per turn.
        ratios: The engine's number divided by ours, for each turn.
        syncs: Disk syncs per step, or `None` if they were not counted.
        reason: The reason why there are no numbers, or `""`.
    """

    work: str
    peer: str
    version: str
    per_second: list[float]
    ratios: list[float]
    syncs: float | None = None
    reason: str = ""


def works(kinds: Sequence[str]) -> list[Work]:
    """Return all workloads, the durable ones once for each of these kinds of databases."""
    chain, many = ((1, 20), (1, 60)), ((50, 10), (250, 10))
    return [
        Work("chain", "chain", 1, 2000),
        Work("fan-1000", "fan", 1, 1000),
        Work("many", "many", 500, 10),
        *(
            Work(f"durable-chain-{kind}", "durable-chain", 1, 300, kind, chain)
            for kind in kinds
            if kind in KINDS
        ),
        *(
            Work(f"durable-many-{kind}", "durable-many", 100, 10, kind, many)
            for kind in kinds
            if kind in KINDS
        ),
    ]


class UnsupportedError(Exception):
    """The engine can't do the workload. The message says why."""


def command(
    environment: Environment, module: str, work: Work, size: tuple[int, int], url: str
) -> list[str]:
    """Return the command that runs a workload in a size: the runs, and the steps of each."""
    runs, steps = size
    program = [environment.python, "-m", f"benchmarks.peers.{module}", work.program]
    return [*program, "--runs", str(runs), "--steps", str(steps), "--url", url]


def seconds(arguments: Sequence[str]) -> float:
    """Run a program. Return the seconds that it reports.

    Raises:
        UnsupportedError: The program does not support the workload, or failed.
    """
    root = Path(benchmarks.__file__).parents[1]  # where `-m` finds the programs
    try:
        done = subprocess.run(  # noqa: S603
            arguments, check=False, capture_output=True, text=True, cwd=root, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise UnsupportedError(f"not done after {_SECONDS:.0f} s") from error
    if done.returncode:
        raise UnsupportedError(
            f"failed: {(done.stderr.strip().splitlines() or ['without a message'])[-1]}"
        )
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if "unsupported" in answer:
        raise UnsupportedError(answer["unsupported"])
    return float(answer["seconds"])


def once(environment: Environment, module: str, work: Work, folder: Path) -> float:
    """Return steps per second of one process, with a new database if the workload needs one."""
    with new_database(work.database, folder) if work.database else nullcontext("") as url:
        return (
            work.runs
            * work.steps
            / seconds(command(environment, module, work, (work.runs, work.steps), url))
        )


def syncs_per_step(
    environment: Environment, module: str, work: Work, folder: Path, server: str | None
) -> float:
    """Return the disk syncs per step, counted by strace or by a PostgreSQL server.

    Args:
        environment: The engine's environment.
        module: The engine's program.
        work: The workload.
        folder: A folder for the databases.
        server: A server that no other client uses. `None`: SQLite and strace.
    """
    assert work.database is not None
    assert work.counted is not None
    counts = []
    for size in work.counted:
        with new_database(work.database, folder, server) as url:
            arguments = command(environment, module, work, size, url)
            counts.append(
                _count_by_strace(arguments)
                if server is None
                else _count_by_server(server, arguments)
            )
    (few, some), (more, most) = work.counted
    # If many steps share a sync, the counts may be equal, or the second may be lower by chance.
    return max(0, counts[1] - counts[0]) / (more * most - few * some)


def _count_by_strace(arguments: list[str]) -> int:
    with tempfile.NamedTemporaryFile(prefix=".benchmark-") as log:
        seconds(
            [
                "strace",
                "-f",
                "--seccomp-bpf",
                "-e",
                "trace=fsync,fdatasync",
                "-o",
                log.name,
                *arguments,
            ]
        )
        return len(_SYNC.findall(Path(log.name).read_text()))


def _count_by_server(server: str, arguments: list[str]) -> int:
    # So that the server has no reason to sync of its own accord while the engine runs.
    run_on(server, "CHECKPOINT")
    before = syncs_of(server)
    seconds(arguments)
    return syncs_of(server) - before


def environments(cache: Path, console: Console) -> dict[str, tuple[str, Environment]]:
    """Return module and environment of each engine that works here, this one first.

    Print a line for each engine that can't be installed or loaded.
    """
    found = {OURS: ("ours", own_environment(version(OURS)))}
    for peer in track(PEERS, "preparing the peers' environments", console=console, transient=True):
        try:
            found[peer.name] = (peer.module, environment_of(peer, cache))
        except UnavailableError as error:
            console.print(f"left out: {peer.name} {error}", soft_wrap=True)
    return found


def measure(
    chosen: Sequence[Work],
    repeat: int,
    folder: Path,
    cache: Path,
    console: Console,
    *,
    count: bool = True,
) -> list[Result]:
    """Measure all engines on these workloads, in turns.

    Args:
        chosen: The workloads.
        repeat: The number of turns.
        folder: A folder on the disk to measure.
        cache: The folder with the peers' environments.
        console: Where to print what is left out.
        count: True to count syncs, too.
    """
    engines = environments(cache, console)
    found = []
    with ExitStack() as stack:
        servers = _servers(
            {work.database for work in chosen} if count else set(), folder, stack, console
        )
        for work in track(chosen, "measuring peers", console=console, transient=True):
            found += _one_work(work, engines, repeat, folder)
            if work.database in servers:
                counted = partial(_counted, work, engines, folder, servers[work.database])
                found = [counted(one) if one.work == work.name else one for one in found]
    return found


def _servers(
    kinds: set[str | None], folder: Path, stack: ExitStack, console: Console
) -> dict[str | None, str | None]:
    """Return the servers that count syncs, by kind of database. `None` stands for strace."""
    found: dict[str | None, str | None] = {}
    if "sqlite" in kinds and shutil.which("strace"):
        found["sqlite"] = None
    if "postgresql" in kinds:
        try:
            found["postgresql"] = stack.enter_context(own_server("postgresql", folder))
        except NotInstalledError as error:
            console.print(f"syncs on PostgreSQL are not counted: {error}", soft_wrap=True)
    return found


def _one_work(
    work: Work, engines: dict[str, tuple[str, Environment]], repeat: int, folder: Path
) -> list[Result]:
    numbers: dict[str, list[float]] = {name: [] for name in engines}
    reasons: dict[str, str] = {}
    for _ in range(repeat):
        for name, (module, environment) in engines.items():
            if name in reasons:
                continue
            try:
                numbers[name].append(once(environment, module, work, folder))
            except UnsupportedError as error:
                reasons[name] = str(error)
    return [
        Result(
            work.name,
            name,
            engines[name][1].version,
            [] if name in reasons else taken,
            [] if name in reasons else [a / b for a, b in zip(taken, numbers[OURS], strict=True)],
            reason=reasons.get(name, ""),
        )
        for name, taken in numbers.items()
    ]


def _counted(
    work: Work,
    engines: dict[str, tuple[str, Environment]],
    folder: Path,
    server: str | None,
    one: Result,
) -> Result:
    if one.reason:
        return one
    module, environment = engines[one.peer]
    return attrs.evolve(one, syncs=syncs_per_step(environment, module, work, folder, server))


def show(found: Sequence[Result], console: Console) -> None:
    """Print the table."""
    table = Table(
        title="peers: steps per second, the ratio to blazen-trio, syncs of the disk per step",
        caption="medians, least-greatest; with a ratio above 1, the peer is faster",
        box=box.SIMPLE,
    )
    table.add_column("workload\n[dim]engine[/dim]", no_wrap=True)
    for heading in ("steps/s", "ratio", "", "syncs/step"):
        table.add_column(heading, justify="right", no_wrap=True)
    for work in dict.fromkeys(one.work for one in found):
        table.add_section()
        table.add_row(f"[bold]{work}[/bold]")
        for one in found:
            if one.work == work and not one.reason:
                table.add_row(f"  {one.peer}", *_cells(one))
    console.print(table)
    reasons: dict[tuple[str, str], list[str]] = {}
    for one in found:
        if one.reason:
            reasons.setdefault((one.peer, one.reason), []).append(one.work)
    for (peer, reason), names in reasons.items():
        console.print(
            f"[dim]{peer} is not in {', '.join(names)}: {escape(reason)}[/dim]", soft_wrap=True
        )


def _cells(one: Result) -> tuple[str, ...]:
    return (
        number(statistics.median(one.per_second)),
        number(statistics.median(one.ratios)),
        f"{number(min(one.ratios))}-{number(max(one.ratios))}",
        "" if one.syncs is None else f"{one.syncs:.2f}",
    )
