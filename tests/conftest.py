"""Hooks that let the tests run in several processes, and let Ctrl-C end all of them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

TOGETHER = {
    # Each of these starts and kills a server of its own, and keeps a machine busy by itself.
    "tests/chaos/": "own servers",
    "tests/benchmarks/test_programs.py::test_syncs_of_a_server": "own servers",
    # Some of these check, over all seeds, which steps the kills of the others hit.
    "tests/kills/": "kills",
    # These share fixtures that are expensive to build.
    "tests/release/test_distributions.py": "distributions",
    "tests/examples/test_web.py": "web",
}
"""Prefixes of test ids, with their groups. One process runs a group's tests one after the other."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Return three processes for two cores, since tests spend much time waiting for a database."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return len(os.sched_getaffinity(0)) * 3 // 2


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each test to the next free process, and all tests of a group to the same one.

    Groups start first. (The marks of `--dist loadgroup` have no effect with pytest 9.2.)
    """
    if config.getvalue("dist") != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            groups = (group for prefix, group in TOGETHER.items() if nodeid.startswith(prefix))
            return next(groups, nodeid)

    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Escape lone surrogates in logs and messages, because pytest-xdist sends UTF-8."""
    return _escaped((yield))


def pytest_unconfigure() -> None:
    """Drop the databases that this process has kept for other tests."""
    if (databases := sys.modules.get("tests.databases")) is not None:
        databases.drop_spare_databases()


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
