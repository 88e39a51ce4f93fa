"""Pictures of the state diagrams, so that the site shows them without a script or the network.

A page has its diagram as a Mermaid block. `diagrams/` has a picture of each, whose `<desc>` is the
block that it shows. A block without a picture fails the build. `python docs/diagrams.py` draws all
of them again, with Graphviz's `dot`.
"""

from __future__ import annotations

import html
import re
import subprocess
from pathlib import Path

__all__ = ["find_diagrams", "picture_of"]

HERE = Path(__file__).parent
PICTURES = HERE / "diagrams"

_BLOCK = re.compile(r"^```mermaid\n(stateDiagram-v2\n.*?)\n```$", re.DOTALL | re.MULTILINE)
_ARROW = re.compile(r"^\s+(\S+) --> ([^\s:]+)(?:: (.*))?$", re.MULTILINE)
_ATTRIBUTES = """
    rankdir=LR; bgcolor=transparent; ranksep=0.7; nodesep=0.35;
    node [shape=box, style=rounded, fontname="sans-serif", fontsize=15];
    edge [fontname="sans-serif", fontsize=13, arrowsize=0.7];
    "[*]" [shape=point, width=0.15];
    "[*] " [shape=doublecircle, label="", width=0.12, style=filled, fillcolor=black];
"""


def find_diagrams() -> dict[str, str]:
    """Return the Mermaid source of every state diagram, by the name of its picture."""
    return {
        f"{path.stem}-{number}": source
        for path in sorted(HERE.rglob("*.md"))
        for number, source in enumerate(_BLOCK.findall(path.read_text("utf-8")), 1)
    }


def picture_of(source: str) -> str | None:
    """Return the SVG of this diagram, in the colours of the text around it, or `None`."""
    for path in PICTURES.glob("*.svg"):
        svg = path.read_text("utf-8")
        if f"<desc>{html.escape(source)}</desc>" in svg:
            return svg
    return None


def _draw(source: str) -> str:
    lines = []
    for before, after, label in _ARROW.findall(source):
        target = "[*] " if after == "[*]" else after
        words = label.replace(", ", "\\n")
        lines.append(f'    "{before}" -> "{target}" [label="{words}"];')
    dot = "\n".join(["digraph {", _ATTRIBUTES, *lines, "}"])
    drawn = subprocess.run(
        ["dot", "-Tsvg"], input=dot, capture_output=True, text=True, check=True
    ).stdout
    svg = drawn[drawn.index("<svg") :].replace("black", "currentColor")
    svg = re.sub(r"<title>.*?</title>\n|<!--.*?-->\n", "", svg)
    svg = re.sub(r"<text ", '<text fill="currentColor" ', svg)
    return re.sub(
        r"(<svg[^>]*>\n)",
        lambda head: f"{head[1]}<desc>{html.escape(source)}</desc>\n",
        svg,
        count=1,
    )


if __name__ == "__main__":
    for name, source in find_diagrams().items():
        (PICTURES / f"{name}.svg").write_text(_draw(source), "utf-8")
