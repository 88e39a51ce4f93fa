"""Keeping the passwords of database URLs out of everything that is printed."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote, unquote_plus

__all__ = ["HIDDEN", "hide_passwords"]

HIDDEN = "***"

# To the last "@", as a password may hold one that ought to have been written as %40.
_IN_URLS = re.compile(r"(://[^:/@\s]*):[^\s'\"]*@")
_IN_QUERIES = re.compile(r"(?i)([?&][a-z_]*passw(?:or)?d=)[^&\s'\"]*")
_SHORTEST = 2  # what is shorter is in every other word, and protects nothing


def hide_passwords(text: str, url: str | None = None) -> str:
    """The text without the passwords of URLs in it, and without those of this URL, wherever they stand."""
    for secret in _secrets(url or ""):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)
    return _IN_QUERIES.sub(rf"\1{HIDDEN}", _IN_URLS.sub(rf"\1:{HIDDEN}@", text))


@lru_cache(maxsize=4)
def _secrets(url: str) -> tuple[str, ...]:
    """A URL's passwords, the longest first: as they are written there, as they are meant, and the pieces that a driver takes for
    parts of the URL where they were written wrongly.
    """
    found: set[str] = set()
    before, at, _ = url.rpartition("@")
    if at:
        # The user's name ends at the first colon; there may be no "//" in a URL that is none.
        password = (
            before.partition("://")[2].partition(":")[2]
            if "://" in before
            else before.rpartition(":")[2]
        )
        found |= {password, *re.split(r"[@:/]", password)}
    for match in _IN_QUERIES.finditer(url):
        found.add(match[0].removeprefix(match[1]))
    found |= {decode(secret) for secret in found for decode in (unquote, unquote_plus)}
    return tuple(sorted((one for one in found if len(one) >= _SHORTEST), key=len, reverse=True))
