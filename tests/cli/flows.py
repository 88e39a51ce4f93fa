"""Workflows for worker processes. Their input is a folder, in which they log what they do."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import attrs
import trio

from blazen_trio import Context, Event, StartEvent, StopEvent, Workflow, step


@attrs.frozen
class Passed(Event):
    folder: str


def note(folder: str, what: str) -> None:
    """Write a line to the log: the kind, and the process."""
    with Path(folder, "log").open("a") as log:
        log.write(f"{what} {os.getpid()}\n")


def noted(folder: Path) -> list[list[str]]:
    """Return the lines of the log so far: the kind, and the process's id."""
    log = folder / "log"
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


@step
async def gate(ev: StartEvent, ctx: Context) -> Passed:
    """End once there is a file `open`."""
    note(ev.data, "gate")
    ctx.update("passed", lambda count: count + 1, default=0)
    while not Path(ev.data, "open").exists():  # noqa: ASYNC110, ASYNC240
        await trio.sleep(0.01)
    return Passed(ev.data)


@step
async def passed(ev: Passed, ctx: Context) -> StopEvent:
    note(ev.folder, "passed")
    return StopEvent(ctx.get("passed"))


@step
async def sleep(ev: StartEvent) -> StopEvent:
    await trio.sleep(0.1)
    return StopEvent(os.getpid())


@step
async def die(ev: StartEvent) -> StopEvent:
    note(ev.data, "die")
    os.kill(os.getpid(), signal.SIGKILL)
    return StopEvent()


gated = Workflow("gated", [gate, passed], timeout=None)
short = Workflow("short", [sleep])
poison = Workflow("poison", [die])
ALL = [gated, short, poison]
MIXED: Any = (gated, gate)


class Shop:
    gated = gated
    other = Workflow("gated", [sleep])
