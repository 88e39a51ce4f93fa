"""One Trio run in which a seed determines task order, clock, UTC and randomness.

Trio has a scheduler that can be seeded, for Hypothesis, but it is private. Only this module touches
it, and skips the tests under a version of Trio in which the scheduler is not as it is known here.
"""

from __future__ import annotations

import gc
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from trio._core import _run

from blazen_trio._clock import WallClock, set_wall_clock
from blazen_trio._dispatch import step_tasks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

EPOCH = 1_800_000_000.0
"""UTC at which each simulation starts."""


class SimulatedUtc(WallClock):
    """UTC taken from Trio's clock instead of the system's."""

    def now(self) -> float:
        return EPOCH + trio.current_time()


def run_seeded(
    main: Callable[[], Awaitable[Any]], seed: int | str, *, instruments: Any = ()
) -> Any:
    """Run `main` with Trio: the same seed gives the same run, in this process or another."""

    async def in_simulated_time() -> Any:
        set_wall_clock(SimulatedUtc())
        return await main()

    with _deterministic(seed):
        return trio.run(
            in_simulated_time,
            clock=trio.testing.MockClock(autojump_threshold=0),
            instruments=list(instruments),
        )


@contextmanager
def _deterministic(seed: int | str) -> Iterator[None]:
    _check_trio()
    scheduler_state, random_state, measured = (
        _run._r.getstate(),
        random.getstate(),
        step_tasks.perf_counter,
    )
    was_deterministic, collected = _run._ALLOW_DETERMINISTIC_SCHEDULING, gc.isenabled()
    # Whether a `Run` is still referenced must not depend on when cycles are collected.
    gc.disable()
    try:
        _run._ALLOW_DETERMINISTIC_SCHEDULING = True
        _run._r.seed(f"scheduler {seed}")
        random.seed(f"engine {seed}")
        step_tasks.perf_counter = trio.current_time  # real durations must not matter
        yield
    finally:
        _run._ALLOW_DETERMINISTIC_SCHEDULING = was_deterministic
        _run._r.setstate(scheduler_state)
        random.setstate(random_state)
        step_tasks.perf_counter = measured
        if collected:
            gc.enable()


def _check_trio() -> None:
    known = isinstance(getattr(_run, "_r", None), random.Random) and hasattr(
        _run, "_ALLOW_DETERMINISTIC_SCHEDULING"
    )
    if not known:
        pytest.skip(f"trio {trio.__version__} has its seeded scheduler elsewhere: see {__name__}")
