"""The text of things that users made."""

from __future__ import annotations

import traceback
from typing import Final

__all__ = ["escaped", "text_of", "traceback_of"]

_FRAMES: Final = 50
"""Of each exception, the innermost."""
_BYTES: Final = 16 * 1024
_ENGINE: Final = ("blazen_trio", "outcome", "trio")


def text_of(value: object) -> str:
    """Return what `str` tells of it, as text that every database takes.

    An exception's message may hold NUL, or what is not Unicode (part of a file's name, say), and
    its `__str__` may itself fail.
    """
    try:
        text = str(value)
    except Exception as error:  # noqa: BLE001  # it is being told of a failure already
        return f"({type(value).__name__}.__str__ failed: {type(error).__name__})"
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def escaped(text: str) -> str:
    """Return the text with escapes for all that is not printable, line ends among them."""
    acting = {one for one in set(text) if not one.isprintable()}
    return text.translate({ord(one): one.encode("unicode_escape").decode() for one in acting})


def traceback_of(error: BaseException) -> str:
    """The traceback of what a user's code raised, with its causes, as text that can always be
    stored: from the user's first frame on, of a long one the end. It tells lines of code, and no
    variable's value.
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
        return f"(the traceback of a {type(error).__name__} can't be told: {type(fault).__name__})"
    if len(data) > _BYTES:
        data = b"...\n" + data[-_BYTES:]
    return data.decode("utf-8", "ignore")
