"""Tools for tests of workflows and stores.

They run a step alone, let time jump, make a store fail on demand, and check that a store keeps its
promises.
"""

from __future__ import annotations

from blazen_trio.testing.check import check_store
from blazen_trio.testing.clock import run_without_waiting
from blazen_trio.testing.faults import FaultyStore
from blazen_trio.testing.steps import StepTrial, try_step

__all__ = ["FaultyStore", "StepTrial", "check_store", "run_without_waiting", "try_step"]
