"""Pictures in a browser: text fits into its box, nothing lies outside the picture, no errors."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

from blazen_trio.pictures import timeline_html
from blazen_trio.testing import run_without_waiting
from tests.pictures.drawn import a_book, a_killed_run, agent, attempt, book, recorded

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium or Chrome on PATH")

# The page forbids scripts, so the probe is a page around it that inspects it.
PROBE = """<!DOCTYPE html><meta charset="utf-8">
<iframe style="width:1300px;height:800px"></iframe><pre></pre><script>
const frame = document.querySelector("iframe"), problems = [];
window.onerror = (message) => problems.push(String(message));
frame.onload = () => {
  const page = frame.contentDocument, root = page.documentElement;
  const drawings = [...page.querySelectorAll("svg")];
  const inside = (one, other, spare) =>
    one.left >= other.left - spare && one.right <= other.right + spare
    && one.top >= other.top - spare && one.bottom <= other.bottom + spare;
  const name = (one) => one.textContent || one.getAttribute("class") || one.tagName;
  for (const drawing of drawings) {
    const whole = drawing.getBoundingClientRect();
    for (const one of drawing.querySelectorAll("text,rect,path"))
      if (!inside(one.getBoundingClientRect(), whole, 1)) problems.push("outside: " + name(one));
    for (const box of drawing.querySelectorAll("rect.node"))
      for (const line of box.parentNode.querySelectorAll("text"))
        if (!inside(line.getBoundingClientRect(), box.getBoundingClientRect(), 0))
          problems.push("does not fit: " + name(line));
    const lines = [...drawing.querySelectorAll("text")];
    lines.forEach((one, index) => lines.slice(index + 1).forEach((other) => {
      const a = one.getBoundingClientRect(), b = other.getBoundingClientRect();
      if (a.left < b.right && b.left < a.right
          && a.top + 3 < b.bottom - 3 && b.top + 3 < a.bottom - 3)
        problems.push("overlap: " + name(one) + " / " + name(other));
    }));
  }
  const bars = {};
  for (const bar of page.querySelectorAll("rect")) {
    const kind = bar.getAttribute("class");
    if (bar.getBoundingClientRect().width > 0) bars[kind] = (bars[kind] || 0) + 1;
  }
  const found = {
    problems, bars, drawings: drawings.length,
    wide: root.scrollWidth > root.clientWidth, rows: page.querySelectorAll("tr").length,
  };
  document.querySelector("pre").textContent = JSON.stringify(found);
};
frame.srcdoc = PAGE;
</script>"""


def inspect_page(page, folder):
    """Return what the browser found in a page."""
    probe = folder / "probe.html"
    probe.write_text(
        PROBE.replace("PAGE", json.dumps(page).replace("<", "\\u003c")), encoding="utf-8"
    )
    options = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
        " --disable-background-networking --disable-component-update --disable-sync"
        " --virtual-time-budget=5000 --enable-logging=stderr --dump-dom"
    )
    command = [
        str(BROWSER),
        *options.split(),
        f"--user-data-dir={folder / 'profile'}",
        probe.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "CONSOLE" not in done.stderr
    found = re.search(r"<pre>(.+)</pre>", done.stdout, re.DOTALL)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(unescape(found[1]))


@pytest.fixture(scope="module")
def waiting():
    return run_without_waiting(a_book)


def test_the_page_of_a_run_fits(waiting, tmp_path):
    found = inspect_page(timeline_html(waiting, book), tmp_path)
    assert found["problems"] == []
    assert not found["wide"]
    assert found["drawings"] == 2
    assert found["rows"] == len(waiting.history) + 1
    assert (found["bars"]["retried"], found["bars"]["failed"]) == (6, 2)  # plus one each in the key
    assert found["bars"]["completed"] == 14 + 1


def test_the_page_of_a_killed_run_shows_its_idle_times(tmp_path):
    found = inspect_page(timeline_html(a_killed_run()), tmp_path)
    assert found["problems"] == []
    assert (found["bars"]["dead"], found["bars"]["waiting"], found["bars"]["unfinished"]) == (
        2,
        4,
        5,
    )


def test_graphs_fit(tmp_path):
    found = inspect_page(agent.to_svg() + book.to_svg(), tmp_path)
    assert found["problems"] == []
    assert found["drawings"] == 2


def test_long_and_wide_names_fit(tmp_path):
    names = [
        "x" * 300,
        "\N{HIRAGANA LETTER A}" * 60,
        "\N{GRINNING FACE}" * 30,
        "W" * 25,
        "<b>&amp;",
    ]
    records = [(0.0, "workflow_started")]
    for index, name in enumerate(names):
        records += attempt(name, index, index + 1, name, name)
    found = inspect_page(timeline_html(recorded(*records, run_id="r" * 500)), tmp_path)
    assert found["problems"] == []
    assert not found["wide"]
