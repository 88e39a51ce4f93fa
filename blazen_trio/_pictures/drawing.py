"""A workflow's graph as SVG."""

from __future__ import annotations

import itertools
from html import escape
from typing import TYPE_CHECKING, Final

import attrs

from blazen_trio._pictures.happened import STATUSES
from blazen_trio._pictures.layout import RISE, Layout, Route, lay_out
from blazen_trio._pictures.svg import (
    CHAR,
    LINE,
    clean,
    document,
    element,
    shorten,
    text,
    text_width,
)

if TYPE_CHECKING:
    from blazen_trio._pictures.graph import Edge, Node, WorkflowGraph

__all__ = ["draw_graph"]

_ROOT: Final = "blazen-graph"
_WIDEST: Final = 40 * CHAR
_HEAD: Final = 34.0
_RULES: Final = {
    ".node": "stroke-width:1.5",
    ".step": "fill:$step;stroke:$rim",
    ".pill": "fill:$pill;stroke:$line;stroke-width:1",
    ".start,.stop": "stroke:$ink;stroke-width:2",
    ".outside": "stroke-dasharray:5 3",
    ".edge": "fill:none;stroke:$line;stroke-width:1.3",
    ".tip": "fill:$line",
    ".many": "stroke-width:3.2",
    ".loose": "stroke-dasharray:4 4",
    ".untaken": "opacity:.35",
    ".untouched": "fill:$pill;stroke:$line;opacity:.75",
    ".name": "font-weight:600",
    ".done": "fill:$done;stroke:$done-rim",
    ".failed": "fill:$failed;stroke:$failed-rim;stroke-width:3",
    ".undone": "fill:$undone;stroke:$undone-rim;stroke-width:3",
    ".waiting": "fill:$waiting;stroke:$waiting-rim;stroke-width:2",
    ".retrying": "fill:$retrying;stroke:$retrying-rim;stroke-width:3",
}
_MARKS: Final = {
    "done": "\N{CHECK MARK}",
    "failed": "\N{MULTIPLICATION X}",
    "undone": "\N{BLACK RIGHT-POINTING TRIANGLE}",
    "waiting": "\N{HORIZONTAL ELLIPSIS}",
    "retrying": "\N{CLOCKWISE OPEN CIRCLE ARROW}",
}
"""Symbols that distinguish the statuses without colours."""


@attrs.frozen
class _Label:
    lines: tuple[tuple[str, str], ...]
    """(class, text)"""
    width: float
    height: float


def draw_graph(graph: WorkflowGraph) -> str:
    """Return the graph as a complete SVG document."""
    labels = {node.id: _label(node) for node in graph.nodes.values()}
    sizes = {id_: (label.width, label.height) for id_, label in labels.items()}
    layout = lay_out(sizes, [(edge.source, edge.target) for edge in graph.edges])
    key = _key(graph)
    title = shorten(graph.title, 90 * CHAR)
    width = max(layout.width, text_width(title) + 32, key[1])
    shift = (width - layout.width) / 2
    edges = "\n".join(_edge(edge, graph, layout) for edge in graph.edges)
    nodes = "\n".join(_node(node, labels[node.id], layout) for node in graph.nodes.values())
    body = f"{edges}\n{nodes}"
    body = (
        text(16, 24, title, "soft")
        + "\n"
        + element("g", body, transform=f"translate({shift:.1f} {_HEAD:.0f})")
    )
    bottom = layout.height + _HEAD
    body += element("g", key[0], transform=f"translate(16 {bottom:.1f})")
    return document(_ROOT, width, bottom + key[2], graph.title, graph.summary, _RULES, body)


def _label(node: Node) -> _Label:
    mark = _MARKS.get(node.status or "")
    lines = [("name" if node.kind == "step" else "", f"{mark} {node.name}" if mark else node.name)]
    if node.notes:
        lines.append(("soft", " \N{MIDDLE DOT} ".join(node.notes)))
    lines += [("", line) for line in node.happened]
    shown = tuple((class_, shorten(line, _WIDEST)) for class_, line in lines)
    width = max(text_width(line) for _, line in shown) + (28 if node.kind == "step" else 32)
    height = len(shown) * LINE + (16 if node.kind == "step" else 8)
    return _Label(shown, round(max(width, 60.0), 1), height)


def _node(node: Node, label: _Label, layout: Layout) -> str:
    box = layout.boxes[node.id]
    classes = ["node", "step" if node.kind == "step" else "pill"]
    classes += [node.kind] if node.kind in ("start", "stop") else []
    classes += ["outside"] if node.kind in ("external", "question", "answer", "failure") else []
    classes += [node.status] if node.status else []
    outline = element(
        "rect",
        x=box.x - box.width / 2,
        y=box.y - box.height / 2,
        width=box.width,
        height=box.height,
        rx=6 if node.kind == "step" else box.height / 2,
        class_=" ".join(classes),
    )
    top = box.y - len(label.lines) * LINE / 2
    lines = "".join(
        text(box.x, top + (index + 1) * LINE - 4, line, class_ or None, anchor="middle")
        for index, (class_, line) in enumerate(label.lines)
    )
    told = [node.name, *node.notes, STATUSES.get(node.status or "", ""), *node.happened]
    return element(
        "g", element("title", escape(clean(": ".join(filter(None, told))))) + outline + lines
    )


def _edge(edge: Edge, graph: WorkflowGraph, layout: Layout) -> str:
    route = layout.routes[edge.source, edge.target]
    classes = ["edge"]
    classes += ["many"] if edge.kind in ("fan_out", "fan_in") else []
    classes += ["loose"] if edge.kind in ("ask", "fail") else []
    line = element("path", d=_path(route), class_=" ".join(classes))
    x, y = route.points[-1]
    tip = element("path", d=f"M{x:.1f} {y:.1f}l-4.5 -9h9z", class_="tip")
    what = {"fan_out": "list of ", "fan_in": "all of "}.get(edge.kind, "")
    title = (
        f"{graph.nodes[edge.source].name} \N{RIGHTWARDS ARROW} "
        f"{what}{graph.nodes[edge.target].name}"
    )
    if edge.kind == "fan_in":
        title = (
            f"{what}{graph.nodes[edge.source].name} \N{RIGHTWARDS ARROW} "
            f"{graph.nodes[edge.target].name}"
        )
    told = element("title", escape(clean(title)))
    return element("g", told + line + tip, class_="untaken" if edge.taken is False else None)


def _path(route: Route) -> str:
    """Return curves that are vertical at each point, and end where the arrow's tip starts."""
    points = [*route.points[:-1], (route.points[-1][0], route.points[-1][1] - 8)]
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    turn = RISE * 0.55
    for index, ((x, y), (to_x, to_y)) in enumerate(itertools.pairwise(points)):
        if abs(x - to_x) < 0.05:
            path += f"V{to_y:.1f}"
        elif route.back:
            # A turn: below the box that it leaves, or above the one that it enters.
            bend = max(y, to_y) + turn if index < len(points) / 2 - 1 else min(y, to_y) - turn
            path += f"C{x:.1f} {bend:.1f} {to_x:.1f} {bend:.1f} {to_x:.1f} {to_y:.1f}"
        else:
            middle = (y + to_y) / 2
            path += f"C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}"
    return path


def _key(graph: WorkflowGraph) -> tuple[str, float, float]:
    """Return the legend of the marks: its markup, its width and its height."""
    lines = []
    if any(edge.kind in ("fan_out", "fan_in") for edge in graph.edges):
        lines.append("thick line: a list of events")
    statuses = {node.status for node in graph.nodes.values() if node.status}
    lines += [f"{_MARKS[status]} {STATUSES[status]}" for status in _MARKS if status in statuses]
    if "untouched" in statuses:
        lines.append(f"pale: {STATUSES['untouched']}")
    shown = "".join(
        text(0, (index + 1) * LINE - 12, line, "soft") for index, line in enumerate(lines)
    )
    return (
        shown,
        max(map(text_width, lines), default=0) + 32,
        len(lines) * LINE + (4 if lines else 0),
    )
