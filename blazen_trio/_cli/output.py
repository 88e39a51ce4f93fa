"""Output of commands: log lines on stderr, and the cleaning of everything that is printed.

Lines for people have continuation lines indented; with `--json`, each line is a JSON object. In all
output, the passwords of database URLs are hidden, control characters are replaced, and characters
that the stream can't encode are escaped.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import shlex
import sys
from contextlib import contextmanager
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote, unquote_plus

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "HIDDEN",
    "LEVELS",
    "clean",
    "hide_passwords",
    "json_line",
    "logging_to",
    "make_handler",
    "quoted",
    "say",
]


HIDDEN = "***"

_USERS = re.compile(r"://(?!\[[0-9a-fA-F:.%]*\])[^:/\s]*:")
"""The text before a password or a port; not an IPv6 address, which has colons of its own."""
_PORTS = re.compile(r"\d{1,5}(?![^\s/?#,;.)\]}>'\"])")
_QUOTED = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
# In queries of URLs, in libpq's connection strings, and in arguments of Python calls.
_NAMED = re.compile(rf"(?i)(passw(?:or)?d=)({_QUOTED}|[^&\s]*?(?=['\"),;]{{0,3}}(?:[&\s]|$)))")
_IN_QUERIES = re.compile(r"(?i)[?&][a-z_]*passw(?:or)?d=([^&]*)")
_SHORTEST = 2  # a shorter password occurs in every other word, and protects nothing


def hide_passwords(text: str, url: str | None = None) -> str:
    """Return the text with the passwords of URLs hidden, and those of this URL everywhere.

    It takes time in proportion to the text's length, whatever the text contains.
    """
    for secret in _secrets(url or ""):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)
    return _NAMED.sub(rf"\1{HIDDEN}", _without_users_passwords(text))


def _without_users_passwords(text: str) -> str:
    """Return the text with everything between `://user:` and `@` hidden."""
    ends = _Ends(text)
    parts: list[str] = []
    done = 0
    for match in _USERS.finditer(text):
        begin = match.end()
        if begin > done and (end := ends.of(begin)) > begin:
            parts += text[done:begin], HIDDEN
            done = end
    return "".join((*parts, text[done:]))


class _Ends:
    """Finds the ends of passwords. Must be asked from left to right.

    A password may contain characters that should have been written as %40 and the like: quotes,
    slashes, spaces, an "@". It therefore ends at the last "@" of its word; or, if there is none, at
    the first one of the line, up to the next URL. Text that starts like a port is one, unless an
    "@" follows before the next space or quote.

    Positions that were found are cached: there may be many passwords in one word or line.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._found: dict[re.Pattern[str], int] = {}
        self._last: tuple[int, int] = (-1, -1)

    def of(self, begin: int) -> int:
        """Return the end of the password that starts at `begin`; `begin` if there is none."""
        text = self._text
        if begin == len(text) or text[begin].isspace():
            return begin
        if _PORTS.match(text, begin):
            at = self._next(_AT, begin)
            return at if at < self._next(_QUOTES_AND_SPACES, begin) else begin
        word = self._next(_SPACES, begin)
        if self._last[0] != word:
            self._last = word, text.rfind("@", begin, word)
        if self._last[1] > begin:
            return self._last[1]
        at = self._next(_AT, begin)
        return at if at < min(self._next(_LINE_ENDS, begin), self._next(_URLS, begin)) else begin

    def _next(self, what: re.Pattern[str], begin: int) -> int:
        """Return the position of the next match; the text's length if there is none."""
        known = self._found.get(what, -1)
        if known < begin:
            match = what.search(self._text, begin)
            known = self._found[what] = match.start() if match else len(self._text)
        return known


_AT, _SPACES, _LINE_ENDS, _URLS = map(re.compile, ("@", r"\s", "[\r\n]", "://"))
_QUOTES_AND_SPACES = re.compile(r"[\s'\"]")


@lru_cache(maxsize=4)
def _secrets(url: str) -> tuple[str, ...]:
    """Return a URL's passwords, longest first.

    They are included as written, decoded, and in the pieces that a driver takes for parts of the
    URL if the password was not escaped.
    """
    found: set[str] = set()
    before, at, _ = url.rpartition("@")
    if at:
        # The user's name ends at the first colon; an invalid URL may have no "//".
        begin, separator, rest = before.partition("://")
        password = rest.partition(":")[2] if separator else begin.rpartition(":")[2]
        found |= {password, *re.split(r"[@:/]", password)}
    found |= {match[1] for match in _IN_QUERIES.finditer(url)}
    found |= {decode(secret) for secret in found for decode in (unquote, unquote_plus)}
    return tuple(sorted((one for one in found if len(one) >= _SHORTEST), key=len, reverse=True))


def clean(text: str, *, lines: bool = False) -> str:
    """Return text without control characters, on one line or with its line ends.

    Args:
        text: Text from a database or an error, which may contain terminal control sequences.
        lines: Whether to keep its line ends.
    """
    if text.isprintable():
        return text
    # By distinct characters, of which a long text has few.
    acting = {one for one in set(text) if not one.isprintable()} - ({"\n"} if lines else set())
    return text.translate({ord(one): " " if one.isspace() else _escaped(one) for one in acting})


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def json_line(document: Any, encoding: str | None, **settings: Any) -> str:
    """Return JSON on one line without control characters, in characters of this encoding.

    JSON itself escapes only ASCII's control characters. There are more: U+009B starts a command as
    ESC [ does, U+202E reverses the line, U+2028 ends it.

    Args:
        document: The document.
        encoding: The stream's encoding.
        settings: Further arguments for `json.dumps`.
    """
    text = json.dumps(document, ensure_ascii=False, **settings)
    acting = [one for one in set(text) if not one.isprintable()]
    if acting:
        # They can only be in strings: outside of those, JSON is printable.
        text = text.translate({ord(one): json.dumps(one)[1:-1] for one in acting})
    try:
        text.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return json.dumps(document, **settings)
    return text


def quoted(text: str) -> str:
    """Quote a text as a word of a command that can be pasted into a shell."""
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(_in_quotes, text))}'"


def _in_quotes(character: str) -> str:
    if character.isprintable():
        return f"\\{character}" if character in "\\'" else character
    return f"\\U{ord(character):08x}"


LEVELS = ("debug", "info", "warning", "error", "critical")
_NAME = "blazen_trio.cli"
_CONTINUED = "\n  "


def make_handler(
    *, as_json: bool, url: str | None, stream: IO[Any] | None = None, plain: str = "blazen-trio: "
) -> logging.Handler:
    """Make a handler that writes log records, and the lines of `say`, to stderr.

    Args:
        as_json: Write one JSON object per line: `time` (UTC, ISO 8601), `level`, `logger`,
            `message`; `run_id`, `workflow` and `step` if the record is about them; `event` and its
            fields for a line of the command's own; `exception` if there is one.
        url: The database's URL, whose passwords are hidden wherever they occur.
        stream: A stream to write to instead of stderr.
        plain: The start of a line for people, with the record's `{time}`, `{level}` and `{name}`.
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
        fields: Further fields for machines; the text contains their values too.
        details: A traceback.
    """
    record = logging.LogRecord(_NAME, level, "", 0, text, None, None)
    record.event, record.fields, record.exc_text = event, dict(fields or {}), details
    handler.handle(record)


@contextmanager
def logging_to(handler: logging.Handler, level: str) -> Iterator[None]:
    """Send the process's log records from this level on to this handler while the block runs."""
    root, migrations = logging.getLogger(), logging.getLogger("alembic")
    before = root.level, migrations.level
    # Also on the handler: a logger may have a lower level of its own.
    handler.setLevel(level.upper())
    root.addHandler(handler)
    root.setLevel(level.upper())
    # Alembic's records at "info" are internal details.
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
        """Return a record's traceback."""
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
        # Continuation lines are indented, so that no text can imitate another record.
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
