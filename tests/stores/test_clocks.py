"""Processes compare times of the database's clock, so no host's clock can distort them."""

from __future__ import annotations

import datetime as dt
import time

import pytest
import sqlalchemy as sa
import trio
import trio.testing

from blazen_trio import _clock as clocks
from blazen_trio._clock import DatabaseClock, WallClock
from blazen_trio._stores.open_store import open_store
from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio._stores.sql import databases
from blazen_trio._stores.sql.databases import mysql
from tests.databases import an_engine, execute

_NEW = NewRun("w", "1", 1.0)
_MARIADB = databases.KINDS["mariadb"]


def _by_the_database(url: str) -> float:
    kind = sa.make_url(url).get_backend_name()
    ((micros,),) = execute(url, f"SELECT {databases.KINDS[kind].clock}")
    return int(micros) / 1_000_000


async def test_the_time_is_the_databases_even_if_the_hosts_clock_is_wrong(
    url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + 3600)
    async with open_store(url, migrate=True) as store:
        assert store.clock().now() == pytest.approx(_by_the_database(url), abs=1)
        monkeypatch.setattr("time.time", real)
        assert store.clock().now() == pytest.approx(_by_the_database(url), abs=1)


async def test_a_read_updates_the_time(
    url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_store(url, migrate=True) as store:
        await store.create(_NEW, Commit("a", [(1, b"")]))
        # As after the machine was suspended: the database's clock has advanced by an hour.
        store._clock._offset -= 3600
        monkeypatch.setattr(clocks, "_STALE", -10_000.0)
        await store.get_run("a")
        assert store.clock().now() == pytest.approx(_by_the_database(url), abs=1)


def test_an_observation_moves_the_time_only_as_far_as_necessary() -> None:
    async def main() -> None:
        clock = DatabaseClock(WallClock())
        now = time.perf_counter()
        base = 1_000_000.0
        clock.observed(int((base + now) * 1e6), now, now + 0.002)
        sharp = clock.now() - time.perf_counter()
        # A slow answer is imprecise, and does not contradict what is known.
        clock.observed(int((base + now + 3) * 1e6), now, now + 5)
        assert clock.now() - time.perf_counter() == pytest.approx(sharp, abs=1e-3)
        # The clock was set, by more than the answer took.
        clock.observed(int((base + now + 60) * 1e6), now, now + 5)
        assert clock.now() - time.perf_counter() == pytest.approx(base + 55, abs=0.1)

    trio.run(main)


def test_a_mock_clocks_lead_is_added() -> None:
    async def main() -> None:
        clock = DatabaseClock(WallClock())
        clock.observed(1_000_000, time.perf_counter(), time.perf_counter())
        before = clock.now()
        await trio.sleep(3600)
        assert clock.now() == pytest.approx(before + 3600, abs=1)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.fixture
def url_with_zones(url: str) -> str:
    """Return the URL of a server that has time zone tables; skip the test if it has none."""
    with an_engine(url) as engine, engine.connect() as connection:
        zone = sa.text("SELECT CONVERT_TZ('2026-10-25 00:30:00', 'UTC', 'Europe/Berlin')")
        if connection.execute(zone).scalar() is None:
            pytest.skip("this server has no time zone tables")
    return url


@pytest.mark.parametrize("kind", ["mariadb"])
async def test_the_repeated_hour_at_the_end_of_summer_time_counts_twice(
    url_with_zones: str,
) -> None:
    """02:30 on the last Sunday in October in Berlin comes in summer time and in winter time."""
    first = dt.datetime(2026, 10, 25, 0, 30, tzinfo=dt.UTC)
    with an_engine(url_with_zones) as engine, engine.connect() as connection:
        connection.exec_driver_sql("SET SESSION time_zone = 'Europe/Berlin'")
        for instant in (first, first + dt.timedelta(hours=1)):
            # `timestamp` sets the start time of the statement, but not SYSDATE.
            connection.exec_driver_sql(f"SET SESSION timestamp = {instant.timestamp()}")
            found = connection.execute(sa.select(_MARIADB.statement_time())).scalar_one()
            assert int(found) == instant.timestamp() * 1_000_000


@pytest.mark.parametrize("kind", ["mariadb"])
@pytest.mark.parametrize("zone", ["+00:00", "-03:30", "+05:45", "+13:00"])
async def test_the_time_is_utc_in_every_time_zone(url: str, zone: str) -> None:
    with an_engine(url) as engine, engine.connect() as connection:
        connection.exec_driver_sql(f"SET SESSION time_zone = '{zone}'")
        columns = [
            _MARIADB.now(),
            _MARIADB.statement_time(),
            sa.literal_column("UNIX_TIMESTAMP(SYSDATE(6)) * 1000000"),
        ]
        moment, began, right = connection.execute(sa.select(*columns)).one()
        assert abs(int(moment) - float(right)) < 1_000_000
        assert abs(int(began) - float(right)) < 1_000_000


@pytest.mark.parametrize("kind", ["mariadb"])
async def test_the_time_advances_within_a_statement(url: str) -> None:
    with an_engine(url) as engine, engine.connect() as connection:
        moments = [_MARIADB.now(), sa.func.sleep(1), _MARIADB.now()]
        first, _, last = connection.execute(sa.select(*moments)).one()
        assert 900_000 < int(last) - int(first) < 5_000_000


@pytest.mark.parametrize("kind", ["mariadb"])
async def test_the_time_does_not_leap_if_local_time_does_within_a_statement(url: str) -> None:
    """A difference of local times is added to the statement's start. It must contain no leap."""
    since = mysql._SINCE
    for leap in (-3600, -1800, 0, 1800, 3600):
        elapsed = since.replace("SYSDATE(6)", f"NOW(6) + INTERVAL {leap + 7} SECOND")
        assert execute(url, f"SELECT {elapsed}") == [(7_000_000,)]
