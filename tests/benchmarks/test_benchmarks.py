"""The benchmarks do what they say they measure: each workload checks its own result, and here does little of it."""

from __future__ import annotations

import pytest
import trio

from benchmarks import limits, workloads
from benchmarks.cases import all_cases, chosen, durable_beside_busy, durable_chain, durable_many
from benchmarks.harness import Case, Spread, Stopwatch, measure, once
from tests.databases import KINDS, fresh_database

SMALL = [
    workloads.chain(5),
    workloads.chain(5, checkpoint=True),
    workloads.fan(5),
    workloads.fan(5, checkpoint=True),
    workloads.many(3, 4),
    workloads.many(3, 4, checkpoint=True),
    limits.chain(5),
    limits.chain(5, checkpoint=True),
    limits.fan(5),
    limits.fan(5, checkpoint=True),
    limits.many(3, 4),
]
DURABLE = [durable_chain("{}", 5), durable_many("{}", 30, 4), durable_beside_busy("{}", 5)]


@pytest.mark.parametrize("workload", SMALL, ids=lambda workload: f"{workload.func.__name__}-{workload.keywords}")
def test_each_workload_in_memory_does_its_work(workload, tmp_path):
    assert once(workload, tmp_path) > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", DURABLE, ids=lambda case: case.name.format("on"))
@pytest.mark.parametrize("side", ["ours", "limit"])
def test_each_durable_workload_does_its_work(case, side, kind, tmp_path):
    with fresh_database(kind, tmp_path) as url:
        stopwatch = Stopwatch(url)
        trio.run(getattr(case, side), stopwatch)
    assert stopwatch.seconds > 0


def test_a_database_of_each_side_is_gone_afterwards(tmp_path):
    case = durable_many("sqlite", 2, 3)
    assert len(measure(case, 1, tmp_path).ratios) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_name_stands_for_a_case_or_for_all_that_begin_so():
    cases = all_cases(KINDS)

    def named(*names):
        return [case.name for case in chosen(cases, names)]

    assert named() == [case.name for case in cases]
    assert named("chain") == ["chain"]
    assert named("durable-many", "fan") == ["fan", *(f"durable-many-{kind}" for kind in KINDS)]
    with pytest.raises(ValueError, match="no case 'durabl'"):
        named("durabl")


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
