"""Each benchmark does the work that it measures, in a small size. Workloads check their results."""

from __future__ import annotations

import pytest
import trio

from benchmarks import limits, workloads
from benchmarks.cases import (
    all_cases,
    async_chain,
    async_many,
    durable_beside_busy,
    durable_chain,
    durable_many,
    fan,
    named,
)
from benchmarks.harness import Aim, Case, Measurement, Spread, Stopwatch, in_turns, measure, once
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
DURABLE = [
    durable_chain("{}", 5),
    async_chain("{}", 5),
    durable_many("{}", 30, 4),
    async_many("{}", 30, 4),
    durable_beside_busy("{}", 5),
]
# The other cases have the same limits as these two.
SIDES = [(case, "ours") for case in DURABLE] + [
    (case, "limit") for case in (DURABLE[0], DURABLE[2])
]


@pytest.mark.parametrize(
    "workload", SMALL, ids=lambda workload: f"{workload.func.__name__}-{workload.keywords}"
)
def test_each_workload_in_memory_does_its_work(workload, tmp_path):
    assert once(workload, tmp_path) > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("case", "side"), SIDES, ids=[f"{case.name.format('on')}-{side}" for case, side in SIDES]
)
def test_each_durable_workload_does_its_work(case, side, kind, tmp_path):
    with fresh_database(kind, tmp_path) as url:
        stopwatch = Stopwatch(url)
        trio.run(getattr(case, side), stopwatch)
    assert stopwatch.seconds > 0


def test_the_databases_of_both_sides_are_deleted_afterwards(tmp_path):
    case = durable_many("sqlite", 2, 3)
    assert len(measure(case, 1, tmp_path).ratios) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_name_selects_one_case_or_all_cases_with_that_prefix():
    known = [case.name for case in all_cases(KINDS)]
    assert len(set(known)) == len(known)
    assert named(known, ["chain"]) == {"chain"}
    assert named(known, ["durable-many", "fan-1000"]) == {
        "fan-1000",
        *(f"durable-many-{kind}" for kind in KINDS),
    }
    with pytest.raises(ValueError, match="no 'durabl'"):
        named(known, ["durabl"])


def test_fan_outs_are_the_points_of_a_curve():
    assert fan(1000).curve == ("fan", 1000)
    assert fan(1000, checkpoint=True).curve == ("fan-checkpoint", 1000)


@pytest.mark.parametrize(
    ("aim", "met", "text"),
    [
        (Aim(0.5), True, "≥ 0.5"),
        (Aim(0.6), False, "≥ 0.6"),
        (Aim(0.5, at_least=False), True, "≤ 0.5"),
        (Aim(2, at_least=False, of_ratio=False), False, "≤ 2"),
        (Aim(3, of_ratio=False), True, "≥ 3"),
    ],
)
def test_an_aim_is_a_bound_on_the_median(aim, met, text):
    assert aim.is_met(Measurement("x", "y", [3.0, 1.0, 9.0], [6.0, 2.0, 18.0])) is met
    assert str(aim) == text


def test_sides_take_turns_after_a_warm_up_turn():
    order = []
    sides = {name: lambda name=name: float(order.append(name) or len(order)) for name in "abc"}
    assert in_turns(sides, 2) == {"a": [4, 7], "b": [5, 8], "c": [6, 9]}
    assert order == list("abc") * 3
    assert in_turns(sides, 1, warm_up=False) == {"a": [10], "b": [11], "c": [12]}


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


def test_a_workload_that_does_not_finish_its_work_fails():
    with pytest.raises(AssertionError, match=r"expected \[1, 2, 3\]"):
        limits.expect([1, 2], [1, 2, 3])


def test_a_spread_has_median_least_and_greatest():
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
