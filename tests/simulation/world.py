"""Several processes over one store, in one Trio run, and what happens to them.

Engines serve the runs. A front end submits runs, sends events and answers questions.
"""

from __future__ import annotations

import hashlib
import random
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import trio

from blazen_trio import RunExistsError, Runtime, StoreError, open_runtime
from blazen_trio.errors import InputResponseError
from tests.mixed import INPUT, check_result
from tests.simulation.backends import InMemory
from tests.simulation.flows import ALL, SHORT_INPUT, SHORT_RESULT, Answer, Go, meeting_result
from tests.simulation.invariants import BrokenError, Invariants
from tests.simulation.scheduler import run_seeded
from tests.simulation.storage import Faults, Opening

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.simulation.backends import Backend

ENGINES = 3
PATIENCE = 7200.0  # simulated seconds within which the runs must end once it is calm
_FRONT = Faults(before=0.05, after=0.05, delay=0.1)


@attrs.frozen
class Plan:
    """The settings of a simulation.

    Attributes:
        runs: The number of runs of each workflow.
        stormy: The number of simulated seconds with faults and deaths.
        deaths: The maximum number of deaths.
        between: The approximate number of scheduling points between two deaths.
        faults: Whether calls of the store fail.
        dies_at: The scheduling point at which the process whose turn it is dies, and no other does.
            `None`: each death is drawn.
    """

    runs: int = 3
    stormy: float = 200.0
    deaths: int = 20
    between: int = 250
    faults: bool = True
    dies_at: int | None = None


CALM = Plan(runs=1, stormy=60.0, deaths=0, faults=False)
"""A plan without faults or deaths."""


@attrs.define(eq=False)
class _Process:
    opening: Opening
    scope: trio.CancelScope
    task: trio.lowlevel.Task


class World(trio.abc.Instrument):
    """One simulation. Its seed determines everything that happens."""

    def __init__(self, seed: int | str, plan: Plan, backend: Backend) -> None:
        self.plan = plan
        self.points = self.deaths = 0
        self.trace: list[str] = []
        self.invariants = Invariants(backend)
        self._backend = backend
        self._chance = random.Random(f"world {seed}")
        self._seed = seed
        self._openings: list[Opening] = []
        self._alive: list[_Process] = []
        self._calm = False
        self._broken: BrokenError | None = None
        self._next_death = plan.dies_at or self._draw_death()

    @property
    def fingerprint(self) -> str:
        """A digest of everything that has happened."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()[:16]

    # What happens to the processes

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count a scheduling point. A process may die there, before its next step."""
        self.points += 1
        if (
            self.points >= self._next_death
            and self._alive
            and not self._calm
            and self.deaths < self.plan.deaths
        ):
            self._next_death = self.points + self._draw_death()
            at_turn = None if self.plan.dies_at is None else self._process_of(task)
            self.kill(at_turn or self._chance.choice(self._alive))

    def _process_of(self, task: trio.lowlevel.Task | None) -> _Process | None:
        """Return the process that a task belongs to, or `None` if it is no engine's."""
        while task is not None:
            for process in self._alive:
                if process.task is task:
                    return process
            task = None if task.parent_nursery is None else task.parent_nursery.parent_task
        return None

    def kill(self, process: _Process) -> None:
        """End a process, abruptly or politely."""
        self.deaths += 1
        how = self._chance.choice(["gone", "gone", "gone, on another host", "asked to end"])
        self.trace.append(f"{self.points} {process.opening.name} {how}")
        if how != "asked to end":
            process.opening.kill(same_host=how == "gone")
        self._alive.remove(process)
        process.scope.cancel(reason="killed by the simulation")

    def _draw_death(self) -> int:
        return int(self._chance.expovariate(1 / self.plan.between)) + 1

    def _open(self, name: str, faults: Faults) -> Opening:
        chance = random.Random(f"{name} {self._seed}")
        opening = Opening(
            self._backend,
            name,
            chance,
            Faults() if self._calm else faults,
            before=self._lapse,
            observe=self._observe,
        )
        self._openings.append(opening)
        return opening

    def _lapse(self) -> None:
        for opening in self._openings:
            opening.lapse()

    def _observe(self, what: str, entitled: bool) -> None:  # of a call
        self.trace.append(f"{trio.current_time():.6f} {what}")
        try:
            if not entitled:
                raise BrokenError(
                    f"{what}: it was written by a process that does not drive the run"
                )
            self.invariants.check()
        except BrokenError as error:
            # Kept, because the caller's errors may be handled on the way.
            self._broken = self._broken or error
            raise

    # The processes

    async def run(self) -> None:
        """Run the simulation.

        Raises:
            BrokenError: An invariant did not hold.
            trio.TooSlowError: A run did not end.
        """
        try:
            async with trio.open_nursery() as nursery:
                for number in range(ENGINES):
                    nursery.start_soon(self._keep_up, number)
                nursery.start_soon(self._calm_down)
                await self._front()
                nursery.cancel_scope.cancel()
        finally:
            if self._broken is not None:
                raise self._broken
        self.invariants.check()

    async def _calm_down(self) -> None:
        await trio.sleep(self.plan.stormy)
        self._calm = True
        for opening in self._openings:
            opening.faults = Faults()

    async def _keep_up(self, number: int) -> None:
        """Supervise one engine: start it again whenever it has ended."""
        for generation in range(1_000_000):
            faults = Faults.drawn(self._chance) if self.plan.faults else Faults()
            opening = self._open(f"engine {number}.{generation}", faults)
            with trio.CancelScope() as scope:
                process = _Process(opening, scope, trio.lowlevel.current_task())
                self._alive.append(process)
                try:
                    await self._serve(opening)
                except StoreError as failure:
                    self.trace.append(f"{opening.name} ended: {failure}")
                finally:
                    if process in self._alive:
                        self._alive.remove(process)
            opening.kill(same_host=True)  # a process that has ended does nothing more
            await trio.sleep(self._chance.uniform(0.0, 8.0))

    async def _serve(self, opening: Opening) -> None:
        failure: StoreError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(opening.renew)
            try:
                async with open_runtime(
                    opening, ALL, idle_after=3.0, max_crashes=1_000_000
                ) as runtime:
                    await runtime.serve()
            except StoreError as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _front(self) -> None:
        opening = self._open("front", _FRONT if self.plan.faults else Faults())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(opening.renew)
            async with open_runtime(opening) as front, trio.open_nursery() as clients:
                for number in range(self.plan.runs):
                    clients.start_soon(self._meet, front, opening, f"meeting {number}")
                    clients.start_soon(
                        self._submit_and_wait,
                        front,
                        "mixed",
                        f"mixed {number}",
                        INPUT,
                        check_result,
                    )
                    clients.start_soon(
                        self._submit_and_wait,
                        front,
                        "short",
                        f"short {number}",
                        SHORT_INPUT,
                        _is_short,
                    )
            nursery.cancel_scope.cancel()

    # What clients do

    async def _submit_and_wait(
        self, front: Runtime, workflow: str, run_id: str, given: Any, check: Callable[[Any], None]
    ) -> None:
        await trio.sleep(self._chance.uniform(0, self.plan.stormy / 4))
        await self._submit(front, workflow, run_id, given)
        await self._wait(front, run_id, check)

    async def _submit(self, front: Runtime, workflow: str, run_id: str, given: Any) -> None:
        async def submit() -> None:
            try:
                await front.submit(workflow, given, run_id=run_id)
            except RunExistsError:
                return  # an earlier attempt was stored, but its answer was lost

        await insist(submit)

    async def _wait(self, front: Runtime, run_id: str, check: Callable[[Any], None]) -> None:
        with trio.fail_after(PATIENCE):
            check(await insist(lambda: front.result(run_id)))

    async def _meet(self, front: Runtime, opening: Opening, run_id: str) -> None:
        """Start a run of `meeting`, and give it what it waits for.

        Send the event at any time, more than once, and answer the question as soon as it is asked.
        """
        await trio.sleep(self._chance.uniform(0, self.plan.stormy / 4))
        await self._submit(front, "meeting", run_id, None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_go, front, run_id)
            nursery.start_soon(self._answer, front, opening, run_id)

        def check(result: Any) -> None:
            assert result == meeting_result(run_id), f"a wrong result of {run_id}: {result}"

        await self._wait(front, run_id, check)

    async def _send_go(self, front: Runtime, run_id: str) -> None:
        await trio.sleep(self._chance.uniform(0, self.plan.stormy / 2))
        await insist(lambda: front.send(run_id, Go(run_id), key="go"))
        for _ in range(2):
            assert not await insist(lambda: front.send(run_id, Go("twice"), key="go"))
            await trio.sleep(self._chance.uniform(0, 30))

    async def _answer(self, front: Runtime, opening: Opening, run_id: str) -> None:
        with trio.fail_after(PATIENCE):
            load = partial(opening.load_snapshot, run_id)
            while not (await insist(load)).input_requests:  # noqa: ASYNC110
                await trio.sleep(self._chance.uniform(0.5, 5.0))

        async def respond() -> None:
            try:
                await front.respond(run_id, Answer("question", "yes"))
            except InputResponseError:
                return  # an earlier attempt, whose confirmation was lost, has answered it

        await insist(respond)


async def insist(act: Callable[[], Awaitable[Any]]) -> Any:
    """Repeat an action until the store confirms it."""
    while True:
        try:
            return await act()
        except StoreError:
            await trio.sleep(1.0)


def _is_short(result: Any) -> None:
    assert result == SHORT_RESULT, f"a wrong result: {result}"


def simulate(seed: int | str, plan: Plan | None = None, backend: Backend | None = None) -> World:
    """Run one simulation, by default in memory. If it fails, add its seed to the error."""
    world = World(seed, plan or Plan(), backend or InMemory())
    try:
        run_seeded(world.run, seed, instruments=[world])
    except BaseException as error:
        error.add_note(
            f"seed {seed!r}, {world.plan}, after {world.points} scheduling points"
            f" and {world.deaths} deaths"
        )
        raise
    return world
