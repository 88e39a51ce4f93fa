"""A run as one self-contained HTML page."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from blazen_trio._pictures.axis import in_words
from blazen_trio._pictures.drawing import draw_graph
from blazen_trio._pictures.happened import graph_of, run_line
from blazen_trio._pictures.svg import clean
from blazen_trio._pictures.timeline import draw_timeline

if TYPE_CHECKING:
    from blazen_trio._codec.snapshot import Snapshot
    from blazen_trio._definitions.definition import WorkflowDefinition
    from blazen_trio._state.entry import HistoryRecord

__all__ = ["draw_page"]

_ENDS_SHOWN: Final = 500
"""The table shows at most this many of the first and of the last records."""
_COLUMNS: Final = (
    "#",
    "Time (UTC)",
    "Since start",
    "Record",
    "Step",
    "Event",
    "Duration",
    "Error",
)
_STYLE: Final = """
:root{color-scheme:light dark}
body{font:14px/1.5 system-ui,sans-serif;margin:1.5rem auto;max-width:70rem;padding:0 1rem;\
overflow-wrap:anywhere}
h1{font-size:1.3rem}h2{font-size:1.05rem;margin-top:2rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem}dd{margin:0}
dt,th{font-weight:600;text-align:left}
pre{white-space:pre-wrap;margin:0}
figure{margin:0;overflow:auto;max-height:90vh}
figure svg{display:block;height:auto}
#wide:checked~figure svg{width:250%;max-width:none}
table{border-collapse:collapse;width:100%;font-size:13px}
th,td{padding:.15rem .5rem;border-bottom:1px solid color-mix(in srgb,currentColor 20%,transparent);\
vertical-align:top}
td{font-variant-numeric:tabular-nums}
tr.bad td{font-weight:600}
.scroll{overflow-x:auto}
"""


def draw_page(snapshot: Snapshot, workflow: WorkflowDefinition | None) -> str:
    """Return the page; it includes the graph if the workflow is given."""
    title = escape(clean(run_line(snapshot)))
    graph = ""
    if workflow is not None:
        drawn = draw_graph(graph_of(workflow, snapshot))
        graph = f"<h2>Graph</h2>\n<figure>{drawn}</figure>\n"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        # Nothing may be loaded or executed, whatever names and errors contain.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{title}</h1>\n{_facts(snapshot)}\n"
        f'<h2>Timeline</h2>\n<input type="checkbox" id="wide"><label for="wide"> Enlarge</label>\n'
        f"<figure>{draw_timeline(snapshot)}</figure>\n"
        f"{graph}{_table(snapshot.history)}</body>\n</html>\n"
    )


def _facts(snapshot: Snapshot) -> str:
    history = snapshot.history
    facts = {
        "Run": snapshot.run_id,
        "Workflow": f"{snapshot.workflow_name}, version {snapshot.workflow_version}",
        "Status": snapshot.status.value,
    }
    if history:
        lasted = (
            max(history[-1].timestamp, history[0].timestamp) - history[0].timestamp
        ).total_seconds()
        facts["Started"] = f"{history[0].timestamp:%Y-%m-%d %H:%M:%S} UTC"
        facts["Last record"] = (
            f"{history[-1].timestamp:%Y-%m-%d %H:%M:%S} UTC, {in_words(lasted)} later"
        )
    facts["Active time"] = in_words(snapshot.elapsed)
    if snapshot.deliveries:
        facts["Pending deliveries"] = f"{len(snapshot.deliveries):,}"
    if snapshot.input_requests:
        facts["Open questions"] = "\n".join(
            getattr(one, "prompt", one.event_type) for one in snapshot.input_requests
        )
    if snapshot.error:
        facts["Error"] = snapshot.error
    rows = "".join(
        f"<dt>{name}</dt><dd><pre>{_text(value)}</pre></dd>" for name, value in facts.items()
    )
    return f"<dl>{rows}</dl>"


def _text(value: str) -> str:
    """Escape a text and keep its lines, unlike in a drawing."""
    return "\n".join(escape(clean(line)) for line in value.splitlines())


def _table(history: tuple[HistoryRecord, ...]) -> str:
    if not history:
        return ""
    left_out = len(history) - 2 * _ENDS_SHOWN
    first = history if left_out <= 0 else history[:_ENDS_SHOWN]
    rows = [_record(record, history[0]) for record in first]
    if left_out > 0:
        rows.append(f'<tr><td colspan="{len(_COLUMNS)}">{left_out:,} records omitted</td></tr>')
        rows += [_record(record, history[0]) for record in history[-_ENDS_SHOWN:]]
    head = "".join(f'<th scope="col">{name}</th>' for name in _COLUMNS)
    body = "\n".join(rows)
    return (
        f'<h2>History</h2>\n<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n"
        "</table></div>\n"
    )


def _record(record: HistoryRecord, first: HistoryRecord) -> str:
    after = (record.timestamp - first.timestamp).total_seconds()
    cells = (
        str(record.sequence),
        f"{record.timestamp:%Y-%m-%d %H:%M:%S.%f}",
        f"-{in_words(-after)}" if after < 0 else in_words(after),
        record.kind,
        record.step or "",
        record.event_type or "",
        "" if record.duration is None else in_words(record.duration),
        record.error or "",
    )
    bad = ' class="bad"' if "failed" in record.kind or "timed_out" in record.kind else ""
    return f"<tr{bad}>" + "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>"
