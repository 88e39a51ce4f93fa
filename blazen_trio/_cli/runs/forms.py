"""JSON forms of runs: the documents that `--json` prints, and that the tables are made from.

Values and events' fields are in the stored form: JSON's own types as they are, others tagged, as in
`{"$datetime": "..."}`.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import orjson

from blazen_trio import DynamicEvent, Snapshot, StopEvent
from blazen_trio._cli.output import hide_passwords
from blazen_trio._codec.codec import PLAIN
from blazen_trio._runtime.remote import open_questions
from blazen_trio._stores.base import fold

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blazen_trio import Event, HistoryRecord, RunInfo
    from blazen_trio._state.model import Payload, RunState, StoredError
    from blazen_trio._stores.protocol import StoredRun

__all__ = ["details_form", "outcome_form", "progress_form", "record_form", "run_form", "time_form"]


def time_form(moment: dt.datetime | None) -> str | None:
    """Format an instant: ISO 8601, UTC."""
    return None if moment is None else moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


def run_form(info: RunInfo) -> dict[str, Any]:
    """Return one line about a run."""
    return {
        "run_id": info.run_id,
        "workflow": info.workflow,
        "version": info.version,
        "status": info.status.value,
        "created": time_form(info.created),
        "updated": time_form(info.updated),
        "error": _text(info.error),
    }


def record_form(record: HistoryRecord) -> dict[str, Any]:
    """Return a record of a run's history."""
    return {
        "sequence": record.sequence,
        "timestamp": time_form(record.timestamp),
        "kind": record.kind,
        "step": record.step,
        "event_type": record.event_type,
        "duration": record.duration,
        "error": _text(record.error),
    }


def outcome_form(stored: StoredRun) -> dict[str, Any]:
    """Return one line about a run, its result or failure, and its open questions."""
    return _outcome(stored, fold(stored, PLAIN))


def progress_form(stored: StoredRun) -> dict[str, Any]:
    """Return one line about a run, and its progress."""
    state = fold(stored, PLAIN)
    undone: dict[str, int] = {}
    for delivery in state.deliveries.values():
        undone[delivery.step] = undone.get(delivery.step, 0) + 1
    return {
        **run_form(stored.info),
        "seq": state.seq,
        "undone": undone,
        "delayed": len(state.delayed),
        "questions": _questions(stored, state),
    }


def details_form(stored: StoredRun) -> dict[str, Any]:
    """Return all details of a run, except its history."""
    state = fold(stored, PLAIN)
    snapshot = Snapshot.from_state(state)
    return {
        **_outcome(stored, state),
        "elapsed": state.elapsed,
        "timeout": state.timeout,
        "seq": state.seq,
        "crashes": stored.crashes,
        "inbox": len(stored.inbox),
        "metadata": _value(state.metadata),
        "state": {key: _value(cell.payload) for key, cell in state.cells.items()},
        "deliveries": [
            {
                "id": one.id,
                "step": one.step,
                "events": _events(one.event),
                "attempt": one.attempt,
                "due": time_form(one.due),
                "fan_out": one.fan_out,
            }
            for one in snapshot.deliveries
        ],
        "delayed": [
            {"event": _event(one.event), "due": time_form(one.due), "fan_out": one.fan_out}
            for one in snapshot.delayed
        ],
        "collected": [
            {
                "step": one.step,
                "event": _event(one.event),
                "types": list(one.types),
                "fan_out": one.fan_out,
            }
            for one in snapshot.collected
        ],
        "fan_outs": [
            {"id": one.id, "joins": list(one.joins), "live": one.live} for one in snapshot.fan_outs
        ],
    }


def _outcome(stored: StoredRun, state: RunState) -> dict[str, Any]:
    return {
        **run_form(stored.info),
        "result": None if state.stop is None else _result(state.stop),
        "failure": None if state.error is None else _failure(state.error),
        "questions": _questions(stored, state),
    }


def _failure(error: StoredError) -> dict[str, Any]:
    return {
        "kind": error.kind,
        "message": _text(error.message),
        "step": error.step or None,
        "attempts": error.attempts or None,
        "error_type": error.error_type or None,
        "details": [_text(one) for one in error.details],
        "traceback": _text(error.traceback or None),
    }


def _questions(stored: StoredRun, state: RunState) -> list[dict[str, Any]]:
    return [
        {
            "request_id": one.request_id,
            "event_type": state.questions[one.request_id].event.event_type,
            "prompt": one.prompt,
            "metadata": one.metadata,
        }
        for one in open_questions(state, stored)
    ]


def _result(stop: Event) -> Any:
    """Return the result of `Workflow.run`: that of a plain `StopEvent`, or another stop event."""
    if (
        isinstance(stop, DynamicEvent)
        and stop.event_type == StopEvent.event_type
        and "result" in stop.data
    ):
        return stop.data["result"]
    return _event(stop)


def _event(event: Event) -> dict[str, Any]:
    assert isinstance(event, DynamicEvent), "nothing was decoded with a class"
    return {"event_type": event.event_type, "data": event.data}


def _events(event: Event | Iterable[Event]) -> list[dict[str, Any]]:
    """Return the events of a delivery: one, or a list of them for a join."""
    if isinstance(event, tuple):
        return [_event(one) for one in event]
    return [_event(event)]  # type: ignore[arg-type]


def _value(payload: Payload) -> Any:
    return orjson.loads(payload.data)


def _text(text: str | None) -> str | None:
    """Return an error's text without passwords: a failed connection may report its URL."""
    return None if text is None else hide_passwords(text)
