"""Kills a run of the example with SIGKILL again and again, goes on by its run id, and tells what that changed.

A run in this process, with no store and nothing killed, says what the report has to be. Then the same workflow runs
in a child process on a SQLite file. When it has got as far as a random place in its work, it is killed; a new
process resumes it by its id, up to the next kill. The last one is left to finish.
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
"""Kills that land between the first and the last commit; fewer prove nothing (unless fewer were asked for)."""


@attrs.define
class Kill:
    """One child process that was started to be killed.

    Attributes:
        target: So many files are begun, by all processes together, before the kill.
        measured: So many that were on disk after it.
        landed: Whether it came between the run's first and last commit.
    """

    target: int
    measured: int = 0
    landed: bool = False


class Demo:
    """The demonstration.

    Args:
        database: The SQLite file.
        log: The side log, which every step appends a line to when it begins.
        files: How many files to take at most.
        kills: How often to kill.
        seed: For the moments of the kills; `None`: different ones each time.
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
        """Run it all and print what was seen; whether the report came out the same, with some steps redone."""
        async with stdlib_report.run(survey(self.files)) as run:
            expected = await follow(run, "undisturbed, in memory")
        self.choose_targets(expected.files)
        await self.run_and_kill(expected.files)
        async with open_store(f"sqlite:///{self.database}") as store:
            found = await stdlib_report.resume_from(
                self.run_id, store=store
            )  # completed: gives the recorded result
        return self.tell(expected, found)

    def choose_targets(self, total: int) -> None:
        """Spread the kills over the work: one at a random place of each stretch, none at its very ends."""
        for i, kill in enumerate(self.kills):
            place = (i + self.random.uniform(0.1, 0.9)) / len(self.kills)
            kill.target = max(1, int(0.03 * total + 0.9 * total * place))

    async def run_and_kill(self, total: int) -> None:
        """Start the run, kill and resume it as planned, then let it finish; with a bar over all of that."""
        print(
            f"Run {self.run_id} is kept in {self.database}. If you kill this program itself, resume the run with\n"
            f"    {sys.executable} {sys.argv[0]} --db {self.database} --resume {self.run_id}",
            flush=True,
        )
        with progress_bar() as bar:
            task: TaskID = bar.add_task(f"run {self.run_id}", total=total)

            def show() -> int:
                begun = len(self.begun()["measure"])
                bar.update(task, completed=begun)
                return begun

            for number, kill in enumerate(self.kills, 1):
                bar.update(task, description=f"run {self.run_id}, kill {number}")
                begun = show()
                await self.child(
                    show, until=max(kill.target, begun + 1)
                )  # each process does something new before it dies
                await self.look(kill)
                if not kill.landed:
                    break
            bar.update(task, description=f"run {self.run_id}, to its end")
            await self.child(show)
            show()

    async def child(self, show: Callable[[], int], until: int | None = None) -> None:
        """Run the workflow in a process of its own; kill that when so many files have been begun."""
        started = self.log.exists()
        command = [sys.executable, str(Path(__file__).with_name("stdlib_report.py")), "--quiet"]
        command += ["--db", str(self.database), "--log", str(self.log), "--files", str(self.files)]
        command += ["--resume" if started else "--run", self.run_id]
        process = await trio.lowlevel.open_process(command)
        try:
            while process.poll() is None:
                if show() >= (until or sys.maxsize):
                    await trio.sleep(
                        self.random.uniform(0, 0.02)
                    )  # anywhere within a step, not only at its start
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

    async def look(self, kill: Kill) -> None:
        """See what the database holds after a kill."""
        async with open_store(f"sqlite:///{self.database}") as store:
            info = await store.get_run(self.run_id)
            snapshot = await store.load_snapshot(self.run_id)
        kill.measured = snapshot.state.get("measured", 0)
        kill.landed = info.status is RunStatus.RUNNING and snapshot.seq > 1

    def begun(self) -> dict[str, Counter[str]]:
        """How often each step was begun, by the step's name and its idempotency key."""
        begun: dict[str, Counter[str]] = {
            "list_files": Counter(),
            "measure": Counter(),
            "report": Counter(),
        }
        if self.log.exists():
            for line in self.log.read_text().splitlines():
                name, key, _ = line.split(" ", 2)
                begun[name][key] += 1
        return begun

    def tell(self, expected: Report, found: Report) -> bool:
        """Print the report and what happened."""
        begun = self.begun()
        keys = [key for counter in begun.values() for key in counter.elements()]
        redone = len(keys) - len(set(keys))
        landed = [kill for kill in self.kills if kill.landed]
        enough = len(landed) >= min(KILLS_NEEDED, len(self.kills))
        same = expected == found

        print_report(found)
        print()
        print(
            f"Run {self.run_id} read {found.files} files, with {found.files + 2} steps to do (seed {self.seed})."
        )
        places = ", ".join(str(kill.measured) for kill in landed)
        print(
            f"It was killed with SIGKILL {len(landed)} times, when {places} files were on disk as measured,"
        )
        print("and resumed by its run id each time.")
        print(f"Steps redone, because a kill came between their start and their commit: {redone}.")
        print(f"Identical to the report of an undisturbed run: {'yes' if same else 'NO'}.")
        if not enough or not redone:
            print(
                "That proves nothing: too few kills came between the first and the last commit, or none hit a step."
            )
            print("Try again with more --files.")
        return same and enough and redone > 0
