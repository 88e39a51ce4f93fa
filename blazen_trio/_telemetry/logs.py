"""The engine's log: the history of runs as records of the standard logger `blazen_trio`."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Final

from blazen_trio._state.safe_text import escaped

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LEVELS", "about", "log_record", "logger"]

logger = logging.getLogger("blazen_trio")

LEVELS: Final[Mapping[str, int]] = {
    "workflow_started": logging.INFO,
    "workflow_resumed": logging.INFO,
    "workflow_paused": logging.INFO,
    "workflow_completed": logging.INFO,
    "workflow_cancelled": logging.INFO,
    "workflow_failed": logging.ERROR,
    "workflow_timed_out": logging.WARNING,
    "step_dispatched": logging.DEBUG,
    "step_completed": logging.DEBUG,
    "step_failed": logging.INFO,
    "step_retried": logging.INFO,
    "event_received": logging.DEBUG,
    "event_rejected": logging.WARNING,
    "input_requested": logging.INFO,
    "input_received": logging.INFO,
}
"""The log levels of the kinds of history records.

Expected occurrences, such as an attempt that fails and is retried, are not warnings.
"""


class _OneLine(logging.Filter):
    """A filter that escapes unprintable characters, so that each message stays on one line.

    Event names, error texts and ids can come from any sender. With a line break in one, its sender
    could forge the next line of the log; with control characters, act on a terminal.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if not text.isprintable():
            record.msg, record.args = escaped(text), ()
        fields = vars(record)
        for name in about():  # a log format may contain these fields
            if isinstance(value := fields.get(name), str) and not value.isprintable():
                fields[name] = escaped(value)
        return True


logger.addFilter(_OneLine())


def about(
    run_id: str | None = None, workflow: str | None = None, step: str | None = None
) -> dict[str, str | None]:
    """Return the attributes that every record of this logger has; `None` if one does not apply."""
    return {"run_id": run_id, "workflow": workflow, "step": step}


def log_record(
    run: tuple[str, str],
    kind: str,
    *,
    step: str | None = None,
    event_type: str | None = None,
    duration: float | None = None,
    error: str | None = None,
    cause: BaseException | None = None,
) -> None:
    """Log a history record, with the traceback of `cause`.

    Args:
        run: The run's id, and its workflow's name.
        kind: The kind of the record.
        step: The step concerned.
        event_type: The type of the event concerned.
        duration: The duration in seconds.
        error: A description of the error.
        cause: The exception.
    """
    run_id, workflow = run
    subject, _, verb = kind.partition("_")
    text = f"run {run_id!r}: {subject}"
    if subject == "step":
        text += f" {step!r}"
    text += f" {verb.replace('_', ' ')}"
    if event_type is not None:
        text += f", {event_type}"
    if duration is not None:
        text += f", {duration:.3f} s"
    if error is not None:
        text += f": {error}"
    logger.log(
        LEVELS[kind], "%s", text, exc_info=_writable(cause), extra=about(run_id, workflow, step)
    )


def _writable(cause: BaseException | None) -> BaseException | None:
    """Return an exception if its traceback can be formatted, else `None`.

    A log handler that fails on a user's exception would raise, or print its own failure, in the
    middle of the run.
    """
    if cause is not None:
        try:
            traceback.format_exception(cause)
        except Exception:  # noqa: BLE001  # formatting may call any method of the exception
            return None
    return cause
