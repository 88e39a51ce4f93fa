"""The token by which a process drives a run, and how its store reports inbox messages and loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from blazen_trio.errors import WorkflowError

if TYPE_CHECKING:
    from collections.abc import Sequence


__all__ = ["Driver", "DriverListener", "KeyUsedError", "Mail"]


class KeyUsedError(WorkflowError):
    """The `second_key` of a message to be posted was used before, and its `key` was not."""


@attrs.frozen
class Mail:
    """A message in a run's inbox.

    Attributes:
        id: The id that the store assigned. Rows are taken by id, never by watermark: ids of
            concurrent transactions do not become visible in order.
        kind: `event`, `pause` or `cancel`; later versions may add others.
        data: The payload.
        key: The sender's key: a second message with it is not accepted. `None`: it has no key.
    """

    id: int
    kind: str
    data: bytes
    key: str | None = None


class DriverListener(Protocol):
    """Receives a store's reports about a run, in the event loop's thread.

    Both methods must return at once and must not raise.
    """

    def mail_came(self, mail: Sequence[Mail]) -> None:
        """Receive rows of the run's inbox that this driver was not given before, in order.

        Rows of a later call may have lower ids.
        """

    def driver_lost(self, error: Exception) -> None:
        """Learn that this driver may write nothing more."""


class Driver:
    """One driver of a run: the token that a process needs to commit, take messages and release.

    `create`, `claim` and `take` return one. A run that is driven again has a new driver, even if
    the same opening of a store drives it, so late calls from an earlier driver have no effect. A
    store may use a subclass.

    Attributes:
        run_id: The run.
        lost: Why this driver may write nothing more: a `StaleRunError` if it no longer drives the
            run, or the `StoreError` of a commit that failed. `None` while it drives the run, and
            after it has released it.
    """

    __slots__ = ("__weakref__", "_listener", "_unheard", "lost", "run_id")

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.lost: Exception | None = None
        self._listener: DriverListener | None = None
        self._unheard: list[Mail] = []

    @property
    def listening(self) -> bool:
        """Indicates whether a listener is set; without one, a store need not look for messages."""
        return self._listener is not None

    def listen(self, listener: DriverListener | None) -> None:
        """Set the listener for inbox messages and the loss of the run; `None` removes it.

        The listener also gets what arrived while none was set.
        """
        self._listener = listener
        if listener is None:
            return
        if self._unheard:
            mail, self._unheard = self._unheard, []
            listener.mail_came(mail)
        if self.lost is not None:
            listener.driver_lost(self.lost)

    # For stores, in the event loop's thread

    def deliver(self, mail: Sequence[Mail]) -> None:
        """Hand rows of the inbox to the listener, or keep them until there is one."""
        if self._listener is None:
            self._unheard += mail
        else:
            self._listener.mail_came(mail)

    def lose(self, error: Exception) -> None:
        """Report the loss of the run to the listener. Only the first reason counts."""
        if self.lost is None:
            self.lost = error
            if self._listener is not None:
                self._listener.driver_lost(error)
