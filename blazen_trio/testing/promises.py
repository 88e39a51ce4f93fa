"""How a store's promises are tried: what was found is what was expected, or an `AssertionError` names the promise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blazen_trio._state.status import RunStatus
from blazen_trio._stores.protocol import Commit, NewRun

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from blazen_trio._stores.protocol import CheckpointStore, StoredRun

__all__ = ["NOW", "expect", "expect_error", "journal", "start"]

NOW = 1_700_000_000.0


def expect(promise: str, found: object, expected: object) -> None:
    """The store keeps this promise."""
    if found != expected:
        msg = f"the store breaks a promise: {promise}; expected {expected!r}, found {found!r}"
        raise AssertionError(msg)


async def expect_error(promise: str, kind: type[Exception], call: Awaitable[Any]) -> None:
    """The store keeps this promise by refusing."""
    try:
        found = await call
    except kind:
        return  # noqa: ASYNC910  # an error need not be a checkpoint
    except Exception as error:
        msg = f"the store breaks a promise: {promise}; expected a {kind.__name__}, but {error!r} was raised"
        raise AssertionError(msg) from error
    msg = f"the store breaks a promise: {promise}; expected a {kind.__name__}, but {found!r} was returned"
    raise AssertionError(msg)


async def start(store: CheckpointStore, run_id: str = "run", created: float = NOW, **more: Any) -> None:  # noqa: ASYNC910  # the store suspends
    """A new run."""
    given = {"status": RunStatus.RUNNING, "at": created, "entries": [(1, b"first")], **more}
    await store.create(NewRun("shop", "1", created), Commit(run_id, **given))


def journal(stored: StoredRun) -> list[tuple[int, bytes]]:
    """Its entries."""
    return [(seq, bytes(data)) for seq, data in stored.entries]
