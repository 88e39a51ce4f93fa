"""Retry policies: delays, giving up, and invalid options."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from blazen_trio._definitions.retry import RetryPolicy


def test_delays_grow_exponentially_up_to_the_longest() -> None:
    policy = RetryPolicy(initial_delay=1, multiplier=2, max_delay=10)
    assert [policy.delay(attempt, 0.5) for attempt in range(1, 7)] == [1, 2, 4, 8, 10, 10]


def test_jitter_varies_the_delay_in_both_directions() -> None:
    policy = RetryPolicy(initial_delay=10, jitter=0.2)
    assert policy.delay(1, 0.0) == pytest.approx(8)
    assert policy.delay(1, 0.75) == pytest.approx(11)


@given(
    attempt=st.integers(1, 10_000),
    random=st.floats(0, 1, exclude_max=True),
    jitter=st.floats(0, 1),
    multiplier=st.floats(1, 1e6),
)
def test_no_delay_is_negative_or_longer_than_the_longest(
    attempt: int, random: float, jitter: float, multiplier: float
) -> None:
    policy = RetryPolicy(jitter=jitter, multiplier=multiplier)
    assert 0 <= policy.delay(attempt, random) <= policy.max_delay


def test_an_initial_delay_of_zero_means_no_delays() -> None:
    assert RetryPolicy(initial_delay=0, multiplier=1e9).delay(10_000, 0.9) == 0


def test_a_policy_gives_up_after_its_last_attempt() -> None:
    policy = RetryPolicy(max_attempts=3)
    delays = [
        policy.next_delay(ValueError(), attempt=attempt, elapsed=0, random=0.5)
        for attempt in (1, 2, 3, 4)
    ]
    assert delays == [1, 2, None, None]


def test_a_policy_gives_up_if_the_next_attempt_would_start_too_late() -> None:
    policy = RetryPolicy(initial_delay=2, max_elapsed=10)
    assert policy.next_delay(ValueError(), attempt=1, elapsed=8, random=0.5) == 2
    assert policy.next_delay(ValueError(), attempt=1, elapsed=8.1, random=0.5) is None


@pytest.mark.parametrize(
    ("retry_on", "wanted"),
    [
        (Exception, True),
        (LookupError, True),
        (ValueError, False),
        ((ValueError, KeyError), True),
        ((ValueError, OSError), False),
        (lambda exc: exc.args == ("x",), True),
        (lambda exc: exc.args == ("y",), False),
    ],
)
def test_retry_on_selects_the_errors_to_retry(retry_on: Any, wanted: bool) -> None:
    policy = RetryPolicy(retry_on=retry_on)
    assert policy.wants(KeyError("x")) is wanted
    assert (
        policy.next_delay(KeyError("x"), attempt=1, elapsed=0, random=0.5) is not None
    ) is wanted


@pytest.mark.parametrize(
    "options",
    [
        {"max_attempts": 0},
        {"max_attempts": 1.5},
        {"max_attempts": True},
        {"initial_delay": -1},
        {"initial_delay": float("nan")},
        {"max_delay": float("inf")},
        {"max_delay": "60"},
        {"multiplier": 0.5},
        {"jitter": 1.1},
        {"jitter": -0.1},
        {"max_elapsed": -1},
        {"retry_on": ()},
        {"retry_on": "ValueError"},
        {"retry_on": int},
        {"retry_on": (ValueError, 3)},
    ],
)
def test_invalid_options_of_a_policy_are_refused_by_name(options: dict[str, Any]) -> None:
    [name] = options
    with pytest.raises(ValueError, match=rf"RetryPolicy\({name}=.*expected"):
        RetryPolicy(**options)
