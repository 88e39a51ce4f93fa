"""The payment saga: the books balance after refusals, lost requests and kills."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from blazen_trio import InputRequiredError, MemoryStore

SHIPPED = {"reserve": {"cup": 2}, "charge": {"cup": 800}, "ship": {"cup": 2}}
NOTHING = {"reserve": {}, "charge": {}, "ship": {}}


@pytest.fixture
def provider(example):
    return example("saga", "provider")


@pytest.fixture
def saga(example):
    return example("saga", "order_saga")


@pytest.fixture
def services(provider, tmp_path):
    return provider.Services(tmp_path / "services.db")


class Direct:
    """A client that uses no threads, so that a mock clock can autojump."""

    def __init__(self, services, trouble=lambda where: None):
        self._services = services
        self._trouble = trouble

    async def do(self, effect, key, *, sku, amount):
        self._trouble(effect)
        self._services.do(effect, key, sku, amount)
        self._trouble(f"{effect} answered")

    async def undo(self, effect, key):
        self._trouble(f"undo {effect}")
        self._services.undo(effect, key)
        self._trouble(f"undo {effect} answered")


def raise_at(error, *places):
    def trouble(where):
        if where in places:
            raise error

    return trouble


def order_of(saga):
    return saga.Order(sku="cup", quantity=2, cents=800)


async def test_an_order_is_reserved_charged_and_shipped(saga, services):
    workflow = saga.OrderSaga(Direct(services)).workflow

    assert isinstance(await workflow.run(order_of(saga)), saga.Shipped)
    assert services.books() == SHIPPED


@pytest.mark.parametrize(
    ("declined", "log"),
    [
        ("reserve", []),
        ("charge", ["reserve cup 2", "undo reserve"]),
        ("ship", ["reserve cup 2", "charge cup 800", "undo charge", "undo reserve"]),
    ],
)
async def test_after_a_refusal_all_effects_are_undone_last_first(
    saga, provider, services, declined, log
):
    client = Direct(services, raise_at(provider.DeclinedError("no"), declined))

    result = await saga.OrderSaga(client).workflow.run(order_of(saga))

    assert isinstance(result, saga.NotShipped)
    assert services.log() == log
    assert services.books() == NOTHING


async def test_an_effect_whose_answers_are_all_lost_is_undone(
    saga, provider, services, autojump_clock
):
    client = Direct(services, raise_at(provider.ServiceDownError(), "charge answered"))

    assert isinstance(await saga.OrderSaga(client).workflow.run(order_of(saga)), saga.NotShipped)
    assert services.log() == ["reserve cup 2", "charge cup 800", "undo charge", "undo reserve"]


@pytest.mark.parametrize("seed", range(20))
async def test_an_order_with_losses_is_shipped_or_fully_undone(
    saga, provider, services, autojump_clock, seed
):
    dice = random.Random(seed)

    def lose(where):
        if dice.random() < 0.45:
            raise provider.ServiceDownError

    result = await saga.OrderSaga(Direct(services, lose)).workflow.run(
        order_of(saga), store=MemoryStore()
    )

    assert services.books() == (SHIPPED if isinstance(result, saga.Shipped) else NOTHING)


async def test_a_compensation_that_fails_for_hours_asks_a_person(
    saga, provider, services, autojump_clock
):
    down = {"ship": provider.DeclinedError("no"), "undo charge": provider.ServiceDownError("gone")}

    def trouble(where):
        if where in down:
            raise down[where]

    async with saga.OrderSaga(Direct(services, trouble)).workflow.run(order_of(saga)) as run:
        with pytest.raises(InputRequiredError, match="Undoing charge fails"):
            await run.result()
        del down["undo charge"]
        await run.respond(saga.TryAgain(run.input_requests[0].request_id))
        assert isinstance(await run.result(), saga.NotShipped)
    assert services.books() == NOTHING


def test_a_request_that_arrives_after_its_undo_is_refused(provider, services):
    services.undo("charge", "order-1/charge")

    with pytest.raises(provider.DeclinedError):
        services.do("charge", "order-1/charge", "cup", 800)
    assert services.books() == NOTHING


def test_no_more_than_the_stock_can_be_reserved(provider, services):
    services.do("reserve", "order-1/reserve", "teapot", 3)
    with pytest.raises(provider.DeclinedError):
        services.do("reserve", "order-2/reserve", "teapot", 3)
    services.undo("reserve", "order-1/reserve")
    services.do("reserve", "order-2/reserve", "teapot", 3)


FORWARD = [
    f"{effect}{end}" for effect in ("reserve", "charge", "ship") for end in ("", " answered")
]
BACKWARD = [
    f"undo {effect}{end}" for effect in ("ship", "charge", "reserve") for end in ("", " answered")
]


@pytest.mark.parametrize(
    ("declined", "killed_at", "books"),
    [("nothing", FORWARD, SHIPPED), ("ship", [*FORWARD[:-1], *BACKWARD], NOTHING)],
)
def test_the_books_balance_after_kills_before_and_after_every_effect(
    services, tmp_path, declined, killed_at, books
):
    child = Path(__file__).with_name("saga_killed.py")
    done = subprocess.run(
        [sys.executable, "-W", "error", child, tmp_path, declined],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "places").read_text().splitlines() == killed_at
    assert services.books() == books
    assert sorted(services.log()) == sorted(set(services.log()))  # each effect once


def test_the_program_resumes_an_order_that_has_ended(tmp_path):
    program = Path(__file__).parents[2] / "examples" / "saga" / "place_order.py"
    command = [
        sys.executable,
        "-W",
        "error",
        program,
        "--pace",
        "0",
        "--run",
        "order-7",
        "--decline",
        "ship",
    ]
    first, again = (
        subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
        )
        for _ in range(2)
    )

    assert "not shipped: 'no ship today'" in first.stdout
    assert "undo reserve" in first.stdout
    assert again.stdout.splitlines() == first.stdout.splitlines()[-2:]
