"""Interrupt scenarios: `python -m tests.interrupts [--first K] [--every N] [NAME ...]`."""

from __future__ import annotations

import argparse
import sys

from tests.interrupts.harness import sweep
from tests.interrupts.scenarios import SCENARIOS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.interrupts")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SCENARIOS)}; by default all")
    parser.add_argument("--first", type=int, default=1, help="the first line to interrupt")
    parser.add_argument("--every", type=int, default=1, help="the distance to the next")
    options = parser.parse_args()
    faults = 0
    for name in options.names or SCENARIOS:
        attempts = 0
        found = sweep(SCENARIOS[name], first=options.first, every=options.every)
        for attempts, attempt in enumerate(found, 1):  # noqa: B007  # reported at the end
            if attempt.fault is not None:
                faults += 1
                print(f"{name}, interrupted at {attempt.at}, {attempt.line}:\n{attempt.fault}")
        print(f"{name}: interrupted {attempts} times", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
