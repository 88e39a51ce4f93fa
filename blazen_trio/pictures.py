"""Timelines of runs.

`Workflow.to_svg`, `Workflow.to_mermaid` and `Workflow.to_dot` draw the graph of a workflow, also
coloured by what happened in a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blazen_trio._pictures.page import draw_page
from blazen_trio._pictures.timeline import draw_timeline

if TYPE_CHECKING:
    from blazen_trio._codec.snapshot import Snapshot
    from blazen_trio._definitions.definition import WorkflowDefinition

__all__ = ["timeline_html", "timeline_svg"]


def timeline_svg(snapshot: Snapshot) -> str:
    """Draw a run's timeline: a bar for each attempt, in rows by step.

    It also shows when the run waited, was paused, or had no driver. Attempts are recorded in the
    history of a run whose workflow has `history=True`; for any other run, the drawing is a sentence
    that says so. If a step has more than 100 attempts at a time, it has a curve of how many were in
    flight instead of bars. So have the steps with the most attempts if there are more than 2,000 in
    all. Long times in which no attempt was under way are drawn shorter, and labelled with their
    length.

    Args:
        snapshot: The run, from `await run.snapshot()` or `await store.load_snapshot(run_id)`.

    Returns:
        A complete SVG document with its own background, for light and dark screens.
    """
    return draw_timeline(snapshot)


def timeline_html(snapshot: Snapshot, workflow: WorkflowDefinition | None = None) -> str:
    """Draw a run as one HTML page, with its status, its timeline and its history as a table.

    The page needs no network and runs no script. If the history has more than 1,000 records, the
    table has the first 500 and the last 500.

    Args:
        snapshot: As for `timeline_svg`.
        workflow: The run's workflow. If given, the page also has its graph, coloured by what
            happened.

    Returns:
        A complete HTML document.

    Raises:
        ValueError: The run belongs to another workflow.
    """
    return draw_page(snapshot, workflow)
