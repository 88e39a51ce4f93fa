"""A few rounds of each fuzzer; `nox -s fuzz` has many."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.targets import TARGETS

ROUNDS = {
    "documents": 400,
    "values": 1500,
    "entries": 800,
    "runs": 60,
    "mail": 150,
    "rows": 10,
    "commands": 40,
}


@pytest.mark.parametrize("name", TARGETS)
def test_anything_is_a_typed_error_or_a_right_result(name: str) -> None:
    for seed in range(ROUNDS[name]):
        TARGETS[name](random.Random(seed))
