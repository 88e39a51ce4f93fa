"""The text of things that users made."""

from __future__ import annotations

__all__ = ["text_of"]


def text_of(value: object) -> str:
    """What `str` tells of it, as text that can always be stored: an exception's message may hold what is not Unicode (part
    of a file's name, say), and its `__str__` may itself fail.
    """
    try:
        text = str(value)
    except Exception as error:  # noqa: BLE001  # it is being told of a failure already
        return f"({type(value).__name__}.__str__ failed: {type(error).__name__})"
    return text.encode("utf-8", "backslashreplace").decode()
