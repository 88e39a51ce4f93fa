"""The benchmarks do what they say they measure: each workload checks its own result, and here does little of it."""

from __future__ import annotations

from functools import partial

import pytest

from benchmarks import limits, workloads
from benchmarks.harness import Case, Spread, measure, once

SMALL = [
    workloads.chain(5),
    workloads.chain(5, checkpoint=True),
    workloads.fan(5),
    workloads.fan(5, checkpoint=True),
    workloads.many(3, 4),
    workloads.many(3, 4, checkpoint=True),
    partial(workloads.durable_chain, steps=5),
    partial(workloads.durable_many, runs=3, steps=4),
    partial(workloads.durable_beside_busy, steps=5),
    limits.chain(5),
    limits.chain(5, checkpoint=True),
    limits.fan(5),
    limits.fan(5, checkpoint=True),
    limits.many(3, 4),
    partial(limits.sql_one_by_one, steps=5),
    partial(limits.sql_by_hundreds, steps=200),
    partial(limits.sql_beside_busy, steps=5),
]


@pytest.mark.parametrize("workload", SMALL, ids=lambda workload: f"{workload.func.__name__}-{workload.keywords}")
def test_each_workload_does_its_work(workload, tmp_path):
    assert once(workload, tmp_path) > 0
    assert list(tmp_path.iterdir()) == []


def test_both_sides_are_measured_in_turns(tmp_path):
    order = []

    async def ours(stopwatch):
        with stopwatch:
            order.append("ours")

    async def limit(stopwatch):
        with stopwatch:
            order.append("limit")

    found = measure(Case("x", 10, ours, limit, "nothing"), 2, tmp_path)

    assert order == ["ours", "limit"] * 3  # the first pair warms up
    assert len(found.ours) == len(found.limit) == len(found.ratios) == 2


def test_a_workload_that_leaves_something_out_is_an_error():
    with pytest.raises(AssertionError, match="is not the work"):
        limits.expect([1, 2], [1, 2, 3])


def test_a_spread_is_median_least_and_greatest():
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
