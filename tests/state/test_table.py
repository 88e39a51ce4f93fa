"""The transition table, which the code checks and the documentation shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from blazen_trio import RunStatus
from blazen_trio._state.status import TRANSITIONS, check, mermaid


def test_the_documentation_shows_the_diagram_of_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "state-machine.md"
    assert f"```mermaid\n{mermaid()}\n```" in page.read_text()


def test_only_queued_is_never_entered_and_only_completed_is_never_left() -> None:
    reached = {target for _, target in TRANSITIONS.values()}
    left = {source for sources, _ in TRANSITIONS.values() for source in sources}
    assert set(RunStatus) - reached == {RunStatus.QUEUED}
    assert set(RunStatus) - left == {RunStatus.COMPLETED}


@pytest.mark.parametrize("kind", ["paused", "resumed", "failed", "committed", "nonsense"])
def test_no_transition_leaves_completed(kind: str) -> None:
    with pytest.raises(AssertionError, match="completed"):
        check(kind, RunStatus.COMPLETED, RunStatus.RUNNING)
