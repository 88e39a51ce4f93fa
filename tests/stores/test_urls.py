"""URLs with options that a driver does not know, and SQLite's own URIs."""

from __future__ import annotations

import os

import pytest
import sqlalchemy as sa
import trio

from blazen_trio import StartEvent, StopEvent, Workflow, open_store, step
from blazen_trio._stores.sql.faults import translate
from blazen_trio._stores.sql.migrate import read_schema
from tests.databases import fresh_database


@step
async def only(ev: StartEvent) -> StopEvent:
    return StopEvent("done")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("mariadb", "ssl_mode=REQUIRED"),
        ("mariadb", "charset=none"),
        ("mariadb", "connect_timeout=soon"),
        ("mariadb", "ssl_ca=/nowhere/ca.pem"),
        ("postgresql", "ssl_mode=require"),
        ("postgresql", "connect_timeout=soon"),
        ("sqlite", "timeout=soon"),
    ],
)
async def test_options_that_the_driver_does_not_accept_are_refused(kind, options, tmp_path):
    with fresh_database(kind, tmp_path) as url:
        wrong = f"{url.partition('?')[0]}?{options}"
        with pytest.raises(ValueError, match=r"use only options that the driver knows"):
            async with open_store(wrong):
                raise AssertionError
        with pytest.raises(ValueError, match=r"use only options that the driver knows"):
            await trio.to_thread.run_sync(read_schema, wrong)


URIS = [
    "file:{}",
    "file:{}?mode=rwc",
    "file://{absolute}",
    "file:{absolute}",
    "file://localhost{absolute}",
]


@pytest.mark.parametrize("uri", URIS)
async def test_reading_the_schema_by_a_uri_creates_no_file(uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = database(uri, tmp_path, "a b.db")
    assert (await trio.to_thread.run_sync(read_schema, url)).standing == "missing"
    assert list(tmp_path.iterdir()) == []
    async with open_store(url):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a b.db"]
    assert (await trio.to_thread.run_sync(read_schema, url)).standing == "current"


@pytest.mark.parametrize("uri", [*URIS, None])
async def test_a_store_stays_where_it_was_opened(uri, tmp_path, monkeypatch):
    here, there = tmp_path / "here é", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    url = database(uri, here, "runs.db") if uri else "sqlite:///runs.db"
    async with open_store(url) as store:
        os.chdir(there)
        assert await Workflow("small", [only]).run(store=store) == "done"
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(store.list_runs)
    assert list(there.iterdir()) == []
    assert (here / "runs.db").exists()


def database(uri, folder, name):
    """Return the database URL of an SQLite URI, with the path escaped."""
    absolute = f"{str(folder).replace('é', '%C3%A9')}/{name.replace(' ', '%20')}"
    given = uri.format(name.replace(" ", "%20"), absolute=absolute)
    return f"sqlite:///{given}{'&' if '?' in given else '?'}uri=true"


def test_the_error_of_a_failed_read_does_not_mention_writes():
    strange = sa.exc.OperationalError("SELECT 1", {}, Exception("a strange thing"))
    assert "written" not in str(translate(strange, "opening x", writing=False))
    assert "not known whether anything was written" in str(
        translate(strange, "a commit was not stored")
    )
