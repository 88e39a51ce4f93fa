"""Feed random input to everything that reads input from outside.

python -m tests.fuzz                      100,000 rounds of each target
python -m tests.fuzz --rounds 1000000 documents values
python -m tests.fuzz --seed 17 --rounds 1 documents    the one round of a failure
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
import traceback

from tests.fuzz.targets import TARGETS

SLOW = 5.0
"""The time limit of a round, in seconds; inputs are a few kilobytes."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; by default all")
    parser.add_argument("--rounds", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    failures = 0
    for name in arguments.targets or TARGETS:
        began, worst = time.perf_counter(), 0.0
        for seed in range(arguments.seed, arguments.seed + arguments.rounds):
            at = time.perf_counter()
            try:
                TARGETS[name](random.Random(seed))  # to be repeated, not to be secret
            except Exception:  # every one is a finding
                failures += 1
                print(f"{name}: seed {seed}")
                traceback.print_exc(limit=-6, file=sys.stdout)
                if failures >= 10:
                    return 1
            worst = max(worst, time.perf_counter() - at)
        took = time.perf_counter() - began
        print(f"{name}: {arguments.rounds:,} rounds in {took:.0f} s, the slowest {worst:.2f} s")
        failures += worst > SLOW
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
