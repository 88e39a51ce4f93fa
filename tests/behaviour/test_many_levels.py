"""Thousands of levels of nested fan-outs."""

from __future__ import annotations

import attrs
import pytest

from blazen_trio import (
    Event,
    MemoryStore,
    RunStalledError,
    StartEvent,
    StepFailedEvent,
    StopEvent,
    Workflow,
    step,
)

LEVELS = 3000


@attrs.frozen
class Down(Event):
    left: int


@attrs.frozen
class Lost(Event):
    n: int


@step
async def begin(ev: StartEvent) -> list[Down]:
    return [Down(LEVELS)]


@step
async def grow(ev: Down) -> list[Down] | None:
    return [Down(ev.left - 1)] if ev.left else None


@step
async def failed(ev: StepFailedEvent) -> Lost:
    return Lost(1)


@step
async def others(ev: StartEvent) -> list[Lost]:
    return []


@step
async def losses(evs: list[Lost]) -> StopEvent | None:
    return None


@pytest.mark.parametrize("stored", [True, False])
async def test_joins_at_many_levels_fire_in_one_transition(stored: bool) -> None:
    # Each level has a join for failures that fires only if something came, and nothing does: when
    # the innermost step is done, all levels are.
    flow = Workflow("w", [begin, grow, failed, others, losses], timeout=None)
    with pytest.raises(RunStalledError):
        await flow.run(store=MemoryStore() if stored else None)
