"""Excerpts of stored runs, for processes that act on a run without driving it.

To answer, pause or cancel a run, its status, its open questions or the number of its last entry are
enough. They cost the same however old the run is and however large its state. Stores that can't
read them by themselves are read as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import attrs

from blazen_trio._codec.codec import PLAIN
from blazen_trio._concurrency import in_slices
from blazen_trio._stores.base import folding, reading_history

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from blazen_trio._stores.driver import Driver, Mail
    from blazen_trio._stores.protocol import CheckpointStore, RunInfo, StoredRun

__all__ = [
    "AskedRun",
    "Excerpts",
    "RunEnd",
    "asked_run",
    "claim_end",
]


@attrs.frozen
class RunEnd:
    """The end of a run's data: what an entry that only changes its status has to follow.

    Attributes:
        info: The run's row, as it was before the claim.
        last: The number of its last entry; `None` if it has no entry.
        records: A number from which on none of its history records is stored.
        requests: The kinds of the inbox rows that were asked for, by id.
        driver: The driver from now on; `None` if the run has completed.
    """

    info: RunInfo
    last: int | None
    records: int
    requests: Mapping[int, str]
    driver: Driver | None = attrs.field(default=None, eq=False)


@attrs.frozen
class AskedRun:
    """The open questions of a run.

    Attributes:
        info: The run's row.
        asked: The ids of its open questions by `request_id`, oldest first.
        inbox: The messages that no driver has taken yet. Empty if only one question was asked for.
    """

    info: RunInfo
    asked: Mapping[str, int]
    inbox: Sequence[Mail] = ()


@runtime_checkable
class Excerpts(Protocol):
    """A store that reads excerpts by itself. The functions below document the methods."""

    async def claim_end(self, run_id: str, kinds: Collection[str]) -> RunEnd:
        """See the function `claim_end`."""
        ...

    async def asked_run(
        self, run_id: str, request_id: str | None = None, *, connection: Any = None
    ) -> AskedRun | None:
        """See the function `asked_run`. `None`: the run has to be read as a whole."""
        ...


async def claim_end(  # noqa: ASYNC910  # the store suspends
    store: CheckpointStore, run_id: str, kinds: Collection[str]
) -> RunEnd:
    """Drive a run from now on, as `CheckpointStore.claim` does, and read only its end.

    Args:
        store: The run's store.
        run_id: The run's id.
        kinds: The kinds of inbox rows to look for.

    Raises:
        RunNotFoundError: No such run exists.
        RunLockedError: A live driver has it.
    """
    if isinstance(store, Excerpts):
        return await store.claim_end(run_id, kinds)
    stored = await store.claim(run_id)
    try:
        records = await in_slices(reading_history(stored))
    except BaseException:
        if stored.driver is not None:
            await store.release(stored.driver)  # noqa: ASYNC102  # its waits are bounded
        raise
    return RunEnd(
        stored.info,
        stored.last,
        records[-1].sequence + 1 if records else 1,
        {mail.id: mail.kind for mail in stored.inbox if mail.kind in kinds},
        stored.driver,
    )


async def asked_run(
    store: CheckpointStore, run_id: str, request_id: str | None = None, *, connection: Any = None
) -> AskedRun:
    """Return the open questions of a run.

    Args:
        store: The run's store.
        run_id: The run's id.
        request_id: Look only for the question with this id, and not into the inbox.
        connection: See `CheckpointStore.load`.

    Raises:
        RunNotFoundError: No such run exists.
    """
    found = None
    if isinstance(store, Excerpts):
        found = await store.asked_run(run_id, request_id, connection=connection)
    if found is None:
        given = {} if connection is None else {"connection": connection}
        stored = await store.load(run_id, **given)
        found = await _asked_in(stored)
    return found  # noqa: ASYNC910  # the store has suspended


async def _asked_in(stored: StoredRun) -> AskedRun:
    if stored.info.status.ended:
        return AskedRun(stored.info, {})  # noqa: ASYNC910  # the store has suspended
    state = await in_slices(folding(stored, PLAIN), cancellable=True)
    asked = {question.request_id: question.id for question in state.questions.values()}
    return AskedRun(stored.info, asked, stored.inbox)
