"""Storable texts of values and exceptions from users' code."""

from __future__ import annotations

import traceback
from typing import Final

__all__ = ["escaped", "text_of", "traceback_of"]

_FRAMES: Final = 50
"""Frames to keep of each exception: the innermost ones."""
_BYTES: Final = 16 * 1024
_ENGINE: Final = ("blazen_trio", "outcome", "trio")


def text_of(value: object) -> str:
    """Return `str(value)` as text that every database can store.

    The message of an exception may contain NUL, or lone surrogates (from a file name, say), and its
    `__str__` may itself fail.
    """
    try:
        text = str(value)
    except Exception as error:  # noqa: BLE001  # must not hide the failure that is being reported
        return f"({type(value).__name__}.__str__ failed: {type(error).__name__})"
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def escaped(text: str) -> str:
    """Escape every character that is not printable, including line ends."""
    acting = {one for one in set(text) if not one.isprintable()}
    return text.translate({ord(one): one.encode("unicode_escape").decode() for one in acting})


def traceback_of(error: BaseException) -> str:
    """Format the traceback of an exception from a user's code, with its causes, as storable text.

    It starts at the first frame outside the engine. A long one is cut to its end. It shows lines of
    code, but no values of variables.
    """
    trace = error.__traceback__
    while (
        trace is not None
        and str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0] in _ENGINE
    ):
        trace = trace.tb_next
    try:
        told = traceback.TracebackException(type(error), error, trace, limit=-_FRAMES, compact=True)
        data = "".join(told.format()).encode("utf-8", "backslashreplace")
    except Exception as fault:  # noqa: BLE001  # as above
        return f"(no traceback of {type(error).__name__}: {type(fault).__name__} in formatting it)"
    if len(data) > _BYTES:
        data = b"...\n" + data[-_BYTES:]
    return data.decode("utf-8", "ignore")
