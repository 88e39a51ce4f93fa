"""What others leave in a run's inbox, taken by transitions of their own, each of which deletes its row.

The store gives each row once to who drives the run. The dispatcher takes them, a few per turn of the loop, in the order in which
they came; so a flood of mail delays neither the run's own steps nor anybody else. A row of a kind that this version does not
know stays where it is, for a later one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson
import trio

from blazen_trio._codec.reader import parse, rubbish
from blazen_trio._definitions.events import Delayed, InputResponseEvent
from blazen_trio._dispatch.control import Leave, Phase
from blazen_trio._dispatch.transitions import WIDE, absorb_all, complete
from blazen_trio._state.texts import text_of
from blazen_trio._stores.driver import KeyUsedError
from blazen_trio._telemetry.logs import about, logger
from blazen_trio.errors import InputResponseError, NoHandlerError, SerializationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blazen_trio._codec.codec import Codec
    from blazen_trio._definitions.events import Event
    from blazen_trio._dispatch.core import RunCore
    from blazen_trio._state.entry import Entry
    from blazen_trio._stores.driver import Mail
    from blazen_trio._stores.protocol import CheckpointStore

__all__ = [
    "CANCEL",
    "EVENT",
    "PAUSE",
    "RECALL",
    "RESERVED_KEY",
    "Inbox",
    "answer_key",
    "answered_in",
    "pack_event",
    "pack_reason",
    "pack_recall",
    "post_answer",
]

EVENT: Final = "event"
CANCEL: Final = "cancel"
PAUSE: Final = "pause"
RECALL: Final = "recall"
"""Takes a pause back that was asked for, whether or not the run is paused by now."""

_FORMAT: Final = 1
_LETTER: Final = "letter"
_ROWS_PER_TURN: Final = 32
_BYTES_PER_TURN: Final = 2**18
"""Rows, and about so many bytes of them, that are taken between two checkpoints, in one commit."""


def pack_event(codec: Codec, event: Event | Delayed[Any]) -> bytes:
    """Return an event as it lies in an inbox."""
    seconds = event.seconds if isinstance(event, Delayed) else None
    inner = event.event if isinstance(event, Delayed) else event
    answers = inner.request_id if isinstance(inner, InputResponseEvent) else None
    event_data = orjson.Fragment(codec.encode_event(inner).data)
    return orjson.dumps({"f": _FORMAT, "event": event_data, "seconds": seconds, "answers": answers})


def _unpack_event(codec: Codec, data: bytes) -> Event | Delayed[Event]:
    """Return the event of a row.

    Raises:
        SerializationError: It can't be read, or the event does not fit its class; whose `subject` is the event's type then.
    """
    letter = parse(data, _LETTER, "f", _FORMAT)
    event = codec.decode_event(letter.get("event"))  # type: ignore[arg-type]  # what is no event is refused there
    codec.check_event(event)
    seconds = letter.get("seconds")
    try:
        return event if seconds is None else Delayed(event, seconds)
    except ValueError as error:
        raise rubbish(_LETTER, "seconds", str(error)) from error


def _part_of(data: bytes, part: str) -> str | None:
    """Return a text in a row; `None`: there is none, or the row can't be read."""
    try:
        text = parse(data, _LETTER, "f", _FORMAT).get(part)
    except SerializationError:
        return None
    return text if isinstance(text, str) else None


def _number_of(data: bytes) -> int | None:
    try:
        number = parse(data, _LETTER, "f", _FORMAT).get("mail")
    except SerializationError:
        return None
    return number if type(number) is int else None


RESERVED_KEY: Final = "blazen:"
"""How the engine's own keys begin; nobody else's may."""


def answer_key(question_id: int, number: int) -> str:
    """Return the key of an answer: whoever answers a question, in whatever process, posts a row of
    this key, so that the store refuses all but the first.

    Args:
        question_id: The question's own id, which no other question of the run ever has.
        number: How many answers to it were posted before and could not be taken.
    """
    return f"{RESERVED_KEY}answer:{question_id}:{number}"


async def post_answer(  # noqa: ASYNC910  # the store suspends
    store: CheckpointStore,
    run_id: str,
    data: bytes,
    name: str,
    key: str | None,
    connection: Any = None,
) -> bool | None:
    """Post an answer. Return whether it was taken; `None`: there was one of this name before.

    Args:
        store: Where the run is.
        run_id: The run.
        data: The answer, packed.
        name: See `answer_key`.
        key: What its sender has named it besides; where that was used before, it is not taken.
        connection: See `CheckpointStore.post`.
    """
    given = {} if connection is None else {"connection": connection}
    if key is None:
        posted = await store.post(run_id, EVENT, data, key=name, **given)
        return None if posted is None else True
    try:
        posted = await store.post(run_id, EVENT, data, key=key, second_key=name, **given)
    except KeyUsedError:
        return None
    return posted is not None


def answered_in(inbox: Iterable[Mail]) -> set[str]:
    """Return the ids of the questions whose answers lie in this inbox."""
    answers = (_part_of(mail.data, "answers") for mail in inbox if mail.kind == EVENT)
    return {answer for answer in answers if answer is not None}


def pack_reason(reason: str | None) -> bytes:
    """Return the reason of a cancellation as it lies in an inbox."""
    return orjson.dumps({"f": _FORMAT, "reason": reason})


def pack_recall(mail_id: int) -> bytes:
    """Return what takes back the pause of this row, as it lies in an inbox."""
    return orjson.dumps({"f": _FORMAT, "mail": mail_id})


class Inbox:
    """Takes the mail of one run. Only its dispatcher uses this."""

    __slots__ = ("_core",)

    def __init__(self, core: RunCore) -> None:
        self._core = core

    def take_up(self, mail: Iterable[Mail], *, pauses: bool) -> None:
        """Take what lies in the inbox of a run that is about to be driven; its entries are recorded, not yet on disk.

        Args:
            mail: Its rows.
            pauses: Whether the run is to heed a pause that nobody got to; otherwise whoever takes it up has overruled it.
        """
        core = self._core
        assert core.journal is not None
        for each in mail:
            if core.control.ended:
                return
            if each.kind == PAUSE and not pauses:
                core.journal.record(core.machine.rejected(core.moment()), (each.id,))
            else:
                found = self._take(each)
                if found is not None:
                    core.journal.record(*found)

    async def take_some(self) -> None:
        """Take rows that have come, as many as make one commit. They are on disk when this returns."""
        core = self._core
        assert core.inbox is not None
        assert core.journal is not None
        entries: list[Entry] = []
        taken = size = 0
        while core.inbox and taken < _ROWS_PER_TURN and size < _BYTES_PER_TURN:
            await core.may_decide()
            if not core.control.accepts:
                break
            mail = core.inbox.popleft()
            taken, size = taken + 1, size + len(mail.data)
            found = self._take(mail)
            if found is not None:
                entry, rows = found
                if entry.rest is not None:
                    await complete(core, entry)
                core.journal.record(entry, rows)
                entries.append(entry)
        if entries:
            await core.journal.settle()
            for entry in entries:
                await absorb_all(core, entry) if len(entry.effects) > WIDE else core.absorb(
                    entry.effects
                )
            core.woken()
        core.mail_done += taken
        core.changes.notify()
        await trio.lowlevel.checkpoint()

    def _take(self, mail: Mail) -> tuple[Entry, tuple[int, ...]] | None:
        """Return the transition that takes a row, and what it takes; `None`: a later one does, or none."""
        if mail.kind == EVENT:
            return self._event(mail), (mail.id,)
        return self._request(mail)

    def _event(self, mail: Mail) -> Entry:
        """Route an event. Its sender is gone, so what nothing accepts, and what can't be read, is noted as rejected, and the run goes
        on. A question that it was to answer stays open.
        """
        core = self._core
        moment = core.moment()
        event_type: str | None = None
        try:
            event = _unpack_event(core.codec, mail.data)
            inner = event.event if isinstance(event, Delayed) else event
            event_type = inner.event_type
            if isinstance(inner, InputResponseEvent):
                entry = core.machine.answered(inner, core.encode, moment)
                kind = "input_received"
            else:
                entry = core.machine.received(event, core.encode, moment)
                kind = "event_received"
        except (NoHandlerError, InputResponseError, SerializationError, ValueError) as refusal:
            if isinstance(refusal, SerializationError) and refusal.subject != _LETTER:
                event_type = refusal.subject or None
            core.recorder.record(
                "event_rejected", moment.at, event_type=event_type, error=text_of(refusal)
            )
            return core.machine.rejected(moment)
        core.recorder.record(kind, moment.at, event_type=event_type)
        return entry

    def _request(self, mail: Mail) -> tuple[Entry, tuple[int, ...]] | None:
        """Pause or cancel the run; the entry of that takes the row. Return one that takes it, where nothing is to be done."""
        core = self._core
        assert core.journal is not None
        if mail.kind == CANCEL:
            core.journal.requests.append(mail.id)
            core.cancel(_part_of(mail.data, "reason"))
        elif mail.kind == PAUSE and core.control.phase is not Phase.PAUSED:
            core.journal.requests.append(mail.id)
            core.mail_holds = {**(core.mail_holds or {}), mail.id: core.control.hold()}
            if core.host is not None and not core.host.holds(core):
                # Whoever asked may want to go on with it elsewhere. One that somebody here holds is theirs to unpause.
                core.control.leave_at(Leave.AT_REST)
            core.wake()
        elif mail.kind == RECALL:
            return self._recalled(mail)
        elif mail.kind == PAUSE:
            return core.machine.rejected(core.moment()), (mail.id,)
        else:
            what = "run %r: mail of kind %r is left to a later version of blazen_trio"
            logger.warning(
                what,
                core.state.run_id,
                mail.kind,
                extra=about(core.state.run_id, core.state.workflow),
            )
            core.foreign_mail = (*core.foreign_mail, mail.kind)
        return None

    def _recalled(self, mail: Mail) -> tuple[Entry, tuple[int, ...]]:
        """Nobody wants a pause any more that was asked for; its row is taken, too, if the pause has not done so."""
        core = self._core
        assert core.journal is not None
        pause = _number_of(mail.data)
        rows: tuple[int, ...] = (mail.id,)
        if pause is not None and core.mail_holds is not None and pause in core.mail_holds:
            core.control.let_go((core.mail_holds[pause],))
            core.wake()
            if pause in core.journal.requests:
                core.journal.requests.remove(pause)
                rows = (mail.id, pause)
        return core.machine.rejected(core.moment()), rows
