"""A process that drives one run and is to be killed.

It logs what it does. Each line is written immediately with O_APPEND, so it outlives the process:
`pid key attempt` for each attempt of the mixed workflow, `pid tick n` for each tick of the chain,
`pid acknowledged n` when a call of the chain's run has returned, and finally `pid result ...` or
`pid error ...`.
"""

from __future__ import annotations

import os

import attrs
import trio

from blazen_trio import (
    Context,
    Event,
    RunNotFoundError,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowError,
    open_store,
    step,
)
from tests.mixed import INPUT, Log, mixed_workflow


@attrs.frozen
class Order:
    """The instructions for a child.

    Attributes:
        url: The database.
        log: The log's path.
        durability: The durability of the run.
        run_id: The run to resume, or to start if it is not stored.
        lease_ttl: The lifetime of the lease, in seconds.
        slowness: The seconds that a step of the mixed workflow sleeps.
        ticks: If not 0, the run is a chain of this many ticks instead of the mixed workflow.
        acknowledge: The chain's tick at which to call `snapshot`.
        standing: If true, that tick waits for the call to return; else the chain continues.
        hold: The chain's tick that does not end.
    """

    url: str
    log: str
    durability: str = "sync"
    run_id: str = "run"
    lease_ttl: float = 15.0
    slowness: float = 0.004
    ticks: int = 0
    acknowledge: int = -1
    standing: bool = False
    hold: int = -1


class FileLog(Log):
    """Records what happens in a file that outlives the process."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def write(self, *words: object) -> None:
        os.write(self._file, f"{os.getpid()} {' '.join(map(str, words))}\n".encode())

    def note(self, ctx: Context) -> None:
        super().note(ctx)
        self.write(*self.attempts[-1])


@attrs.frozen
class Tick(Event):
    n: int


def chain(order: Order, log: FileLog, reached: trio.Event, returned: trio.Event) -> Workflow:
    """Tick from 0; each tick adds its number to a sum."""

    @step
    async def begin(ev: StartEvent) -> Tick:
        return Tick(0)

    @step
    async def tick(ev: Tick, ctx: Context) -> Tick | StopEvent:
        log.write("tick", ev.n)
        if ev.n == order.acknowledge:
            reached.set()
            if order.standing:
                await returned.wait()
        if ev.n == order.hold:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        ctx.set("n", ev.n)
        ctx.update("sum", lambda total: total + ev.n, 0)
        return Tick(ev.n + 1) if ev.n + 1 < order.ticks else StopEvent(ctx.get("sum"))

    return Workflow("chain", [begin, tick], durability=order.durability)


async def drive_mixed(order: Order, log: FileLog) -> object:
    workflow = mixed_workflow(
        log, slowness=order.slowness, durability=order.durability, in_thread=True
    )
    async with open_store(order.url, lease_ttl=order.lease_ttl) as store:
        try:
            return await workflow.resume_from(order.run_id, store=store)
        except RunNotFoundError:
            return await workflow.run(INPUT, store=store, run_id=order.run_id)


async def drive_chain(order: Order, log: FileLog) -> object:
    reached, returned = trio.Event(), trio.Event()
    workflow = chain(order, log, reached, returned)
    async with open_store(order.url, lease_ttl=order.lease_ttl) as store:
        try:
            await store.get_run(order.run_id)
            start = workflow.resume_from(order.run_id, store=store)
        except RunNotFoundError:
            start = workflow.run(store=store, run_id=order.run_id)
        async with start as run:
            if order.acknowledge >= 0:
                await reached.wait()
                log.write("acknowledged", (await run.snapshot()).state["n"])
                returned.set()
            return await run.result()


def run(order: Order) -> None:
    """Drive the run to its end, unless killed before."""
    log = FileLog(order.log)
    try:
        log.write("result", trio.run(drive_chain if order.ticks else drive_mixed, order, log))
    except WorkflowError as error:
        log.write("error", type(error).__name__)
