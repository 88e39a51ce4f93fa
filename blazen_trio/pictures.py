"""Pictures of runs: what happened when.

The graph of a workflow, and of what happened where in a run, is drawn by `Workflow.to_svg`, `Workflow.to_mermaid` and
`Workflow.to_dot`.
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
    """A run's timeline: one bar for each attempt, rows by step, and when the run waited, was paused, or nobody drove it.

    The attempts are told by the history of a run whose workflow has `history=True`. Of any other run, the drawing is a
    sentence that says so. A step with more than 100 attempts at a time, and the steps with the most attempts where
    there are more than 2,000 in all, have a curve of how many were in flight instead of bars. Long times in which no attempt was under way are drawn shorter than they were, and say how long.

    Args:
        snapshot: The run, as `await run.snapshot()` or `await store.load_snapshot(run_id)` gives it.

    Returns:
        A whole SVG document, with its own background, for light and dark screens.
    """
    return draw_timeline(snapshot)


def timeline_html(snapshot: Snapshot, workflow: WorkflowDefinition | None = None) -> str:
    """A run as one HTML page: what it is and how it stands, its timeline, and its history as a table.

    The page needs no network and runs no script. Of a history of more than 1,000 records, the table has the first 500 and the
    last 500.

    Args:
        snapshot: As for `timeline_svg`.
        workflow: The run's workflow: the page has its graph too, coloured by what happened.

    Returns:
        A whole HTML document.

    Raises:
        ValueError: The run is another workflow's.
    """
    return draw_page(snapshot, workflow)
