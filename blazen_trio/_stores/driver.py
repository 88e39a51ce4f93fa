"""The token by which a process drives a run, and what its store brings to it: mail, and its loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from blazen_trio.errors import WorkflowError

if TYPE_CHECKING:
    from collections.abc import Sequence


__all__ = ["Driver", "DriverListener", "KeyUsedError", "Mail"]


class KeyUsedError(WorkflowError):
    """The `second_key` of what was to be posted was used before, and its `key` was not."""


@attrs.frozen
class Mail:
    """A row of a run's inbox.

    Attributes:
        id: Its id, given by the store; taken by it, never by a watermark.
        kind: `event`, `pause` or `cancel`; others may come with later versions.
        data: What is in it.
        key: What its sender named it, to be accepted once only.
    """

    id: int
    kind: str
    data: bytes
    key: str | None = None


class DriverListener(Protocol):
    """Hears from the store, in the event loop's thread. Both methods return at once, and neither raises."""

    def mail_came(self, mail: Sequence[Mail]) -> None:
        """Rows of the run's inbox that this driver was not given before, in order; later ones may have lower ids."""

    def driver_lost(self, error: Exception) -> None:
        """This driver may write nothing more."""


class Driver:
    """One driver of a run: the token by which alone the run is committed to, its mail is taken, and it is given back.

    `create`, `claim` and `take` give one. A run that is driven again, also by the same opening of a store, has another one, so
    what comes late from an earlier driver has no effect. A store may make its own of a subclass.

    Attributes:
        run_id: The run.
        lost: Why nothing more may be written by it: a `StaleRunError`, as the run is not its own any more, or the `StoreError`
            of a commit that failed. `None` while it drives the run, and after it has given it back.
    """

    __slots__ = ("__weakref__", "_listener", "_unheard", "lost", "run_id")

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.lost: Exception | None = None
        self._listener: DriverListener | None = None
        self._unheard: list[Mail] = []

    @property
    def listening(self) -> bool:
        """Return whether somebody hears of mail; where nobody does, a store need not look for any."""
        return self._listener is not None

    def listen(self, listener: DriverListener | None) -> None:
        """Have somebody hear of mail, and of the loss of the run; also of what came before. `None`: nobody from here on."""
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
        """Hand rows of the inbox to whoever listens."""
        if self._listener is None:
            self._unheard += mail
        else:
            self._listener.mail_came(mail)

    def lose(self, error: Exception) -> None:
        """Tell whoever listens that this drives the run no more. Only the first reason counts."""
        if self.lost is None:
            self.lost = error
            if self._listener is not None:
                self._listener.driver_lost(error)
