"""Kill a run with SIGKILL repeatedly, resume it, and show that its report is the same.

A run in this process, with no store and no kills, gives the expected report. Then a child process
runs the same workflow on a SQLite file. It is killed at a random point of its work, and a new
process resumes the run by its id, until the next kill. The last process may finish.
"""

from __future__ import annotations

import random
import sys
import uuid
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio
from screen import follow, print_report, progress_bar
from stdlib_workflow import stdlib_report, survey

from blazen_trio import RunStatus, open_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import TaskID
    from stdlib_workflow import Report

KILLS_NEEDED = 3
"""Kills that must land between the first and the last commit, unless fewer were asked for.

Fewer kills prove nothing.
"""


@attrs.define
class Kill:
    """The kill of one child process.

    Attributes:
        target: The number of files that all processes together start before the kill.
        measured: The number of measured files that were durable after the kill.
        landed: True if the kill came between the run's first and last commit.
    """

    target: int
    measured: int = 0
    landed: bool = False


class Demo:
    """The demonstration.

    Args:
        database: The SQLite file.
        log: The side log, to which every step appends a line when it starts.
        files: The number of files to take at most.
        kills: The number of kills.
        seed: The seed for the moments of the kills. `None`: different ones each time.
    """

    def __init__(self, database: Path, log: Path, files: int, kills: int, seed: int | None) -> None:
        self.database = database
        self.log = log
        self.files = files
        self.seed = random.randrange(1_000_000) if seed is None else seed
        self.random = random.Random(self.seed)
        self.kills = [Kill(0) for _ in range(kills)]
        self.run_id = f"stdlib-{uuid.uuid4().hex[:8]}"

    async def show(self) -> bool:
        """Run the demonstration and print its outcome.

        Returns true if the report is the same although some steps were redone.
        """
        async with stdlib_report.run(survey(self.files)) as run:
            expected = await follow(run, "undisturbed, in memory")
        self.choose_targets(expected.files)
        await self.run_and_kill(expected.files)
        async with open_store(f"sqlite:///{self.database}") as store:
            # The run has completed, so this returns the recorded result.
            found = await stdlib_report.resume_from(self.run_id, store=store)
        return self.print_outcome(expected, found)

    def choose_targets(self, total: int) -> None:
        """Spread the kills over the work: one at a random place in each part, not at its ends."""
        for i, kill in enumerate(self.kills):
            place = (i + self.random.uniform(0.1, 0.9)) / len(self.kills)
            kill.target = max(1, int(0.03 * total + 0.9 * total * place))

    async def run_and_kill(self, total: int) -> None:
        """Start the run, kill and resume it as planned, then let it finish, all with a bar."""
        command = f"{sys.executable} {sys.argv[0]} --db {self.database} --resume {self.run_id}"
        print(
            f"Run {self.run_id} is kept in {self.database}. "
            f"If you kill this program itself, resume the run with\n    {command}",
            flush=True,
        )
        with progress_bar() as bar:
            task: TaskID = bar.add_task(f"run {self.run_id}", total=total)

            def show() -> int:
                started = len(self.started()["measure"])
                bar.update(task, completed=started)
                return started

            for number, kill in enumerate(self.kills, 1):
                bar.update(task, description=f"run {self.run_id}, kill {number}")
                # Each process does something new before it dies.
                await self.run_child(show, until=max(kill.target, show() + 1))
                await self.inspect(kill)
                if not kill.landed:
                    break
            bar.update(task, description=f"run {self.run_id}, to its end")
            await self.run_child(show)
            show()

    async def run_child(self, show: Callable[[], int], until: int | None = None) -> None:
        """Run the workflow in a child process, and kill it once `until` files were started."""
        resumed = self.log.exists()
        command = [sys.executable, str(Path(__file__).with_name("stdlib_report.py")), "--quiet"]
        command += ["--db", str(self.database), "--log", str(self.log), "--files", str(self.files)]
        command += ["--resume" if resumed else "--run", self.run_id]
        process = await trio.lowlevel.open_process(command)
        try:
            while process.poll() is None:
                if show() >= (until or sys.maxsize):
                    # So that the kill hits any point of a step, not only its start.
                    await trio.sleep(self.random.uniform(0, 0.02))
                    break
                await trio.sleep(0.01)
            else:
                if process.returncode:
                    sys.exit(
                        f"The child process failed with exit code {process.returncode}; see above."
                    )
        finally:
            process.kill()  # SIGKILL: no handler runs, nothing is flushed
            with trio.CancelScope(shield=True):
                await process.wait()

    async def inspect(self, kill: Kill) -> None:
        """Read from the database how far the run was at a kill."""
        async with open_store(f"sqlite:///{self.database}") as store:
            info = await store.get_run(self.run_id)
            snapshot = await store.load_snapshot(self.run_id)
        kill.measured = snapshot.state.get("measured", 0)
        kill.landed = info.status is RunStatus.RUNNING and snapshot.seq > 1

    def started(self) -> dict[str, Counter[str]]:
        """Count how often each step was started, by the step's name and its idempotency key."""
        started: dict[str, Counter[str]] = {
            "list_files": Counter(),
            "measure": Counter(),
            "report": Counter(),
        }
        if self.log.exists():
            for line in self.log.read_text().splitlines():
                name, key, _ = line.split(" ", 2)
                started[name][key] += 1
        return started

    def print_outcome(self, expected: Report, found: Report) -> bool:
        """Print the report and the outcome. Return true if the demonstration succeeded."""
        keys = [key for counter in self.started().values() for key in counter.elements()]
        redone = len(keys) - len(set(keys))
        landed = [kill for kill in self.kills if kill.landed]
        enough = len(landed) >= min(KILLS_NEEDED, len(self.kills))
        same = expected == found

        print_report(found)
        print()
        steps = found.files + 2
        print(f"Run {self.run_id} read {found.files} files in {steps} steps (seed {self.seed}).")
        places = ", ".join(str(kill.measured) for kill in landed)
        print(
            f"It was killed with SIGKILL {len(landed)} times and resumed by its run id each time."
        )
        print(f"Measured files stored in the database at each kill: {places}.")
        print(f"Steps redone, because a kill came between their start and their commit: {redone}.")
        print(f"Identical to the report of an undisturbed run: {'yes' if same else 'NO'}.")
        if not enough or not redone:
            print("This proves nothing: too few kills came between the first and the last commit,")
            print("or none of them hit a step. Try again with more --files.")
        return same and enough and redone > 0
