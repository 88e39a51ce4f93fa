"""The costs of a durable step, counted in statements, transactions and bytes, and never timed."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from blazen_trio import Context, Event, StartEvent, StopEvent, Workflow, open_store, step
from tests.databases import KINDS, WRITER_ARGUMENTS, an_engine, fresh_database, trace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def still(mock_clock: Any) -> None:
    """Stop Trio's clock, so that the store neither polls its inbox nor renews an idle lease."""


@attrs.frozen
class Tick(Event):
    n: int


@attrs.frozen
class Member(Event):
    n: int


@attrs.frozen
class Done(Event):
    n: int


@step
async def begin(ev: StartEvent) -> Tick:
    return Tick(ev.data)


@step
async def tick(ev: Tick, ctx: Context) -> Tick | StopEvent:
    ctx.set("n", ev.n)
    return Tick(ev.n - 1) if ev.n else StopEvent("end")


CHAIN = Workflow("chain", [begin, tick], timeout=None)


@step
async def spread(ev: StartEvent) -> list[Member]:
    return [Member(n) for n in range(ev.data)]


@step
async def work(ev: Member) -> Done:
    await trio.lowlevel.checkpoint()
    return Done(ev.n)


@step
async def gather(done: list[Done]) -> StopEvent:
    return StopEvent(len(done))


FAN = Workflow("fan", [spread, work, gather], timeout=None)


class Counted:
    """A store and the statements that its database has executed, each a round trip to a server.

    They are named by their first word and their table.
    """

    def __init__(self, store: Any, told: Callable[..., list[str]]) -> None:
        self.store = store
        self._told = told

    async def cost(self, run: Any, *, reads: bool = False) -> Counter[str]:
        """Return the statements of a run, its start and end included.

        Without `reads`, statements that only read are left out.
        """
        self._told()
        await run
        return Counter(
            _kind(statement) for statement in self._told("" if reads else "blazen_lease")
        )


def _kind(statement: str) -> str:
    words = [
        word
        for word in statement.replace("(", " ").split()
        if word.upper() not in ("INTO", "FROM", "OR")
    ]
    return " ".join(words[: 1 if words[0] in ("BEGIN", "COMMIT", "SELECT") else 2])


@asynccontextmanager
async def counted(folder: Path, kind: str = "sqlite") -> AsyncIterator[Counted]:
    with (
        fresh_database(kind, folder) as url,
        an_engine(url, **WRITER_ARGUMENTS[kind]) as engine,
        trace(engine, folder) as told,
    ):
        async with open_store(engine, migrate=True) as store:
            await CHAIN.run(1, store=store)  # which creates the lease
            yield Counted(store, told)


_PER_STEP = {
    "sqlite": {"INSERT blazen_journal": 1},  # a transaction by itself, which checks the lease
    "postgresql": {"WITH fence": 1},  # one statement for everything
    "mariadb": {"BEGIN": 1},  # one packet for all statements
}


@pytest.mark.parametrize("kind", KINDS)
async def test_the_cost_of_a_durable_step_does_not_depend_on_the_run(
    kind: str, tmp_path: Path
) -> None:
    async with counted(tmp_path, kind) as db:
        short = await db.cost(CHAIN.run(10, store=db.store))
        long = await db.cost(CHAIN.run(110, store=db.store))
        per_step = {
            what: (long[what] - short[what]) / 100 for what in long if long[what] != short[what]
        }
        # The lease is renewed and checked, and the entry is written. Nothing else is.
        assert per_step == _PER_STEP[kind]
        # The run itself costs one transaction, its creation. Its end is part of the last step's.
        told = {
            "sqlite": "BEGIN",
            "postgresql": "UPDATE blazen_lease",
            "mariadb": "UPDATE blazen_lease",
        }[kind]
        assert short[told] == 2
        assert sum(short.values()) - 10 * sum(per_step.values()) < 25


@pytest.mark.parametrize("durability", ["async", "exit"])
async def test_less_durable_runs_cost_fewer_transactions(durability: str, tmp_path: Path) -> None:
    async with counted(tmp_path) as db:
        cost = await db.cost(CHAIN.run(500, store=db.store, durability=durability))
        assert cost["COMMIT"] < {"async": 250, "exit": 6}[durability]
        # The store's own statistics agree.
        statistics = db.store.statistics()
        assert statistics.batches <= statistics.commits


async def test_concurrent_steps_and_runs_share_transactions(tmp_path: Path) -> None:
    async with counted(tmp_path) as db:
        fan = await db.cost(FAN.run(300, store=db.store))
        assert fan["INSERT blazen_journal"] == 303  # the start, the fan-out, its members, the end
        assert fan["COMMIT"] < 150

        async def many() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(lambda: CHAIN.run(10, store=db.store))

        runs = await db.cost(many())
        assert runs["INSERT blazen_run"] == 50
        assert runs["COMMIT"] < 50 * 12 / 4


async def test_bytes_per_step_on_disk_do_not_grow_with_the_run(tmp_path: Path) -> None:
    async with counted(tmp_path) as db:
        per_step = []
        for steps in (50, 350):
            before = db.store.statistics().bytes
            await CHAIN.run(steps, store=db.store)
            per_step.append((db.store.statistics().bytes - before) / steps)
        assert per_step[1] <= per_step[0]
        assert per_step[1] < 200


async def test_the_cost_of_resuming_does_not_depend_on_the_steps_done(
    tmp_path: Path, mock_clock: Any
) -> None:
    async with counted(tmp_path) as db:
        statements = []
        for steps in (20, 320):
            run_id = str(steps)
            with trio.CancelScope() as scope:
                async with CHAIN.run(steps, store=db.store, run_id=run_id) as run:
                    while (await run.snapshot()).seq < steps:
                        pass
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
            cost = await db.cost(
                CHAIN.resume_from(run_id, store=db.store, durability="exit"), reads=True
            )
            statements.append(sum(cost.values()))
        assert abs(statements[1] - statements[0]) <= 4
