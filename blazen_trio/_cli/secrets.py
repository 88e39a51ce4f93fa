"""Keeping the passwords of database URLs out of everything that is printed."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote, unquote_plus

__all__ = ["HIDDEN", "hide_passwords"]

HIDDEN = "***"

_USERS = re.compile(r"://(?!\[[0-9a-fA-F:.%]*\])[^:/\s]*:")
"""What is before a password, and before a port; no address of IPv6, which has colons itself."""
_PORTS = re.compile(r"\d{1,5}(?![^\s/?#,;.)\]}>'\"])")
_QUOTED = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
# In queries of URLs, and in what libpq and Python's calls are given.
_NAMED = re.compile(rf"(?i)(passw(?:or)?d=)({_QUOTED}|[^&\s]*?(?=['\"),;]{{0,3}}(?:[&\s]|$)))")
_IN_QUERIES = re.compile(r"(?i)[?&][a-z_]*passw(?:or)?d=([^&]*)")
_SHORTEST = 2  # what is shorter is in every other word, and protects nothing


def hide_passwords(text: str, url: str | None = None) -> str:
    """The text without the passwords of URLs in it, and without those of this URL, wherever they
    stand. It takes a time in proportion to the text's length, whatever that holds.
    """
    for secret in _secrets(url or ""):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)
    return _NAMED.sub(rf"\1{HIDDEN}", _without_users_passwords(text))


def _without_users_passwords(text: str) -> str:
    """The text without what is between `://user:` and `@`."""
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
    """Where passwords end. Asked from the left to the right.

    A password may hold whatever ought to have been written as %40 and the like: quotes, slashes,
    spaces, an "@". So it ends at the last "@" of its word; or, if that has none, at the first one
    of the line, up to the next URL. What begins like a port is one, if no "@" follows before the
    next space or quote.

    What is looked for is kept for those who ask next: there may be many in one word or one line.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._found: dict[re.Pattern[str], int] = {}
        self._last: tuple[int, int] = (-1, -1)

    def of(self, begin: int) -> int:
        """Return where the password that begins there ends; its beginning, if there is none."""
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
        """Return where this is next; the text's length, if nowhere."""
        known = self._found.get(what, -1)
        if known < begin:
            match = what.search(self._text, begin)
            known = self._found[what] = match.start() if match else len(self._text)
        return known


_AT, _SPACES, _LINE_ENDS, _URLS = map(re.compile, ("@", r"\s", "[\r\n]", "://"))
_QUOTES_AND_SPACES = re.compile(r"[\s'\"]")


@lru_cache(maxsize=4)
def _secrets(url: str) -> tuple[str, ...]:
    """A URL's passwords, the longest first: as they are written there, as they are meant, and the
    pieces that a driver takes for parts of the URL where they were written wrongly.
    """
    found: set[str] = set()
    before, at, _ = url.rpartition("@")
    if at:
        # The user's name ends at the first colon; there may be no "//" in a URL that is none.
        begin, separator, rest = before.partition("://")
        password = rest.partition(":")[2] if separator else begin.rpartition(":")[2]
        found |= {password, *re.split(r"[@:/]", password)}
    found |= {match[1] for match in _IN_QUERIES.finditer(url)}
    found |= {decode(secret) for secret in found for decode in (unquote, unquote_plus)}
    return tuple(sorted((one for one in found if len(one) >= _SHORTEST), key=len, reverse=True))
