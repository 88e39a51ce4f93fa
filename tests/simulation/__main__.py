"""Run simulations: `python -m tests.simulation [--seeds N] [--from K] [--sql] [--every-point]`."""

from __future__ import annotations

import argparse
import logging
import sys
import time
import traceback
from typing import TYPE_CHECKING

import attrs

from tests.simulation.backends import InSqlite
from tests.simulation.world import CALM, Plan, World, simulate

if TYPE_CHECKING:
    from collections.abc import Iterator


def tries(options: argparse.Namespace) -> Iterator[tuple[int | str, Plan]]:
    """Yield the simulations to run."""
    if options.every_point:
        for point in range(1, simulate("crash", CALM).points):
            yield "crash", attrs.evolve(CALM, deaths=1, dies_at=point)
    else:
        for seed in range(options.first, options.first + options.seeds):
            yield seed, Plan()


def run(seed: int | str, plan: Plan, *, sql: bool) -> World:
    """Run one simulation."""
    if not sql:
        return simulate(seed, plan)
    with InSqlite.simulated() as backend:
        return simulate(seed, plan, backend)


def main() -> None:
    """Run the simulations and report failures. Exit with 1 if any failed."""
    parser = argparse.ArgumentParser(prog="tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument(
        "--from", type=int, default=0, dest="first", help="the first of them (default: 0)"
    )
    parser.add_argument("--sql", action="store_true", help="in SQLite instead of memory")
    parser.add_argument(
        "--every-point",
        action="store_true",
        help="instead: one death, at each scheduling point of one seed",
    )
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    began, done, failed, deaths, checks = time.monotonic(), 0, 0, 0, 0
    for seed, plan in tries(options):
        done += 1
        try:
            world = run(seed, plan, sql=options.sql)
        except Exception:  # report it, and try the next
            failed += 1
            traceback.print_exc()
        else:
            deaths += world.deaths
            checks += world.invariants.checks
        if done % 50 == 0:
            print(f"{done} simulations, {failed} failed", flush=True)
    seconds = time.monotonic() - began
    print(
        f"{done} simulations in {seconds:.0f} s: {deaths} deaths, {checks} runs checked,"
        f" {failed} failed"
    )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
