# mypy: ignore-errors
# ruff: noqa: ANN001, ANN201, D101, D103
# It runs in another environment, whose libraries read its annotations at run time.
"""The workloads on LangGraph.

The durable ones use its own savers and `durability="sync"`, which stores each step before the next.
"""

import asyncio
import operator
import uuid
from contextlib import asynccontextmanager
from typing import Annotated, TypedDict

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from benchmarks.peers.program import Size, Timer, expect, main


class Count(TypedDict):
    n: int
    last: int


class Members(TypedDict):
    width: int
    done: Annotated[list[int], operator.add]


async def tick(state: Count) -> dict:
    return {"n": state["n"] + 1}


def following(state: Count) -> str:
    return END if state["n"] == state["last"] else "tick"


def chain_graph(saver=None):
    graph = StateGraph(Count)
    graph.add_node("tick", tick)
    graph.add_edge(START, "tick")
    graph.add_conditional_edges("tick", following)
    return graph.compile(checkpointer=saver)


async def work(item: dict) -> dict:
    return {"done": [item["n"]]}


def spread(state: Members) -> list[Send]:
    return [Send("work", {"n": n}) for n in range(state["width"])]


async def fan(size: Size) -> float:
    graph = StateGraph(Members)
    graph.add_node("work", work)
    graph.add_conditional_edges(START, spread, ["work"])
    graph.add_edge("work", END)
    compiled = graph.compile()
    with Timer() as timer:
        found = await compiled.ainvoke({"width": size.steps, "done": []})
    expect(sorted(found["done"]), list(range(size.steps)))
    return timer.seconds


async def chain(size: Size) -> float:
    compiled = chain_graph()

    async def one() -> int:
        config = {"recursion_limit": size.steps + 10}
        return (await compiled.ainvoke({"n": 0, "last": size.steps}, config))["n"]

    with Timer() as timer:
        found = await asyncio.gather(*(one() for _ in range(size.runs)))
    expect(found, [size.steps] * size.runs)
    return timer.seconds


@asynccontextmanager
async def saver_of(size: Size):
    if size.kind == "sqlite":
        made = AsyncSqliteSaver.from_conn_string(size.file)
    else:
        made = AsyncPostgresSaver.from_conn_string(size.plain_url)
    async with made as saver:
        await saver.setup()
        yield saver


async def durable(size: Size) -> float:
    async with saver_of(size) as saver:
        compiled = chain_graph(saver)

        async def one() -> int:
            config = {
                "recursion_limit": size.steps + 10,
                "configurable": {"thread_id": str(uuid.uuid4())},
            }
            return (
                await compiled.ainvoke({"n": 0, "last": size.steps}, config, durability="sync")
            )["n"]

        with Timer() as timer:
            found = await asyncio.gather(*(one() for _ in range(size.runs)))
    expect(found, [size.steps] * size.runs)
    return timer.seconds


if __name__ == "__main__":
    workloads = {
        "chain": chain,
        "many": chain,
        "fan": fan,
        "durable-chain": durable,
        "durable-many": durable,
    }
    main({name: lambda size, do=do: asyncio.run(do(size)) for name, do in workloads.items()})
