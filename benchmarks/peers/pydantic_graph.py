# mypy: ignore-errors
# ruff: noqa: ANN201, D101, D102, D103
# It runs in another environment, whose libraries read its annotations at run time.
"""The workloads on pydantic-graph."""

import asyncio
from dataclasses import dataclass

from pydantic_graph import (
    BaseNode,
    End,
    GraphBuilder,
    GraphRunContext,
    StepContext,
    reduce_list_append,
)

from benchmarks.peers.program import Size, Timer, UnsupportedError, expect, main


@dataclass
class Tick(BaseNode[None, None, int]):
    n: int
    last: int

    async def run(self, _ctx: GraphRunContext) -> "Tick | End[int]":
        return End(self.n) if self.n == self.last else Tick(self.n + 1, self.last)


def chain_graph():
    builder = GraphBuilder(input_type=int, output_type=int)

    @builder.step
    async def begin(ctx: StepContext[None, None, int]) -> Tick:
        return Tick(2, ctx.inputs)

    builder.add(builder.node(Tick), builder.edge_from(builder.start_node).to(begin))
    return builder.build()


def fan_graph():
    builder = GraphBuilder(input_type=int, output_type=list[int])

    @builder.step
    async def spread(ctx: StepContext[None, None, int]) -> list[int]:
        return list(range(ctx.inputs))

    @builder.step
    async def work(ctx: StepContext[None, None, int]) -> int:
        return ctx.inputs

    gather = builder.join(reduce_list_append, initial_factory=list[int])
    builder.add(
        builder.edge_from(builder.start_node).to(spread),
        builder.edge_from(spread).map().to(work),
        builder.edge_from(work).to(gather),
        builder.edge_from(gather).to(builder.end_node),
    )
    return builder.build()


async def chain(size: Size) -> float:
    graph = chain_graph()
    with Timer() as timer:
        found = await asyncio.gather(*(graph.run(inputs=size.steps) for _ in range(size.runs)))
    expect(found, [size.steps] * size.runs)
    return timer.seconds


async def fan(size: Size) -> float:
    graph = fan_graph()
    with Timer() as timer:
        found = await graph.run(inputs=size.steps)
    expect(sorted(found), list(range(size.steps)))
    return timer.seconds


def durable(_size: Size) -> float:
    raise UnsupportedError("it has no durable store")


if __name__ == "__main__":
    in_memory = {"chain": chain, "many": chain, "fan": fan}
    main(
        {
            **{name: lambda size, do=do: asyncio.run(do(size)) for name, do in in_memory.items()},
            "durable-chain": durable,
            "durable-many": durable,
        }
    )
