# mypy: ignore-errors
# ruff: noqa: ANN001, ANN201, D102, D103  # a program for another environment
"""The workloads on Apache Burr, with its persisters, which store the whole state at each step."""

import asyncio
import uuid
from urllib.parse import urlsplit

from burr.core import ApplicationBuilder, State, action, expr
from burr.core.parallelism import MapStates
from burr.core.persistence import SQLitePersister
from burr.integrations.persisters.b_aiosqlite import AsyncSQLitePersister
from burr.integrations.persisters.b_asyncpg import AsyncPostgreSQLPersister
from burr.integrations.persisters.b_psycopg2 import PostgreSQLPersister

from benchmarks.peers.program import Size, Timer, expect, main

PARTITION = "benchmark"


@action(reads=["n"], writes=["n"])
def tick(state: State) -> State:
    return state.update(n=state["n"] + 1)


@action(reads=["n"], writes=["n"])
async def tick_async(state: State) -> State:
    return state.update(n=state["n"] + 1)


@action(reads=["n"], writes=["found"])
def end(state: State) -> State:
    return state.update(found=state["n"])


def building(last: int, do) -> ApplicationBuilder:
    # The end is a step, too, so there are `last` steps in total.
    return (
        ApplicationBuilder()
        .with_actions(tick=do, end=end)
        .with_transitions(("tick", "end", expr(f"n == {last - 1}")), ("tick", "tick"))
        .with_state(n=0)
        .with_entrypoint("tick")
        .with_identifiers(app_id=str(uuid.uuid4()), partition_key=PARTITION)
    )


def chain(size: Size) -> float:
    application = building(size.steps, tick).build()
    with Timer() as timer:
        *_, state = application.run(halt_after=["end"])
    expect(state["found"], size.steps - 1)
    return timer.seconds


async def run_all(size: Size, persister=None) -> float:
    async def one() -> int:
        builder = building(size.steps, tick_async)
        if persister is not None:
            builder = builder.with_state_persister(persister)
        *_, state = await (await builder.abuild()).arun(halt_after=["end"])
        return state["found"]

    with Timer() as timer:
        found = await asyncio.gather(*(one() for _ in range(size.runs)))
    expect(found, [size.steps - 1] * size.runs)
    return timer.seconds


def many(size: Size) -> float:
    return asyncio.run(run_all(size))


def server_of(size: Size) -> dict:
    url = urlsplit(size.plain_url)
    return {
        "db_name": url.path.lstrip("/"),
        "user": url.username,
        "password": url.password or "",
        "host": url.hostname,
        "port": url.port or 5432,
    }


def durable_chain(size: Size) -> float:
    if size.kind == "sqlite":
        persister = SQLitePersister.from_values(db_path=size.file)
    else:
        persister = PostgreSQLPersister.from_values(**server_of(size))
    persister.initialize()
    application = building(size.steps, tick).with_state_persister(persister).build()
    with Timer() as timer:
        *_, state = application.run(halt_after=["end"])
    expect(state["found"], size.steps - 1)
    expect(persister.load(PARTITION, application.uid)["state"]["found"], size.steps - 1)
    persister.connection.close()
    return timer.seconds


async def durable_many(size: Size) -> float:
    if size.kind == "sqlite":
        made = AsyncSQLitePersister.from_values(db_path=size.file)
    else:
        # The class keeps its pool for ever, even if it belongs to a former event loop.
        AsyncPostgreSQLPersister._pool = None  # noqa: SLF001
        made = AsyncPostgreSQLPersister.from_values(**server_of(size), use_pool=True)
    async with made as persister:
        await persister.initialize()
        return await run_all(size, persister)


@action(reads=["n"], writes=["done"])
async def work(state: State) -> State:
    return state.update(done=state["n"])


class Fan(MapStates):
    """An action that runs an application for each of its parts."""

    def action(self, state, inputs):
        return work

    def is_async(self) -> bool:
        return True

    async def states(self, state, context, inputs):  # noqa: ASYNC900  # Burr's interface
        for n in range(state["width"]):
            yield state.update(n=n)

    async def reduce(self, state, states):
        return state.update(found=[one["done"] async for one in states])

    @property
    def writes(self) -> list[str]:
        return ["found"]

    @property
    def reads(self) -> list[str]:
        return ["width"]


async def fan(size: Size) -> float:
    builder = (
        ApplicationBuilder()
        .with_actions(fan=Fan())
        .with_state(width=size.steps)
        .with_entrypoint("fan")
    )
    application = await builder.abuild()
    with Timer() as timer:
        *_, state = await application.arun(halt_after=["fan"])
    expect(sorted(state["found"]), list(range(size.steps)))
    return timer.seconds


if __name__ == "__main__":
    main(
        {
            "chain": chain,
            "many": many,
            "fan": lambda size: asyncio.run(fan(size)),
            "durable-chain": durable_chain,
            "durable-many": lambda size: asyncio.run(durable_many(size)),
        }
    )
