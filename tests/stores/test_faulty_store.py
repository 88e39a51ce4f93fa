"""The store that fails on request."""

from __future__ import annotations

import pytest

from blazen_trio._stores.driver import Driver
from blazen_trio._stores.memory import MemoryStore
from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio.errors import StoreError
from blazen_trio.testing.check import check_store
from blazen_trio.testing.faults import FaultyStore

_NEW = NewRun("w", "1", 1.0)


async def _commit_four(store: FaultyStore) -> None:
    driver = await store.create(_NEW, Commit("a", [(1, b"")]))
    assert driver is not None
    for seq in (2, 3, 4):
        await store.commit(driver, Commit("a", [(seq, b"")]))


@pytest.mark.parametrize(
    ("where", "number", "stored"),
    [("before", 3, 2), ("after", 3, 3), ("before", 2, 1), ("after", 1, 1)],
)
async def test_the_store_is_severed_at_the_given_commit(
    where: str, number: int, stored: int
) -> None:
    below = MemoryStore()
    faulty = FaultyStore(below, **{f"fail_{where}": number})
    with pytest.raises(StoreError, match="severed"):
        await _commit_four(faulty)
    assert number == faulty.commits
    late = Driver("a")
    for call in (
        faulty.load("a"),
        faulty.commit(late, Commit("a")),
        faulty.release(late),
        faulty.set_aside(late, ""),
        faulty.post("a", "event", b""),
    ):
        with pytest.raises(StoreError, match="severed"):
            await call
    # Its runs are those of a dead process, so another one can claim them.
    assert stored == len((await below.claim("a")).entries)


async def test_a_store_severed_before_its_first_commit_has_no_runs() -> None:
    below = MemoryStore()
    with pytest.raises(StoreError, match="severed"):
        await _commit_four(FaultyStore(below, fail_before=1))
    assert await below.list_runs() == []


async def test_a_faulty_store_without_faults_keeps_every_promise() -> None:
    await check_store(_Whole)


class _Whole(MemoryStore):
    """A faulty store without faults, opened."""

    async def __aenter__(self) -> FaultyStore:  # type: ignore[override]
        return FaultyStore(await super().__aenter__())


async def test_on_commit_is_called_at_each_commit() -> None:
    numbers: list[int] = []
    await _commit_four(FaultyStore(MemoryStore(), on_commit=numbers.append))
    assert numbers == [1, 2, 3, 4]
