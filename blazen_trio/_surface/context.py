"""What a step is handed to work with: its transaction over the run."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

import trio

from blazen_trio._definitions.events import Event
from blazen_trio._definitions.names import is_unicode
from blazen_trio._state.routing import check_sent
from blazen_trio.errors import SerializationError, StepOutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from blazen_trio._dispatch.core import RunCore
    from blazen_trio._dispatch.transaction import Transaction

__all__ = ["Context"]

T = TypeVar("T")


class Context:
    """One attempt of one step: what it reads, writes and sends is one transaction, committed when the step returns.

    All methods are plain calls that touch memory only, and work in the thread of a synchronous step too. A failed,
    cancelled or killed attempt leaves nothing behind (but what it published).
    """

    __step_context__: ClassVar[bool] = True
    __slots__ = ("_core", "_transaction")

    def __init__(self, core: RunCore, transaction: Transaction) -> None:
        self._core = core
        self._transaction = transaction

    # Who and what

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._core.state.run_id

    @property
    def workflow_name(self) -> str:
        """The workflow's name."""
        return self._core.definition.name

    @property
    def step_name(self) -> str:
        """This step's name."""
        return self._transaction.delivery.step

    @property
    def attempt(self) -> int:
        """Counts this delivery's attempts from 1; retries and re-runs after a conflict each raise it."""
        delivery = self._transaction.delivery
        return delivery.attempt + self._core.turns.reruns(delivery)

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this delivery, in whatever process, and for no other, also not of another run
        that gets this one's id when it is deleted. Give it to services that are to act once.
        """
        state = self._core.state
        run = f"{state.run_id}:{state.nonce}" if state.nonce else state.run_id
        return f"{run}:{self._transaction.delivery.id}:{self.step_name}"

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What was given as `metadata` when the run was started; read-only."""
        state = self._core.state
        return MappingProxyType(self._core.codec.decode_value(state.metadata.data, "metadata"))

    # State

    @overload
    def get(self, key: str, default: Any = None) -> Any: ...

    @overload
    def get(self, key: str, default: Any = None, *, type: type[T]) -> T: ...

    def get(self, key: str, default: Any = None, *, type: Any = None) -> Any:  # noqa: A002
        """The value of a key of the run's state: this attempt's own if it has set one, else the newest decided.

        A value that can be changed in place is a copy. Changing it without `set` fails the step
        (`StateConflictError`), since the change would be lost.

        Args:
            key: The key.
            default: What to return where the key has no value.
            type: The type to give it back as; left out: as it was set, classes only where the workflow knows them
                (`Workflow(types=[...])`).

        Raises:
            SerializationError: The stored value does not fit `type`, or is of a class that the workflow does not know.
        """
        self._check_key(key)
        return self._transaction.get(key, default, () if type is None else (type,))

    def set(self, key: str, value: Any) -> None:
        """Set a key of the run's state. What is stored is the value as of now.

        Raises:
            SerializationError: It can't be stored.
        """
        self._check_key(key)
        self._open.set(key, value)

    def delete(self, key: str) -> None:
        """Delete a key of the run's state; nothing happens where it has no value."""
        self._check_key(key)
        self._open.delete(key)

    def update(self, key: str, fn: Callable[[Any], Any], default: Any = None) -> None:
        """Apply a pure function to the newest committed value when this step commits: concurrent steps lose none.

        Args:
            key: The key.
            fn: Takes the value, returns the new one. May be called more than once.
            default: What `fn` gets where the key has no value.
        """
        self._check_key(key)
        if not callable(fn):
            msg = f"ctx.update({key!r}, ...) takes a function of the value, found {fn!r}"  # type: ignore[unreachable]
            raise TypeError(msg)
        self._open.update(key, fn, default)

    # Events

    def send(self, event: Any) -> None:
        """Send an event (or a `Delayed` one) as one more output of this step, routed when it commits.

        Raises:
            StepOutputError: The step does not declare that it emits such an event.
        """
        transaction = self._open
        try:
            check_sent(self._core.definition.steps[self.step_name], event)
        except StepOutputError as fault:
            # A step that swallows this must not commit as if it had sent the event.
            transaction.fault = fault
            raise
        transaction.sent.append(event)

    def publish(self, event: Event) -> None:
        """Show an event to the run's observers, at once. Not part of the transaction: if the step is redone, it is
        published again.
        """
        if not isinstance(event, Event):
            msg = f"ctx.publish() takes an event, found {event!r:.80}"  # type: ignore[unreachable]
            raise TypeError(msg)
        publish = self._core.broadcast.publish
        if trio.lowlevel.in_trio_task():
            publish(event)
        else:
            trio.from_thread.run_sync(publish, event)

    def collect(self, event: Event, expected: Sequence[type[Event]]) -> list[Event] | None:
        """Put an event into a buffer; the events of these classes, in this order, once all are there, else `None`.

        The buffer belongs to the run, this step and this list of classes; first in, first out; a surplus stays. What a
        completed set used is consumed when the step commits, and only then.

        Args:
            event: The event, most often the one that the step was given.
            expected: The classes, one as often as that many are needed. Nothing expected is complete at once: `[]`.

        Raises:
            ValueError: This attempt has put another event into that buffer before.
        """
        if not isinstance(event, Event):
            msg = f"ctx.collect() takes an event, found {event!r:.80}"  # type: ignore[unreachable]
            raise TypeError(msg)
        return self._open.collect(event, expected)

    @property
    def _open(self) -> Transaction:
        if self._transaction.closed:
            msg = (
                f"the context of step {self.step_name!r} was used after the step had ended: what it did would be lost. "
                "Wait in the step for every task that uses its context"
            )
            raise RuntimeError(msg)
        return self._transaction

    def _check_key(self, key: str) -> None:
        if type(key) is not str:
            msg = f"a key of the run's state is a str, found {key!r:.80}"
            raise TypeError(msg)
        if not is_unicode(key):
            subject = f"state key {key!r:.80}"
            msg = f"the {subject} has lone surrogates in it, so it can't be stored: leave them out"
            raise SerializationError(msg, subject=subject)
