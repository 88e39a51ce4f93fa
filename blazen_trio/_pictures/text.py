"""A workflow's graph as text for other programs: Mermaid and Graphviz."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from blazen_trio._pictures.happened import STATUSES
from blazen_trio._pictures.svg import clean

if TYPE_CHECKING:
    from blazen_trio._pictures.graph import Node, WorkflowGraph

__all__ = ["to_dot", "to_mermaid"]

_LINKS: Final = {"fan_out": "==>", "fan_in": "==>", "ask": "-.->", "fail": "-.->"}
_LABELS: Final = {"fan_out": "list", "fan_in": "list"}
_COLOURS: Final = {
    "done": ("#dafbe1", "#1a7f37"),
    "failed": ("#ffdcd7", "#cf222e"),
    "undone": ("#ddf4ff", "#0969da"),
    "waiting": ("#fff3c4", "#9a6700"),
    "retrying": ("#ffe6cc", "#bc4c00"),
    "untouched": ("#f6f8fa", "#8c959f"),
}
"""Fill and border by status; the text on them is black, on any background."""
_STYLES: Final = {
    "undone": "stroke-width:3px",
    "failed": "stroke-width:3px",
    "retrying": "stroke-dasharray:5 3",
}


def to_mermaid(graph: WorkflowGraph) -> str:
    """Return the graph as a Mermaid flowchart."""
    ids = {id_: f"n{index}" for index, id_ in enumerate(graph.nodes)}
    lines = [
        "flowchart TD",
        f"  accTitle: {_mermaid_line(graph.title)}",
        f"  accDescr: {_mermaid_line(graph.summary)}",
    ]
    for id_, node in graph.nodes.items():
        text = "<br/>".join(map(_mermaid_text, _told(node)))
        shape = f'["{text}"]' if node.kind == "step" else f'(["{text}"])'
        lines.append(f"  {ids[id_]}{shape}" + (f":::{node.status}" if node.status else ""))
    for edge in graph.edges:
        label = f'|"{_LABELS[edge.kind]}"|' if edge.kind in _LABELS else ""
        lines.append(
            f"  {ids[edge.source]} {_LINKS.get(edge.kind, '-->')}{label} {ids[edge.target]}"
        )
    untaken = [str(index) for index, edge in enumerate(graph.edges) if edge.taken is False]
    if untaken:
        lines.append(f"  linkStyle {','.join(untaken)} opacity:0.35")
    for status in _statuses(graph):
        fill, border = _COLOURS[status]
        more = f",{_STYLES[status]}" if status in _STYLES else ""
        lines.append(f"  classDef {status} fill:{fill},stroke:{border},color:#1f2328{more}")
    return "\n".join(lines) + "\n"


def to_dot(graph: WorkflowGraph) -> str:
    """Return the graph as a Graphviz digraph."""
    lines = [
        "digraph {",
        f"  graph [label={_quoted(graph.title)}, labelloc=t, rankdir=TB, bgcolor=white]",
        (
            '  node [fontname="monospace", fontsize=11, style="rounded,filled", '
            'fillcolor="#f6f8fa", shape=box]'
        ),
        '  edge [color="#6e7781", arrowsize=0.7]',
    ]
    for id_, node in graph.nodes.items():
        fill, border = _COLOURS.get(
            node.status or "", ("#ddf4ff" if node.kind == "step" else "#f6f8fa", "#0969da")
        )
        label = "\\n".join(map(_dot_text, _told(node)))
        shape = (
            ""
            if node.kind == "step"
            else ", margin=0.05, height=0.3, penwidth="
            + ("2" if node.kind in ("start", "stop") else "0.7")
        )
        lines.append(
            f'  {_quoted(id_)} [label="{label}", fillcolor="{fill}", color="{border}"{shape}]'
        )
    for edge in graph.edges:
        style = {"==>": "penwidth=3", "-.->": "style=dashed"}.get(_LINKS.get(edge.kind, ""), "")
        faint = 'color="#d0d7de"' if edge.taken is False else ""
        attributes = ", ".join(filter(None, (style, faint)))
        lines.append(
            f"  {_quoted(edge.source)} -> {_quoted(edge.target)}"
            + (f" [{attributes}]" if attributes else "")
        )
    return "\n".join([*lines, "}"]) + "\n"


def _statuses(graph: WorkflowGraph) -> list[str]:
    there = {node.status for node in graph.nodes.values()}
    return [status for status in STATUSES if status in there]


def _told(node: Node) -> list[str]:
    lines = [node.name, ", ".join(node.notes), *node.happened]
    if node.status not in (None, "done", "untouched"):
        lines.append(STATUSES[node.status])
    return [clean(line) for line in lines if line]


def _mermaid_text(text: str) -> str:
    """Escape special characters as entities, so that no text is markup or ends the label."""
    return re.sub(r"[^\w .,:()/+-]|^[\d+-]", lambda found: f"#{ord(found[0])};", text)


def _mermaid_line(text: str) -> str:
    return re.sub(r"[;#{}%]", " ", clean(text))


def _quoted(text: str) -> str:
    return f'"{_dot_text(clean(text))}"'


def _dot_text(text: str) -> str:
    """Escape a text: Graphviz has escapes of its own in labels, and entities in any string."""
    return text.replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')
