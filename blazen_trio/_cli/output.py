"""What a command says while it works, on stderr: lines for people, of which those that go on are
indented, or one JSON object a line; without passwords, and without what acts on a terminal.
"""

from __future__ import annotations

import datetime as dt
import logging
import sys
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from blazen_trio._cli.escapes import clean, json_line
from blazen_trio._cli.secrets import hide_passwords

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["LEVELS", "logging_to", "make_handler", "say"]

LEVELS = ("debug", "info", "warning", "error", "critical")
_NAME = "blazen_trio.cli"
_CONTINUED = "\n  "


def make_handler(
    *, as_json: bool, url: str | None, stream: IO[Any] | None = None, plain: str = "blazen-trio: "
) -> logging.Handler:
    """What writes log records, and what `say` is told, to stderr.

    Args:
        as_json: One JSON object a line: `time` (UTC, ISO 8601), `level`, `logger`, `message`; `run_id`, `workflow` and `step` where
            it is about them; `event` and its fields where it is a line of the command's own; `exception` where there is one.
        url: The database's URL, whose passwords are hidden wherever they stand.
        stream: Somewhere else than stderr.
        plain: How a line for people begins, with the record's `{time}`, `{level}` and `{name}`.
    """
    stream = stream or sys.stderr
    encoding = getattr(stream, "encoding", None) or "utf-8"  # one in memory has none
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Json(url, encoding) if as_json else _Plain(url, plain))
    return handler


def say(
    handler: logging.Handler,
    event: str,
    text: str,
    *,
    level: int = logging.INFO,
    fields: Mapping[str, Any] | None = None,
    details: str | None = None,
) -> None:
    """Write a line of the command's own, whatever the log's level is.

    Args:
        handler: Where to.
        event: What it is, for machines.
        text: What it is, for people.
        level: As for a log record.
        fields: More for machines; the text has it too.
        details: A traceback.
    """
    record = logging.LogRecord(_NAME, level, "", 0, text, None, None)
    record.event, record.fields, record.exc_text = event, dict(fields or {}), details
    handler.handle(record)


@contextmanager
def logging_to(handler: logging.Handler, level: str) -> Iterator[None]:
    """Give this handler what the process logs, from this level on, for as long as the block lasts."""
    root, migrations = logging.getLogger(), logging.getLogger("alembic")
    before = root.level, migrations.level
    handler.setLevel(
        level.upper()
    )  # also for what a logger of a lower level of its own lets through
    root.addHandler(handler)
    root.setLevel(level.upper())
    # What it tells at "info" are its inner affairs.
    migrations.setLevel(
        max(root.level, logging.WARNING) if root.level > logging.DEBUG else logging.DEBUG
    )
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before[0])
        migrations.setLevel(before[1])


class _Formatter(logging.Formatter):
    def __init__(self, url: str | None) -> None:
        super().__init__()
        self._url = url

    def hide(self, value: Any) -> Any:
        return hide_passwords(value, self._url) if isinstance(value, str) else value

    def exception(self, record: logging.LogRecord) -> str | None:
        """A record's traceback."""
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        return record.exc_text


def _time(record: logging.LogRecord) -> str:
    return (
        dt.datetime.fromtimestamp(record.created, dt.UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


class _Plain(_Formatter):
    def __init__(self, url: str | None, pattern: str) -> None:
        super().__init__(url)
        self._pattern = pattern

    def format(self, record: logging.LogRecord) -> str:
        details = self.exception(record)
        begin = self._begin(record)
        told = f"{begin}{record.getMessage()}" + (f"\n{details.rstrip()}" if details else "")
        told = clean(hide_passwords(told, self._url), lines=True)
        # What begins at the margin is a record, whoever wrote the text of another.
        return told.replace("\n", _CONTINUED)

    def _begin(self, record: logging.LogRecord) -> str:
        return self._pattern.format(
            time=_time(record), level=record.levelname.lower(), name=record.name
        )


class _Json(_Formatter):
    def __init__(self, url: str | None, encoding: str | None) -> None:
        super().__init__(url)
        self._encoding = encoding

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if event := getattr(record, "event", None):
            line["event"] = event
        line["message"] = record.getMessage()
        about = ((name, getattr(record, name, None)) for name in ("run_id", "workflow", "step"))
        line |= {name: value for name, value in about if value is not None}
        fields = getattr(record, "fields", None)
        line |= fields if isinstance(fields, dict) and event else {}
        if details := self.exception(record):
            line["exception"] = details
        shown = {key: self.hide(value) for key, value in line.items()}
        return json_line(shown, self._encoding, default=lambda value: self.hide(str(value)))
