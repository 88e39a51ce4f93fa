"""What tests of workflows and of stores need: a step tried alone, time that jumps, a store that fails on demand, a proof that a
store is right.
"""

from __future__ import annotations

from blazen_trio.testing.check import check_store
from blazen_trio.testing.clock import run_without_waiting
from blazen_trio.testing.faults import FaultyStore
from blazen_trio.testing.steps import StepTrial, try_step

__all__ = ["FaultyStore", "StepTrial", "check_store", "run_without_waiting", "try_step"]
