"""Random workflows in random orders: the journal is the run, due joins fire, nothing is lost."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

from hypothesis import HealthCheck, example, given, settings, strategies as st

from blazen_trio._state.model import Member
from tests.state.chooser import Chooser
from tests.state.driver import Driver, fold
from tests.state.family import Family, family_of
from tests.thorough import try_many

seeds = st.randoms(use_true_random=True).map(lambda chance: chance.getrandbits(64))
slow = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def cells_of(driver: Driver) -> dict[str, Any]:
    decode = driver.family.codec.decode_value
    return {key: decode(cell.payload.data, key) for key, cell in driver.state.cells.items()}


@settings(slow, max_examples=try_many(50, 1500))
@given(family=seeds.map(family_of), seed=seeds)
@example(
    family=family_of(2825745287966400580), seed=5259673980811807493
)  # two equal items: one in a group that is kept, one in none
@example(  # an answer that only a join accepts
    family=family_of(6832892905590973747), seed=7106521602475165645
)
@example(  # a join that collected nothing fails again and again
    family=family_of(10837282355557331094), seed=10499958131665514997
)
def test_any_workflow_runs_correctly_in_any_order(family: Family, seed: int) -> None:
    """`Driver.note` checks each transition."""
    most = (None, 1, 2, 3)[seed // 4 % 4]
    driver = Driver(family, Chooser(seed), external=seed % 4, pauses=1, crashes=2, most=most)
    if not driver.drive(most=300):
        return
    state = driver.state
    assert state.fan_outs == {}, "every fan-out has fired all its joins"
    assert not any(isinstance(item, Member) for item in state.root or ()), (
        "the root has fired all its joins"
    )
    for (_, types), by_type in state.buffers.items():
        need = Counter(types)
        assert any(len(by_type.get(name, ())) < count for name, count in need.items()), (
            "no complete set is left uncollected"
        )
    ran = cells_of(driver)
    summing = [spec.name for spec in family.specs if "sum" in spec.flags]
    assert ran.get("sum", 0) == sum(ran.get(f"runs of {name}", 0) for name in summing), (
        "no write is lost"
    )


@settings(slow, max_examples=try_many(15, 300))
@given(family=seeds.map(partial(family_of, confluent=True)), seed=seeds)
def test_every_prefix_of_the_journal_leads_to_the_same_end(family: Family, seed: int) -> None:
    driver = Driver(family, Chooser(seed))
    assert driver.drive()
    wanted = cells_of(driver)
    for length in range(1, len(driver.journal)):
        state = fold(driver.journal[:length], family)
        again = Driver(family, Chooser(seed + length), state=state, watched=False)
        assert again.drive()
        assert cells_of(again) == wanted
