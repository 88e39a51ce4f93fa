"""A process that drives one run of the mixed workflow and is to be killed: `child.py DATABASE LOG DURABILITY RUN_ID TTL`.

Each attempt is a line of the log, written at once with O_APPEND: `pid key attempt`.
"""

from __future__ import annotations

import os
import sys

import trio

from blazen_trio import RunNotFoundError, WorkflowError, open_store
from tests.mixed import INPUT, Log, mixed_workflow


class FileLog(Log):
    """Notes attempts in a file that outlives the process."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def note(self, ctx: object) -> None:
        super().note(ctx)  # type: ignore[arg-type]
        key, attempt = self.attempts[-1]
        os.write(self._file, f"{os.getpid()} {key} {attempt}\n".encode())


async def main(url: str, log: str, durability: str, run_id: str, ttl: str) -> None:
    """Go on with the run, or begin it; print its result or the error's class."""
    workflow = mixed_workflow(FileLog(log), slowness=0.004, durability=durability)
    try:
        async with open_store(url, lease_ttl=float(ttl)) as store:
            try:
                result = await workflow.resume_from(run_id, store=store)
            except RunNotFoundError:
                result = await workflow.run(INPUT, store=store, run_id=run_id)
    except WorkflowError as error:
        print(type(error).__name__, flush=True)  # noqa: T201
        sys.exit(1)
    print(result, flush=True)  # noqa: T201


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
