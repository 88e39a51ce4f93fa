"""Runs that an earlier version stored, in every status, can be used by this one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
import trio
from alembic import command

from blazen_trio import InputResponseEvent, RunStatus, open_runtime, open_store
from blazen_trio._stores.sql.migrate import migrations_config
from blazen_trio.errors import InputResponseError, RunTimeoutError, StepFailedError
from tests.databases import an_engine
from tests.stores.old_runs import LARGE, OLD, old_runs

if TYPE_CHECKING:
    from blazen_trio import Run

_STATUS = {
    "completed": RunStatus.COMPLETED,
    "waiting": RunStatus.WAITING,
    "paused": RunStatus.PAUSED,
    "cancelled": RunStatus.CANCELLED,
    "failed": RunStatus.FAILED,
    "timed_out": RunStatus.TIMED_OUT,
    "running": RunStatus.RUNNING,
    "queued": RunStatus.QUEUED,
}


def _value(stored: Any) -> Any:
    return stored["bytes"].encode() if isinstance(stored, dict) else stored


@pytest.fixture
def old_url(url: str) -> str:
    """A database with the tables and the rows of revision 0002, upgraded."""
    tables: dict[str, list[dict[str, Any]]] = json.loads(OLD.read_text())
    config = migrations_config()
    with an_engine(url, poolclass=sa.NullPool) as engine, engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        there = sa.MetaData()
        there.reflect(connection)
        for name, rows in tables.items():
            if rows:
                values = [{key: _value(data) for key, data in row.items()} for row in rows]
                connection.execute(sa.insert(there.tables[name]), values)
        if connection.dialect.name == "postgresql":
            for table, column in (("blazen_run", "run_no"), ("blazen_inbox", "mail_id")):
                sequence = f"pg_get_serial_sequence('{table}', '{column}')"
                most = f"(SELECT max({column}) FROM {table})"
                connection.execute(sa.text(f"SELECT setval({sequence}, {most})"))
        command.upgrade(config, "head")
    return url


async def _answered(run: Run) -> Any:
    """Answer the question of a run as soon as it is asked. Return the result of the run."""
    with trio.fail_after(120):
        while True:
            try:
                await run.respond("yes")
            except InputResponseError:
                await trio.sleep(0.01)
            else:
                return await run.result()


async def test_each_old_run_can_be_read_and_folded(old_url: str) -> None:
    async with open_store(old_url) as store:
        assert {run.run_id: run.status for run in await store.list_runs()} == _STATUS
        for run_id, status in _STATUS.items():
            snapshot = await store.load_snapshot(run_id)
            assert (snapshot.run_id, snapshot.status) == (run_id, status)
            assert snapshot.metadata == {"kind": run_id}


async def test_each_old_run_can_be_resumed(old_url: str) -> None:
    async with open_store(old_url) as store:
        assert await old_runs.resume_from("completed", store=store) == ["yes", len("small")]
        for run_id in ("waiting", "paused", "cancelled", "running", "queued"):
            async with old_runs.resume_from(run_id, store=store, timeout=20) as run:
                large = LARGE if run_id == "waiting" else "small"
                assert await _answered(run) == ["yes", len(large)]
            assert (await store.get_run(run_id)).status is RunStatus.COMPLETED
        with pytest.raises(StepFailedError, match="the first time"):
            await old_runs.resume_from("failed", store=store)
        with pytest.raises(RunTimeoutError):
            await old_runs.resume_from("timed_out", store=store, timeout=0.1)


async def test_old_runs_can_be_acted_on_before_they_are_driven_again(old_url: str) -> None:
    async with open_store(old_url) as store, open_runtime(store) as front:
        await front.respond("waiting", "yes")
        with pytest.raises(InputResponseError, match="has 0 open questions"):
            await front.respond("waiting", "no")
        with pytest.raises(InputResponseError, match="unknown"):
            await front.respond("paused", InputResponseEvent("unheard of", "yes"))
        assert (await front.pause("queued")).status is RunStatus.PAUSED
        await front.cancel("paused", "enough")
        assert await old_runs.resume_from("waiting", store=store, timeout=20) == ["yes", len(LARGE)]
        for run_id in ("queued", "paused"):
            records = await store.history(run_id)
            assert [one.sequence for one in records] == list(range(1, len(records) + 1))
            async with old_runs.resume_from(run_id, store=store, timeout=20) as run:
                assert await _answered(run) == ["yes", len("small")]


async def test_a_worker_takes_undriven_old_runs(old_url: str) -> None:
    async with (
        open_store(old_url) as store,
        open_runtime(store, [old_runs], poll_interval=0.05) as runtime,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(runtime.serve)
        for run_id in ("running", "queued"):
            with trio.fail_after(120):
                while True:
                    try:
                        await runtime.respond(run_id, "yes")
                        break
                    except InputResponseError:
                        await trio.sleep(0.05)
                assert await runtime.result(run_id) == ["yes", len("small")]
        nursery.cancel_scope.cancel()
