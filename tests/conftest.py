"""Makes the tests fit for several processes: their reports can be sent, and Ctrl-C ends them all."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Escape lone surrogates: pytest-xdist sends UTF-8, and a log or a message may hold them."""
    return _escaped((yield))


def pytest_keyboard_interrupt() -> None:
    """Give the other processes 2 seconds to clean up after Ctrl-C, instead of pytest-xdist's 10."""
    if (manager := sys.modules.get("xdist.workermanage")) is not None:
        manager.NodeManager.EXIT_TIMEOUT = 2


def _escaped(data: Any) -> Any:
    if isinstance(data, str):
        return data.encode(errors="backslashreplace").decode()
    if isinstance(data, dict):
        return {_escaped(key): _escaped(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return type(data)(map(_escaped, data))
    return data
