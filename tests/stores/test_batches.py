"""Group commit: the commits that are written together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from blazen_trio import StoreError
from blazen_trio._stores.protocol import Commit, NewRun
from tests.stores.by_id import ById, open_by_id

if TYPE_CHECKING:
    from pathlib import Path


async def create_all(store: ById, count: int) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(
                store.create, NewRun("w", "1", 1.0), Commit(f"r{number}", [(1, b"")])
            )


async def test_commits_submitted_in_one_turn_are_one_batch(tmp_path: Path) -> None:
    async with open_by_id(f"sqlite:///{tmp_path / 'runs.db'}") as store:
        await create_all(store, 100)
        before = store.statistics()
        assert (before.commits, before.largest_batch, before.batches) == (100, 100, 1)
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(store.commit, Commit(f"r{number}", [(2, b"")]))
        after = store.statistics()
        assert (after.commits, after.batches) == (200, 2)


async def test_submitted_commits_are_written_although_their_store_closes(tmp_path: Path) -> None:
    """The store's block ends in the same turn in which other tasks commit."""
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    refused: list[str] = []

    async def commit(store: ById, run_id: str) -> None:
        try:
            await store.commit(Commit(run_id, [(2, b"")]))
        except StoreError:
            refused.append(run_id)

    async with trio.open_nursery() as nursery, open_by_id(url) as store:
        await create_all(store, 10)
        for number in range(10):
            # Closing it is the test.
            nursery.start_soon(commit, store, f"r{number}")  # noqa: ASYNC111
        await trio.lowlevel.checkpoint()
    async with open_by_id(url) as store:
        stored = {
            f"r{number}": len((await store.load(f"r{number}")).entries) for number in range(10)
        }
    assert stored == {run_id: 1 if run_id in refused else 2 for run_id in stored}
    with pytest.raises(StoreError, match="closed"):
        await store.commit(Commit("r0", [(3, b"")]))
