"""What others leave in a run's inbox, taken by transitions of their own, each of which deletes its row.

A row is there until the transition that took it is on disk, and whoever looks into the inbox may have looked before that. So the
driver remembers which rows it has taken, until the next look begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from blazen_trio._codec.reader import parse, rubbish
from blazen_trio._definitions.events import Delayed, InputResponseEvent
from blazen_trio._state.texts import text_of
from blazen_trio.errors import InputResponseError, NoHandlerError, SerializationError, WorkflowError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blazen_trio._codec.codec import Codec
    from blazen_trio._definitions.events import Event
    from blazen_trio._dispatch.dispatcher import Dispatcher
    from blazen_trio._state.entry import Entry
    from blazen_trio._stores.protocol import Mail

__all__ = ["CANCEL", "EVENT", "PAUSE", "MailDesk", "answered_in", "pack_event", "pack_reason"]

EVENT: Final = "event"
CANCEL: Final = "cancel"
PAUSE: Final = "pause"

_FORMAT: Final = 1
_LETTER: Final = "letter"


def pack_event(codec: Codec, event: Event | Delayed[Any]) -> bytes:
    """An event on its way to an inbox."""
    seconds = event.seconds if isinstance(event, Delayed) else None
    inner = event.event if isinstance(event, Delayed) else event
    answers = inner.request_id if isinstance(inner, InputResponseEvent) else None
    event_data = orjson.Fragment(codec.encode_event(inner).data)
    return orjson.dumps({"f": _FORMAT, "event": event_data, "seconds": seconds, "answers": answers})


def _unpack_event(codec: Codec, data: bytes) -> Event | Delayed[Event]:
    """The event of a letter.

    Raises:
        SerializationError: It can't be read, or the event does not fit its class; whose `subject` is the event's type then.
    """
    letter = parse(data, _LETTER, "f", _FORMAT)
    event = codec.decode_event(letter.get("event"))  # type: ignore[arg-type]  # what is no event is refused there
    seconds = letter.get("seconds")
    try:
        return event if seconds is None else Delayed(event, seconds)
    except ValueError as error:
        raise rubbish(_LETTER, "seconds", str(error)) from error


def _part_of(data: bytes, part: str) -> str | None:
    """A text in a letter; `None`: there is none, or the letter can't be read."""
    try:
        text = parse(data, _LETTER, "f", _FORMAT).get(part)
    except SerializationError:
        return None
    return text if isinstance(text, str) else None


def answered_in(inbox: Iterable[Mail]) -> set[str]:
    """The ids of the questions whose answers lie in this inbox."""
    answers = (_part_of(mail.data, "answers") for mail in inbox if mail.kind == EVENT)
    return {request_id for request_id in answers if request_id is not None}


def pack_reason(reason: str | None) -> bytes:
    """The reason of a cancellation on its way to an inbox."""
    return orjson.dumps({"f": _FORMAT, "reason": reason})


class MailDesk:
    """Takes the mail of one run."""

    __slots__ = ("_d", "_posting", "_taken", "_taking")

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._d = dispatcher
        self._posting: set[str] = set()
        """The keys of what is being posted here, by who will take it."""
        self._taking: set[int] = set()
        self._taken: set[int] = set()

    @property
    def at_rest(self) -> bool:
        """Whether nothing is being taken, nor was since the last look began."""
        return not (self._posting or self._taking or self._taken)

    def look_begins(self) -> None:
        """Whoever looks into the inbox from now on does not see what was taken before."""
        self._taken.clear()

    # From this process, with a key

    async def post_with_key(self, event: Any, key: str) -> tuple[bool, int | None]:
        """Reserve a sender's key for an event. Returns whether it was free, and the row of the inbox that holds the event, which
        nobody takes but who calls this: by `taken`.
        """
        d = self._d
        assert d.journal is not None
        self._posting.add(key)
        try:
            mail = await d.journal.store.post(d.state.run_id, EVENT, pack_event(d.codec, event), key=key)
            if mail is not None:
                self._taking.add(mail.id)
        finally:
            self._posting.discard(key)
        return mail is not None, None if mail is None else mail.id

    def done(self, mail_id: int | None, *, taken: bool) -> None:
        """The row is on disk as taken; or it is left to whoever looks next."""
        if mail_id is not None:
            self._taking.discard(mail_id)
            if taken:
                self._taken.add(mail_id)

    # As the run is taken up

    def take_up(self, inbox: Iterable[Mail], *, pauses: bool) -> None:
        """Take what is in the inbox of a run that is about to be driven; its entries are recorded, not yet on disk.

        Args:
            inbox: Its rows.
            pauses: Whether the run is to heed a pause that nobody got to; otherwise whoever takes it up has overruled it.
        """
        d = self._d
        assert d.journal is not None
        for mail in inbox:
            self._taken.add(mail.id)
            if mail.kind == PAUSE and not pauses:
                d.journal.record(d.machine.rejected(d.moment()), mail.id)
            elif mail.kind == EVENT:
                d.journal.record(self._event(mail), mail.id)
            else:
                self._request(mail)

    # While it is driven

    async def deliver(self, inbox: Iterable[Mail]) -> None:
        """Take these rows, as far as nobody has; on disk when this returns. Where the run may rest, it is pinned by who calls this."""
        d = self._d
        assert d.journal is not None
        entries: list[Entry] = []
        ids: list[int] = []
        for mail in inbox:
            await d.may_decide()
            if d.over or d.closing or d.at_rest or d.failure is not None:
                break
            if mail.id in self._taking or mail.id in self._taken or mail.key in self._posting:
                continue
            if mail.kind == EVENT:
                self._taking.add(mail.id)
                ids.append(mail.id)
                entries.append(self._event(mail))
                d.journal.record(entries[-1], mail.id)
            else:
                self._taken.add(mail.id)
                self._request(mail)
        if not entries:
            return
        try:
            await d.journal.settle()
        except WorkflowError as failure:
            d.crash(failure)
            return
        for mail_id in ids:
            self.done(mail_id, taken=True)
        for entry in entries:
            d.absorb(entry)
        d.parked = False
        d.wake()

    def _event(self, mail: Mail) -> Entry:
        """Route an event. Its sender is gone, so what nothing accepts, and what can't be read, is noted as rejected, and the run goes
        on. A question that it was to answer stays open.
        """
        d = self._d
        moment = d.moment()
        event_type: str | None = None
        try:
            event = _unpack_event(d.codec, mail.data)
            inner = event.event if isinstance(event, Delayed) else event
            event_type = inner.event_type
            if isinstance(inner, InputResponseEvent):
                entry = d.machine.answered(inner, d.encode, moment)
                kind = "input_received"
            else:
                entry = d.machine.received(event, d.encode, moment)
                kind = "event_received"
        except (NoHandlerError, InputResponseError, SerializationError, ValueError) as refusal:
            if isinstance(refusal, SerializationError) and refusal.subject != _LETTER:
                event_type = refusal.subject or None
            d.recorder.record("event_rejected", moment.at, event_type=event_type, error=text_of(refusal))
            return d.machine.rejected(moment)
        d.recorder.record(kind, moment.at, event_type=event_type)
        return entry

    def _request(self, mail: Mail) -> None:
        """Pause or cancel the run; the entry of that takes the row."""
        d = self._d
        assert d.journal is not None
        if mail.kind == CANCEL:
            d.journal.requests.append(mail.id)
            d.cancel(_part_of(mail.data, "reason"))
        elif mail.kind == PAUSE and not d.paused:
            d.journal.requests.append(mail.id)
            d.holds += 1
            d.dismissed = True
            d.wake()
        else:
            d.journal.record(d.machine.rejected(d.moment()), mail.id)
