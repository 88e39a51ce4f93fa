"""The mail of runs that are driven each by itself, without a runtime: one look per store and interval for all of them.

No task is kept for it: one of the dispatchers, which waits anyway, looks for all. When its run ends, another one does.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final

import trio

from blazen_trio.errors import StoreError

if TYPE_CHECKING:
    from blazen_trio._dispatch.dispatcher import Dispatcher
    from blazen_trio._stores.protocol import CheckpointStore

__all__ = ["Postbox", "postbox_of"]

_INTERVAL: Final = 0.5
"""Seconds between two looks."""

_postboxes: trio.lowlevel.RunVar[weakref.WeakKeyDictionary[CheckpointStore, Postbox]] = trio.lowlevel.RunVar(
    "blazen_trio postboxes"
)


def postbox_of(store: CheckpointStore) -> Postbox:
    """The one of this store in this `trio.run`."""
    try:
        postboxes = _postboxes.get()
    except LookupError:
        postboxes = weakref.WeakKeyDictionary()
        _postboxes.set(postboxes)
    found = postboxes.get(store)
    if found is None:
        found = postboxes[store] = Postbox()
    return found


class Postbox:
    """The runs of one store that look into their inboxes together."""

    def __init__(self) -> None:
        self._runs: dict[str, Dispatcher] = {}
        self._looks: Dispatcher | None = None
        self._next = 0.0

    def join(self, dispatcher: Dispatcher) -> None:
        """This run's mail is to be taken."""
        self._runs[dispatcher.state.run_id] = dispatcher

    def leave(self, dispatcher: Dispatcher) -> None:
        """It is not driven here any more."""
        self._runs.pop(dispatcher.state.run_id, None)
        if self._looks is dispatcher:
            self._looks = None
            for other in self._runs.values():
                other.wake()
                break

    def next_look(self, dispatcher: Dispatcher) -> float:
        """When this dispatcher is to look, on Trio's clock: never, while another one does."""
        if self._looks is None:
            self._looks = dispatcher
            self._next = trio.current_time() + _INTERVAL
        return self._next if self._looks is dispatcher else float("inf")

    async def look(self, store: CheckpointStore) -> None:
        """Take what there is, for all."""
        for each in self._runs.values():
            each.look_begins()
        try:
            poll = await store.poll(())
        except StoreError:
            # The runs' own commits tell of it, if it lasts.
            self._next = trio.current_time() + _INTERVAL
            await trio.lowlevel.checkpoint()
            return
        async with trio.open_nursery() as nursery:
            for run_id, rows in poll.mail.items():
                if run_id in self._runs:
                    nursery.start_soon(self._runs[run_id].mail.deliver, rows)
        self._next = trio.current_time() + _INTERVAL
