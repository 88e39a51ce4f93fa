"""The transition table: what the code checks, and what the documentation shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from blazen_trio import RunStatus
from blazen_trio._state.status import TRANSITIONS, check, mermaid


def test_the_diagram_in_the_documentation_is_the_tables() -> None:
    page = Path(__file__).parents[2] / "docs" / "state-machine.md"
    assert f"```mermaid\n{mermaid()}\n```" in page.read_text()


def test_every_status_but_the_first_is_reached_and_all_but_completed_are_left() -> None:
    reached = {target for _, target in TRANSITIONS.values()}
    left = {source for sources, _ in TRANSITIONS.values() for source in sources}
    assert set(RunStatus) - reached == {RunStatus.QUEUED}
    assert set(RunStatus) - left == {RunStatus.COMPLETED}


@pytest.mark.parametrize("kind", ["paused", "resumed", "failed", "committed", "nonsense"])
def test_a_completed_run_stays_so(kind: str) -> None:
    with pytest.raises(AssertionError, match="completed"):
        check(kind, RunStatus.COMPLETED, RunStatus.RUNNING)
