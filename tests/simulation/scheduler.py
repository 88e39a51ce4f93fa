"""One Trio run whose every decision follows from a seed: the order of tasks, the clock, UTC, randomness.

Trio has a scheduler that can be seeded, for Hypothesis; it is private. This module is the only one that touches it, and refuses a
Trio in which it is not as it was when this was written.
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
"""UTC at which each simulation begins."""


class SimulatedUtc(WallClock):
    """UTC that is Trio's clock, and does not look at the system's."""

    def now(self) -> float:
        return EPOCH + trio.current_time()


def run_seeded(
    main: Callable[[], Awaitable[Any]], seed: int | str, *, instruments: Any = ()
) -> Any:
    """`trio.run(main)`: the same each time for the same seed, in this process or another."""

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
    # Whether a `Run` is held by somebody must not hang on when cycles are collected.
    gc.disable()
    try:
        _run._ALLOW_DETERMINISTIC_SCHEDULING = True
        _run._r.seed(f"scheduler {seed}")
        random.seed(f"engine {seed}")
        step_tasks.perf_counter = (
            trio.current_time
        )  # how long a step really took is nobody's business here
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
