"""A few rounds of each fuzzer; `nox -s fuzz` runs many."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.targets import TARGETS

ROUNDS = {
    "documents": 400,
    "values": 1500,
    "entries": 800,
    "runs": 60,
    "inbox": 150,
    "rows": 10,
    "commands": 40,
}


@pytest.mark.parametrize("name", TARGETS)
def test_any_input_gives_a_typed_error_or_a_right_result(name: str) -> None:
    for seed in range(ROUNDS[name]):
        TARGETS[name](random.Random(seed))
