"""Mermaid, DOT and SVG: no name is taken for markup, whatever it contains."""

from __future__ import annotations

import html
import re
from typing import ClassVar
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, strategies as st

from blazen_trio import Event, StartEvent, StopEvent, Workflow, step
from blazen_trio._pictures.svg import clean, shorten, text_width
from tests.pictures.drawn import agent, book

SVG = "{http://www.w3.org/2000/svg}"
# A name has no NUL, which databases can't store in text, and no space at its end.
names = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40
).filter(lambda name: not name.endswith(" "))


def named(workflow_name, step_name, event_type):
    class Named(Event):
        pass

    Named.event_type = event_type

    @step(accepts=[StartEvent], emits=[Named])
    async def begin(ev):
        return Named()

    @step(name=step_name, accepts=[Named], emits=[StopEvent])
    async def end(ev):
        return StopEvent()

    return Workflow(workflow_name, [begin, end])


def plain(text):
    return " ".join(clean(text).split())


@st.composite
def workflows(draw):
    step_name = draw(
        names.filter(lambda name: name != "begin" and name.strip() and ":" not in name)
    )
    taken = {
        "StartEvent",
        "StopEvent",
        "InputRequestEvent",
        "InputResponseEvent",
        "StepFailedEvent",
        "DynamicEvent",
    }
    event_type = draw(names.filter(lambda name: name not in taken and name.strip()))
    return named(draw(names.filter(str.strip)), step_name, event_type), step_name, event_type


@given(workflows())
def test_mermaid_shows_any_name(made):
    workflow, step_name, event_type = made
    labels = []
    lines = workflow.to_mermaid().split("\n")
    assert lines[0] == "flowchart TD"
    for line in lines[3:-1]:
        node = re.fullmatch(r'  n\d+(?:\["(.*)"\]|\(\["(.*)"\]\))', line)
        assert node or re.fullmatch(r"  n\d+ --> n\d+", line), line
        if node:
            text = node[1] or node[2]
            assert not set(text) & set('"`[]{}|\\*~')
            labels.append(
                plain(html.unescape(re.sub(r"#(\d+);", r"&#\1;", text.split("<br/>")[0])))
            )
    assert {plain(step_name), plain(event_type)} <= set(labels)


@given(workflows())
def test_dot_shows_any_name(made):
    workflow, step_name, event_type = made
    quoted = r'"((?:[^"\\\n]|\\.)*)"'
    drawn = workflow.to_dot()
    outside = re.sub(quoted, "", drawn)
    assert re.fullmatch(r"digraph \{[\w\s\[\],=.>-]*\}\n", outside)
    assert outside.count("->") == 4
    labels = [
        re.sub(r"\\(.)", r"\1", html.unescape(found))
        for found in re.findall(r"label=" + quoted, drawn)
    ]
    assert {plain(step_name), plain(event_type)} <= {
        plain(label.replace("\\\\", "\\")) for label in labels
    }


@given(workflows())
def test_svg_shows_any_name(made):
    workflow, step_name, event_type = made
    root = ET.fromstring(workflow.to_svg())
    titles = [plain(one.text or "") for one in root.iter(f"{SVG}title")]
    assert plain(step_name) in titles
    assert any(plain(title).startswith(plain(event_type)) for title in titles)


@pytest.mark.parametrize("workflow", [book, agent], ids=lambda workflow: workflow.name)
def test_the_svg_is_accessible_and_self_contained(workflow):
    drawn = workflow.to_svg()
    root = ET.fromstring(drawn)
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    assert root.get("aria-label") == f"workflow {workflow.name}"
    assert [child.tag for child in root][:2] == [f"{SVG}title", f"{SVG}desc"]
    assert "prefers-color-scheme:dark" in drawn
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg\")|<script|url\(|@import| id=", drawn)


def test_notebooks_show_the_svg():
    assert book._repr_svg_() == book.to_svg()


@given(st.text(max_size=60), st.floats(20, 400))
def test_shortened_text_fits(text, width):
    short = shorten(text, width)
    assert text_width(short) <= width
    assert short == clean(text) or short.endswith("\N{HORIZONTAL ELLIPSIS}")


class Dotted(Event):
    event_type: ClassVar[str] = "orders.Dotted"


def test_events_are_labelled_with_their_stable_type():
    @step
    async def begin(ev: StartEvent) -> Dotted:
        return Dotted()

    @step
    async def end(ev: Dotted) -> StopEvent:
        return StopEvent()

    workflow = Workflow("w", [begin, end])
    assert '(["orders.Dotted"])' in workflow.to_mermaid()
    assert workflow.to_dot().count('"event:orders.Dotted"') == 3
