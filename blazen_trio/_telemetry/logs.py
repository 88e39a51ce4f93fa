"""The engine's log: what the history tells of a run, as records of the standard library's logger `blazen_trio`."""

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
"""By the history's kinds. What is expected now and then, such as an attempt that fails and is tried again, is no warning."""


class _OneLine(logging.Filter):
    """Keeps each message on one line, and from acting on a terminal.

    Names of events, errors' texts and ids are whatever somebody sent in. With a line end in it, the
    next line of the log would be theirs.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if not text.isprintable():
            record.msg, record.args = escaped(text), ()
        fields = vars(record)
        for name in about():  # which a format may put anywhere in its line
            if isinstance(value := fields.get(name), str) and not value.isprintable():
                fields[name] = escaped(value)
        return True


logger.addFilter(_OneLine())


def about(
    run_id: str | None = None, workflow: str | None = None, step: str | None = None
) -> dict[str, str | None]:
    """The attributes that every record of this logger has; `None` where they don't apply."""
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
    """Log what a history record tells of a run (its id, its workflow's name); with the traceback of `cause`."""
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
    """Return an exception if its traceback can be written; a handler that fails at one of a user's
    would raise, or print that, in the middle of the run.
    """
    if cause is not None:
        try:
            traceback.format_exception(cause)
        except Exception:  # noqa: BLE001  # any of its methods may be called, and do anything
            return None
    return cause
