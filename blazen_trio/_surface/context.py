"""The context of a step, its interface to the run."""

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
    """The transaction of one attempt of a step: its reads, its writes and the events that it sends.

    It commits when the step returns. All methods are plain calls that access only memory, and work
    in the thread of a synchronous step too. A failed, cancelled or killed attempt leaves nothing in
    the run; observers have seen what it published.
    """

    __step_context__: ClassVar[bool] = True
    __slots__ = ("_core", "_transaction")

    def __init__(self, core: RunCore, transaction: Transaction) -> None:
        self._core = core
        self._transaction = transaction

    # Identity

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
        """The number of this attempt at the delivery, from 1.

        Each retry, and each re-run after a conflict, increases it.
        """
        delivery = self._transaction.delivery
        return delivery.attempt + self._core.turns.reruns(delivery)

    @property
    def idempotency_key(self) -> str:
        """The key of this delivery, equal for all its attempts in any process.

        No other delivery has it, not even in a later run that reuses the id of a deleted one. Pass
        it to services that must act only once.
        """
        state = self._core.state
        run = f"{state.run_id}:{state.nonce}" if state.nonce else state.run_id
        return f"{run}:{self._transaction.delivery.id}:{self.step_name}"

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The `metadata` that the run was started with; read-only."""
        state = self._core.state
        return MappingProxyType(self._core.codec.decode_value(state.metadata.data, "metadata"))

    # State

    @overload
    def get(self, key: str, default: Any = None) -> Any: ...

    @overload
    def get(self, key: str, default: Any = None, *, type: type[T]) -> T: ...

    def get(self, key: str, default: Any = None, *, type: Any = None) -> Any:  # noqa: A002
        """Return the value of a key: this attempt's own if it has set one, else the newest decided.

        A value that can be changed in place is a copy. Changing it without `set` fails the step
        (`StateConflictError`), since the change would be lost.

        Args:
            key: A key of the run's state.
            default: Returned if the key has no value.
            type: The type to decode the value as. By default, that with which it was set; its
                class must then be known to the workflow (`Workflow(types=[...])`).

        Raises:
            SerializationError: The stored value does not fit `type`, or its class is not known to
                the workflow.
        """
        self._check_key(key)
        return self._transaction.get(key, default, () if type is None else (type,))

    def set(self, key: str, value: Any) -> None:
        """Set a key of the run's state. Later changes to the object are not stored.

        Raises:
            SerializationError: The value can't be stored.
        """
        self._check_key(key)
        self._open.set(key, value)

    def delete(self, key: str) -> None:
        """Delete a key of the run's state. Does nothing if it has no value."""
        self._check_key(key)
        self._open.delete(key)

    def update(self, key: str, fn: Callable[[Any], Any], default: Any = None) -> None:
        """Apply a pure function to the newest value of a key when this step commits.

        No update of a concurrent step is lost.

        Args:
            key: A key of the run's state.
            fn: Takes the value and returns the new one. It may be called more than once.
            default: The value that `fn` gets if the key has none.
        """
        self._check_key(key)
        if not callable(fn):
            msg = (  # type: ignore[unreachable]
                f"ctx.update({key!r}, fn): fn must be a function of the value, got {fn!r}"
            )
            raise TypeError(msg)
        self._open.update(key, fn, default)

    # Events

    def send(self, event: Any) -> None:
        """Send an event, or a `Delayed` one, as an output of this step; it is routed at the commit.

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
        """Publish an event to the run's observers at once.

        Publishing is not part of the transaction: if the step is run again, so is this.
        """
        if not isinstance(event, Event):
            msg = f"ctx.publish() takes an event, got {event!r:.80}"  # type: ignore[unreachable]
            raise TypeError(msg)
        publish = self._core.broadcast.publish
        if trio.lowlevel.in_trio_task():
            publish(event)
        else:
            trio.from_thread.run_sync(publish, event)

    def collect(self, event: Event, expected: Sequence[type[Event]]) -> list[Event] | None:
        """Put an event into a buffer, and return a complete set of events once there is one.

        Each run has one buffer per step and list of classes, first in, first out. Surplus events
        stay. The events of a complete set are consumed when the step commits, and only then.

        Args:
            event: The event, usually the one that the step was called with.
            expected: The classes of a complete set; repeat a class to require several of it.

        Returns:
            The events, in the order of `expected`; `None` until the set is complete; `[]` if
            `expected` is empty.

        Raises:
            ValueError: This attempt has put another event into that buffer.
        """
        if not isinstance(event, Event):
            msg = f"ctx.collect() takes an event, got {event!r:.80}"  # type: ignore[unreachable]
            raise TypeError(msg)
        return self._open.collect(event, expected)

    @property
    def _open(self) -> Transaction:
        if self._transaction.closed:
            msg = (
                f"the context of step {self.step_name!r} was used after the step had ended, "
                "so the change would be lost. "
                "Wait in the step for every task that uses its context"
            )
            raise RuntimeError(msg)
        return self._transaction

    def _check_key(self, key: str) -> None:
        if type(key) is not str:
            msg = f"a key of the run's state must be a str, got {key!r:.80}"
            raise TypeError(msg)
        if not is_unicode(key):
            subject = f"state key {key!r:.80}"
            msg = f"the {subject} contains lone surrogates, which can't be stored: remove them"
            raise SerializationError(msg, subject=subject)
