"""A run's timeline as SVG: a bar for each attempt, in rows by step, below the run's phases."""

from __future__ import annotations

from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import attrs

from blazen_trio._pictures.attempts import IDLE, Attempt, History, Idle, read_history
from blazen_trio._pictures.axis import MARGIN, Axis, in_words
from blazen_trio._pictures.happened import run_line
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
    from collections.abc import Mapping, Sequence

    from blazen_trio._codec.snapshot import Snapshot

__all__ = ["NO_HISTORY", "draw_timeline"]

NO_HISTORY: Final = (
    "The attempts of this run were not recorded: set history=True, as in "
    "Workflow(..., history=True), before a run starts."
)

_ROOT: Final = "blazen-timeline"
_PLOT: Final = 780.0
_NAMES: Final = 26 * CHAR
_BAR: Final = 10.0
_QUESTION: Final = 6.0
_LANE: Final = 13.0
_LEAST_LANE: Final = 4.0
_LANES: Final = 200.0
"""The most height of a step's lanes in pixels, up to which they get thinner instead."""
_MOST_LANES: Final = 100
"""The most attempts at a time; for a step with more, a curve shows how many were in flight."""
_MOST_BARS: Final = 2000
"""The most bars in all, as more slow browsers down. Steps with the fewest attempts get them."""
_CURVE: Final = 46.0
_COLUMN: Final = 3.0
_RULES: Final = {
    ".completed": "fill:$done-rim",
    ".failed": "fill:$failed;stroke:$failed-rim;stroke-width:1.5",
    ".retried": "fill:$retrying;stroke:$retrying-rim;stroke-width:1.5",
    ".unfinished": "fill:$paper;stroke:$undone-rim;stroke-width:1.5;stroke-dasharray:4 3",
    ".mark": "fill:none;stroke:$ink;stroke-width:1.5",
    ".curve": "fill:$done-rim;opacity:.8",
    ".count": "fill:$failed-rim",
    ".running": "fill:$done-rim",
    ".waiting": "fill:$waiting;stroke:$waiting-rim",
    ".paused": "fill:$shade;stroke:$line;stroke-dasharray:6 3",
    ".dead": "fill:$ink;stroke:$ink",
    ".ended": "fill:$paper;stroke:$line;stroke-dasharray:1 3",
    ".shade": "fill:$shade",
    ".rule,.tick": "fill:none;stroke:$frame",
    ".cut": "fill:none;stroke:$line;stroke-width:1.5",
    ".name": "font-weight:600",
}
_OUTCOMES: Final = {
    "completed": "completed",
    "failed": "failed",
    "retried": "failed, then retried",
    "unfinished": "no end recorded: interrupted, re-run on newer state, or in flight",
}


@attrs.frozen
class _Row:
    """A step's row: its two lines of text, and its drawing, relative to its top."""

    name: str
    note: str
    height: float
    content: str


def draw_timeline(snapshot: Snapshot) -> str:
    """Return the timeline as a complete SVG document.

    For a run whose history has no attempts, it is a sentence that says what to do.
    """
    history = read_history(snapshot)
    title = run_line(snapshot)
    if not history.detailed:
        width = max(text_width(NO_HISTORY), text_width(title)) + 32
        body = text(16, 24, title, "soft") + text(16, 48, NO_HISTORY)
        return document(_ROOT, width, 68, title, NO_HISTORY, _RULES, body)
    told = [*history.attempts, *map(_note, history.attempts.values())]
    left = max(text_width(shorten(line, _NAMES)) for line in told) + 32
    axis = Axis(history.length, left, _PLOT, history.idle)
    lanes = _all_lanes(history)
    rows = [_row(name, attempts, lanes[name], axis) for name, attempts in history.attempts.items()]
    if history.questions:
        rows.insert(0, _question_row(history.questions, axis))
    return _assemble(history, title, rows, lanes, axis)


def _assemble(
    history: History,
    title: str,
    rows: Sequence[_Row],
    lanes: Mapping[str, list[int] | None],
    axis: Axis,
) -> str:
    left = axis.left
    top = 62.0
    bottom = top + 34 + sum(row.height + 10 for row in rows)
    parts = [text(16, 24, shorten(title, left + _PLOT - 16), "soft")]
    parts += [_shade(one, axis, top, bottom) for one in history.idle]
    for x, label in axis.ticks():
        parts.append(element("path", d=f"M{x:.1f} {top - 8}V{bottom:.1f}", class_="tick"))
        parts.append(text(x, top - 12, label, "soft", anchor="middle"))
    parts.append(_run_row(history, axis, top))
    y = top + 34
    for row in rows:
        parts.append(element("path", d=f"M16 {y - 5:.1f}H{left + _PLOT:.1f}", class_="rule"))
        parts.append(text(16, y + 11, row.name, "name") + text(16, y + 11 + LINE, row.note, "soft"))
        parts.append(element("g", row.content, transform=f"translate(0 {y:.1f})"))
        y += row.height + 10
    key, height = _key(history, lanes, axis, bottom + 20)
    attempts = sum(map(len, history.attempts.values()))
    summary = f"{_count(attempts)} of {len(history.attempts)} steps in {in_words(history.length)}"
    return document(
        _ROOT,
        left + _PLOT + MARGIN,
        bottom + height + 12,
        title,
        summary,
        _RULES,
        "\n".join([*parts, key]),
    )


# The run itself


def _run_row(history: History, axis: Axis, top: float) -> str:
    drawn, start = [], 0.0
    for one in [*history.idle, Idle("", history.length, history.length)]:
        if one.start > start or not history.length:
            drawn.append(
                _block(
                    "running", axis.x(start), axis.x(one.start), top, one.start - start, cut=False
                )
            )
        if one.kind:
            cut = one in axis.cut
            drawn.append(
                _block(
                    one.kind, axis.x(one.start), axis.x(one.end), top, one.end - one.start, cut=cut
                )
            )
        start = one.end
    return text(16, top + 11, "run", "name") + "".join(drawn)


def _runs(history: History) -> bool:
    """Return whether the run is drawn as running at any time."""
    edges = [Idle("", 0.0, 0.0), *history.idle, Idle("", history.length, history.length)]
    return not history.length or any(one.end < other.start for one, other in pairwise(edges))


def _block(kind: str, start: float, end: float, top: float, seconds: float, *, cut: bool) -> str:
    told = f"{IDLE.get(kind, 'running')}: {in_words(seconds)}"
    width = max(end - start, 1.0)
    block = element(
        "rect",
        x=start,
        y=top + (2 if kind == "running" else 0),
        width=width,
        height=8 if kind == "running" else 12,
        class_=kind,
    )
    block = element("g", element("title", escape(told)) + block)
    if cut:  # two strokes across mark a time that is longer than drawn
        middle = (start + end) / 2
        strokes = "".join(f"M{middle + x:.1f} {top + 15:.1f}l5 -18" for x in (-5, -1))
        block += element("path", d=strokes, class_="cut")
    if kind != "running":
        label = next((one for one in (told, in_words(seconds)) if text_width(one) <= width), "")
        block += text((start + end) / 2, top + 25, label, "soft", anchor="middle") if label else ""
    return block


def _shade(idle: Idle, axis: Axis, top: float, bottom: float) -> str:
    start, end = axis.x(idle.start), axis.x(idle.end)
    return element(
        "rect", x=start, y=top + 28, width=end - start, height=bottom - top - 28, class_="shade"
    )


# A step's row


def _row(name: str, attempts: Sequence[Attempt], lanes: list[int] | None, axis: Axis) -> _Row:
    if lanes is not None:
        lane_height, height = _heights(lanes)
        content = "".join(
            _bar(one, lane * lane_height, lane_height * _BAR / _LANE, axis)
            for one, lane in zip(attempts, lanes, strict=True)
        )
    else:
        content, height = _curve(attempts, axis), _CURVE
    return _Row(shorten(name, _NAMES), _note(attempts), max(height, 2 * LINE), content)


def _count(attempts: int) -> str:
    return f"{attempts:,} {'attempt' if attempts == 1 else 'attempts'}"


def _note(attempts: Sequence[Attempt]) -> str:
    failed = sum(one.outcome in ("failed", "retried") for one in attempts)
    return _count(len(attempts)) + (f", {failed:,} failed" if failed else "")


def _heights(lanes: Sequence[int]) -> tuple[float, float]:
    """Return the height of a lane, and of all lanes together."""
    count = max(lanes, default=0) + 1
    lane = max(_LEAST_LANE, min(_LANE, _LANES / count))
    return lane, lane * count


def _all_lanes(history: History) -> dict[str, list[int] | None]:
    """Return the lane of each attempt, by step; `None`: too many attempts, so draw a curve."""
    found, left = {}, _MOST_BARS
    for name, attempts in sorted(history.attempts.items(), key=lambda item: len(item[1])):
        found[name] = _lanes(attempts, left)
        left -= 0 if found[name] is None else len(attempts)
    return found


def _lanes(attempts: Sequence[Attempt], most: int) -> list[int] | None:
    """Return the lane of each attempt, the first that is free; `None`: too many attempts."""
    if len(attempts) > most:
        return None
    free: list[float] = []
    lanes = []
    for one in attempts:
        lane = next((index for index, end in enumerate(free) if end <= one.start), len(free))
        if lane == _MOST_LANES:
            return None
        free[lane : lane + 1] = [one.end]
        lanes.append(lane)
    return lanes


def _bar(attempt: Attempt, top: float, height: float, axis: Axis) -> str:
    start, y = axis.x(attempt.start), top + height / _BAR
    width = max(axis.x(attempt.end) - start, 2.0)
    told = (
        f"{attempt.step} ({attempt.event_type}): {_OUTCOMES[attempt.outcome]}; "
        f"started at {axis.moment(attempt.start)}, lasted {in_words(attempt.end - attempt.start)}"
    )
    if attempt.error:
        told += f": {attempt.error[:300]}"
    bar = element(
        "rect",
        x=start,
        y=y,
        width=width,
        height=height,
        rx=min(1.5, height / 4),
        class_=attempt.outcome,
    )
    end = start + width
    if attempt.outcome in ("failed", "retried"):
        bar += element("path", d=_mark(attempt.outcome, end, y, height), class_="mark")
    return element("g", element("title", escape(clean(told))) + bar)


def _mark(outcome: str, end: float, y: float, height: float) -> str:
    """Return the mark at the end of a failed bar: a cross, or one stroke if it was retried."""
    stroke = f"M{end - 3:.1f} {y + height:.1f}l6 -{height:.3g}"
    return stroke + f"M{end - 3:.1f} {y:.1f}l6 {height:.3g}" if outcome == "failed" else stroke


def _curve(attempts: Sequence[Attempt], axis: Axis) -> str:
    """Return a curve of the most attempts in flight per column, with marks where some failed."""
    columns = int(axis.width / _COLUMN)
    change, failed = [0] * (columns + 2), set()
    for one in attempts:
        first, last = (
            min(int((axis.x(at) - axis.left) / _COLUMN), columns - 1) for at in (one.start, one.end)
        )
        change[first] += 1
        change[last + 1] -= 1
        if one.outcome in ("failed", "retried"):
            failed.add(last)
    counts, now = [], 0
    for index in range(columns):
        now += change[index]
        counts.append(now)
    most, base = max(counts), _CURVE - 8
    tops = [base - count / most * (base - 2) for count in counts]
    line = "".join(
        f"V{y:.1f}H{axis.left + (index + 1) * _COLUMN:.1f}" for index, y in enumerate(tops)
    )
    told = (
        f"{attempts[0].step}: {_count(len(attempts))}, drawn as the number in flight, up to "
        f"{most:,} per column"
    )
    curve = element("path", d=f"M{axis.left:.1f} {base:.1f}{line}V{base:.1f}Z", class_="curve")
    marks = "".join(
        f"M{axis.left + (column + 0.5) * _COLUMN:.1f} {base + 1:.1f}l3 6h-6z"
        for column in sorted(failed)
    )
    return element(
        "g",
        element("title", escape(clean(told)))
        + curve
        + (element("path", d=marks, class_="count") if marks else ""),
    )


def _question_row(questions: Sequence[tuple[str, float, float]], axis: Axis) -> _Row:
    asked = [Attempt(type_, type_, start, end, "completed") for type_, start, end in questions]
    lanes = _lanes(asked, _MOST_BARS)
    count = f"{len(asked):,} asked"
    if lanes is None:
        return _Row("questions", count, _CURVE, _curve(asked, axis))
    drawn, (lane_height, height) = "", _heights(lanes)
    for one, lane in zip(asked, lanes, strict=True):
        start = axis.x(one.start)
        bar = element(
            "rect",
            x=start,
            y=(lane + 3 / _LANE) * lane_height,
            width=max(axis.x(one.end) - start, 2.0),
            height=lane_height * _QUESTION / _LANE,
            class_="waiting",
        )
        told = (
            f"{one.step}: asked at {axis.moment(one.start)}, open for "
            f"{in_words(one.end - one.start)}"
        )
        drawn += element("g", element("title", escape(clean(told))) + bar)
    return _Row("questions", count, max(height, 2 * LINE), drawn)


# What the marks mean


def _key(
    history: History, lanes: Mapping[str, list[int] | None], axis: Axis, top: float
) -> tuple[str, float]:
    curves = [attempts for name, attempts in history.attempts.items() if lanes[name] is None]
    bars = [attempts for name, attempts in history.attempts.items() if lanes[name] is not None]
    outcomes = {one.outcome for attempts in bars for one in attempts}
    samples = []
    for outcome, words in _OUTCOMES.items():
        if outcome in outcomes:
            sample = element("rect", x=16, y=0, width=28, height=_BAR, rx=1.5, class_=outcome)
            if outcome in ("failed", "retried"):
                sample += element("path", d=_mark(outcome, 44, 0, _BAR), class_="mark")
            samples.append((sample, words))
    if curves:
        sample = element("path", d="M16 10v-4h7v-5h7v3h7v-2h7v8z", class_="curve")
        samples.append((sample, "number of attempts in flight"))
        if any(one.outcome in ("failed", "retried") for attempts in curves for one in attempts):
            samples.append(
                (element("path", d="M30 2l4 8h-8z", class_="count"), "some of them failed")
            )
    if _runs(history):
        samples.append(
            (element("rect", x=16, y=2, width=28, height=8, class_="running"), "running")
        )
    for kind, words in IDLE.items():
        if any(one.kind == kind for one in history.idle):
            samples.append((element("rect", x=16, y=0, width=28, height=_BAR, class_=kind), words))
    if history.questions:
        sample = element("rect", x=16, y=3, width=28, height=_QUESTION, class_="waiting")
        samples.append((sample, "open question"))
    if axis.cut:
        samples.append(
            (element("path", d="M26 13l5 -16m-1 16l5 -16", class_="cut"), "not drawn to scale")
        )
    drawn = "".join(
        element(
            "g",
            sample + text(54, 9, words, "soft"),
            transform=f"translate(0 {top + index * LINE:.1f})",
        )
        for index, (sample, words) in enumerate(samples)
    )
    return drawn, 20 + len(samples) * LINE
