"""The attempts in a run's history, and the timeline drawn from them."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree as ET

import pytest
import trio
from hypothesis import given, strategies as st

from blazen_trio import (
    MemoryStore,
    RunStatus,
    StartEvent,
    StepFailedError,
    StopEvent,
    Workflow,
    step,
)
from blazen_trio._pictures.attempts import Idle, read_history
from blazen_trio._pictures.axis import Axis, exactly, in_words
from blazen_trio.pictures import timeline_html, timeline_svg
from tests.pictures.drawn import Page, Text, a_book, a_killed_run, attempt, book, fetch, recorded

SVG = "{http://www.w3.org/2000/svg}"
STARTED = (0.0, "workflow_started", None, "StartEvent")


def drawn(snapshot):
    """Count the elements of each class."""
    root = ET.fromstring(timeline_svg(snapshot))
    found: dict[str, int] = {}
    for one in root.iter():
        if (name := one.get("class")) is not None:
            found[name] = found.get(name, 0) + 1
    return found


def texts(snapshot):
    return [one.text for one in ET.fromstring(timeline_svg(snapshot)).iter(f"{SVG}text")]


def outcomes(snapshot, name="fetch"):
    return [
        (one.outcome, round(one.start, 6), round(one.end, 6))
        for one in read_history(snapshot).attempts[name]
    ]


def minutes(found):
    """Round to minutes: some real time passes besides the jumps of the mock clock."""
    return [(what, round(start / 60), round(end / 60)) for what, start, end in found]


def test_concurrent_attempts_are_distinguished_by_their_durations():
    run = recorded(
        STARTED,
        (1.0, "step_dispatched", "fetch", "Page"),
        (2.0, "step_dispatched", "fetch", "Page"),
        (3.0, "step_dispatched", "fetch", "Page"),
        (4.0, "step_completed", "fetch", "Page", 2.0),
        (5.0, "step_failed", "fetch", "Page", 4.0, "OSError: no"),
        (5.0, "step_retried", "fetch", "Page"),
        (7.0, "step_failed", "fetch", "Page", 4.0, "OSError: no"),
    )
    assert outcomes(run) == [("retried", 1, 5), ("completed", 2, 4), ("failed", 3, 7)]
    assert drawn(run)["mark"] == 4  # the two that failed, and their samples in the key


def test_attempts_in_flight_end_with_their_process_and_the_gap_until_the_resume_is_dead():
    run = recorded(
        STARTED,
        (1.0, "step_dispatched", "fetch", "Page"),
        *attempt("bind", 1.0, 3.0),
        (60.0, "workflow_resumed"),
        *attempt("fetch", 60.0, 61.0),
    )
    assert outcomes(run) == [("unfinished", 1, 3), ("completed", 60, 61)]
    assert Idle("dead", 3.0, 60.0) in read_history(run).idle


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        ((3.0, "workflow_paused", None, None, None, "manual"), "paused"),
        ((3.0, "workflow_cancelled"), "ended"),
        ((3.0, "workflow_timed_out"), "ended"),
        ((3.0, "workflow_failed", "fetch", None, None, "no"), "ended"),
    ],
)
def test_idle_time_shows_its_reason(record, kind):
    run = recorded(
        STARTED,
        *attempt("fetch", 0.0, 3.0),
        record,
        (60.0, "workflow_resumed"),
        *attempt("fetch", 60.0, 61.0),
    )
    assert read_history(run).idle == [Idle(kind, 3.0, 60.0)]
    assert drawn(run)[kind] == 2  # itself, and its sample in the key


def test_gaps_between_attempts_are_waits():
    run = recorded(
        STARTED,
        *attempt("fetch", 0.0, 1.0),
        *attempt("fetch", 1.001, 2.0),
        *attempt("fetch", 9.0, 10.0),
    )
    assert read_history(run).idle == [Idle("waiting", 2.0, 9.0)]


def test_an_attempt_that_is_rerun_on_newer_state_ends_where_the_rerun_starts():
    run = recorded(
        STARTED,
        (1.0, "step_dispatched", "fetch", "Page"),
        (2.0, "step_dispatched", "fetch", "Page"),
        (3.0, "step_completed", "fetch", "Page", 1.0),
        *attempt("bind", 3.0, 9.0),
    )
    assert outcomes(run) == [("unfinished", 1, 2), ("completed", 2, 3)]


async def test_an_attempt_in_flight_extends_to_the_end_of_the_picture(autojump_clock):
    @step
    async def begin(ev: StartEvent) -> StopEvent:
        await trio.sleep_forever()
        return StopEvent()

    @step
    async def tick(ev: StartEvent) -> None:
        await trio.sleep(5 * 60)

    workflow = Workflow("w", [begin, tick], history=True, timeout=None)
    async with workflow.run() as run:
        await trio.sleep(9 * 60)
        snapshot = await run.snapshot()
        run.cancel()
    assert minutes(outcomes(snapshot, "begin")) == [("unfinished", 0, 5)]
    assert minutes(outcomes(snapshot, "tick")) == [("completed", 0, 5)]


async def test_a_paused_run_is_drawn_as_paused(autojump_clock):
    @step
    async def begin(ev: StartEvent) -> StopEvent:
        await trio.sleep(4 * 60)
        return StopEvent()

    workflow = Workflow("w", [begin], history=True, timeout=None)
    async with workflow.run() as run:
        await trio.sleep(2 * 60)
        await run.pause(grace=0)
        await trio.sleep(10 * 60)
        await run.unpause()
        await run.result()
        snapshot = await run.snapshot()
    assert minutes(outcomes(snapshot, "begin")) == [("unfinished", 0, 2), ("completed", 12, 16)]
    assert minutes([(one.kind, one.start, one.end) for one in read_history(snapshot).idle]) == [
        ("paused", 2, 12)
    ]


def test_a_question_that_is_asked_again_after_a_crash_is_drawn_once():
    run = recorded(
        STARTED,
        *attempt("bind", 0.0, 1.0),
        (1.0, "input_requested", None, "Draft"),
        (1.0, "input_requested", None, "Draft"),
        (50.0, "workflow_resumed"),
        (50.0, "input_requested", None, "Draft"),
        (50.0, "input_requested", None, "Draft"),
        (60.0, "input_received", None, "Approval"),
        *attempt("publish", 60.0, 61.0),
    )
    assert read_history(run).questions == [("Draft", 1.0, 60.0), ("Draft", 1.0, 61.0)]
    assert "questions" in texts(run)


def test_time_does_not_run_backwards_if_the_clock_was_set_back():
    run = recorded(STARTED, *attempt("fetch", 5.0, 6.0), *attempt("fetch", 2.0, 3.0))
    assert outcomes(run) == [("completed", 5, 6), ("completed", 6, 6)]
    assert drawn(run)["completed"] == 3


async def test_the_timeline_of_a_run_without_a_history_shows_how_to_record_one(autojump_clock):
    @step
    async def begin(ev: StartEvent) -> Page:
        return Page(7)

    @step
    async def end(ev: Text) -> StopEvent:
        return StopEvent()

    plain = Workflow("plain", [begin, fetch, end])
    store = MemoryStore()
    with pytest.raises(StepFailedError):
        await plain.run(store=store, run_id="r")
    snapshot = await store.load_snapshot("r")
    assert any("history=True" in line for line in texts(snapshot))
    assert set(drawn(snapshot)) == {"blazen-timeline", "paper", "soft"}
    assert "history=True" in timeline_html(snapshot)
    assert "page 7 was not there" in timeline_html(snapshot)  # failures are always recorded


def test_many_attempts_are_drawn_as_a_curve():
    records = [STARTED]
    for number in range(20_000):
        records += attempt(
            "fetch",
            number / 100,
            number / 100 + 0.5,
            error="OSError: no" if number % 5000 == 0 else None,
        )
    run = recorded(*sorted(records, key=lambda record: record[0]))
    assert len(timeline_svg(run)) < 20_000
    assert len(timeline_html(run)) < 400_000
    assert drawn(run)["curve"] == 2
    assert drawn(run)["count"] == 2
    assert "20,000 attempts, 4 failed" in texts(run)
    assert "39,001 records omitted" in timeline_html(run)


def fan_out(count, step="fetch", start=0.0):
    """Return the records of `count` concurrent attempts."""
    return [
        record
        for n in range(count)
        for record in attempt(step, start + n / 1000, start + 5 + n / 1000)
    ]


def in_order(*records):
    return recorded(STARTED, *sorted(records, key=lambda record: record[0]))


def test_each_attempt_has_a_bar():
    run = recorded(STARTED, *(record for n in range(1900) for record in attempt("fetch", n, n + 1)))
    assert drawn(run)["completed"] == 1901
    assert "curve" not in drawn(run)


@pytest.mark.parametrize("count", [13, 20, 50, 100])
def test_each_member_of_a_fan_out_has_a_bar(count):
    root = ET.fromstring(timeline_svg(in_order(*fan_out(count), *attempt("bind", 6.0, 7.0))))
    bars = [
        group
        for group in root.iter(f"{SVG}g")
        if group.find(f"{SVG}title") is not None
        and group.find(f"{SVG}title").text.startswith("fetch (Page): completed")
    ]
    assert len(bars) == count
    places = [
        (float(bar.find(f"{SVG}rect").get("y")), float(bar.find(f"{SVG}rect").get("height")))
        for bar in bars
    ]
    # The bars don't overlap, and stay inside their row.
    assert all(y + height < other for (y, height), (other, _) in itertools.pairwise(places))
    assert all(height >= 3 for _, height in places)
    rows = [
        float(one.get("transform").split()[1][:-1])
        for one in root.iter(f"{SVG}g")
        if one.get("transform")
    ]
    assert places[-1][0] + places[-1][1] < rows[1] - rows[0]


def test_too_many_attempts_for_bars_are_drawn_as_a_curve():
    assert drawn(in_order(*fan_out(101)))["curve"] == 2
    # If there are too many in total, the step with the most is the curve, in either order.
    many = [record for n in range(2000) for record in attempt("fetch", n, n + 1)]
    found = drawn(in_order(*many, *fan_out(50, "bind", 3000)))
    assert (found["completed"], found["curve"]) == (51, 2)


def test_the_key_explains_every_kind_of_bar():
    words = texts(a_killed_run())
    assert {
        "running",
        "no driver",
        "open question",
        "not drawn to scale",
    } <= set(words)
    # It explains nothing that is not drawn.
    idle = texts(recorded(STARTED, (9.0, "step_dispatched", "fetch", "Page")))
    assert "running" not in idle
    assert "waiting for an answer, an event, a due time or a commit" in idle
    assert "open question" not in idle


def test_long_waits_are_shortened_and_labelled_with_their_length():
    run = a_killed_run()
    assert {"2 h", "9 min 59 s"} <= set(texts(run))
    assert drawn(run)["cut"] == 3
    bars = [
        one
        for one in ET.fromstring(timeline_svg(run)).iter(f"{SVG}rect")
        if one.get("class") == "completed"
    ]
    assert max(float(one.get("width")) for one in bars) > 50


@given(
    st.floats(0.001, 1e9),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=6),
)
def test_an_axis_is_monotonic_and_stays_inside_its_bounds(length, parts):
    idle, last = [], 0.0
    for start, end in sorted(tuple(sorted(part)) for part in parts):
        if start >= last:
            idle.append(Idle("dead", start * length, end * length))
            last = end
    axis = Axis(length, 100, 700, idle)
    places = [axis.x(length * part / 50) for part in range(51)]
    assert places == sorted(places)
    assert (round(axis.x(0), 3), round(axis.x(length), 3)) == (100, 800)
    ticks = axis.ticks()
    assert len(ticks) <= 10
    assert all(100 <= x <= 800.001 for x, _ in ticks)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.00000123, "1.23 \N{MICRO SIGN}s"),
        (0.25, "250 ms"),
        (0.9999, "1 s"),
        (1.5, "1.5 s"),
        (59.97, "1 min"),
        (150, "2 min 30 s"),
        (3600, "1 h"),
        (3 * 86400 + 7300, "3 d 2 h"),
    ],
)
def test_a_duration_is_written_in_words(seconds, words):
    assert in_words(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "fine", "words"),
    [
        (0, 1, "0 s"),
        (9 * 86400 + 3 * 3600 + 600, 600, "9 d 3 h 10 min"),
        (9 * 86400 + 600.2, 0.2, "9 d 10 min 0.2 s"),
        (789005.2, 500, "9 d 3 h 10 min"),
        (31.25, 0.05, "31.25 s"),
        (0.250001, 1e-6, "250.001 ms"),
        (0.0004, 1e-4, "400 \N{MICRO SIGN}s"),
        (119.9999, 1, "2 min"),
        (3599.9999, 0.001, "1 h"),
        (86399, 86400, "1 d"),
        (60, 86400, "0 s"),
    ],
)
def test_a_time_in_words_is_as_precise_as_requested(seconds, fine, words):
    assert exactly(seconds, fine) == words


@given(st.integers(0, 10**6), st.sampled_from([1e-3, 0.05, 1.0, 15.0, 60.0, 900.0, 86400.0]))
def test_different_times_differ_in_words(number, step):
    assert exactly(number * step, step) != exactly((number + 1) * step, step)


@pytest.mark.parametrize("length", [0.02, 2.0, 30.0, 1200.0, 20_000.0])
def test_times_after_a_long_wait_have_distinct_labels(length):
    waited = 9 * 86400 + 3 * 3600
    records = [STARTED, *attempt("bind", 0.0, length / 10)]
    for number in range(10):
        start = waited + number * length / 10
        records += attempt("fetch", start, start + length / 12)
    run = recorded(*records)
    axis = Axis(read_history(run).length, 100, 780, read_history(run).idle)
    labels = [label for _, label in axis.ticks()]
    assert len(labels) >= 3
    assert len({*labels}) == len(labels)
    titles = [one.text for one in ET.fromstring(timeline_svg(run)).iter(f"{SVG}title")]
    starts = [
        title.partition("started at ")[2].partition(",")[0]
        for title in titles
        if title.startswith("fetch")
    ]
    assert len({*starts}) == 10


# The page


async def test_the_page_is_complete_and_self_contained(autojump_clock):
    page = timeline_html(await a_book(), book)
    assert page.count("<svg") == 2
    for text in (
        "book-1",
        "waiting",
        "publish?",
        "input_requested",
        "OSError: page 7 was not there",
    ):
        assert text in page
    assert not re.search(
        r"<script|https?://(?!www\.w3\.org/2000/svg\")|url\(|@import|<link|<img", page
    )
    assert "default-src 'none'" in page


def test_the_page_escapes_untrusted_text():
    evil = "</pre></title><script>alert(1)</script><img src=x onerror=alert(1)>&amp;\x00"
    records = [
        STARTED,
        *attempt(evil, 0.0, 1.0, evil, evil),
        (1.0, "workflow_failed", evil, None, None, evil),
    ]
    page = timeline_html(recorded(*records, status=RunStatus.FAILED, run_id="'\"><script>"))
    assert "<script" not in page
    assert "<img" not in page
    assert page.count("&lt;script&gt;alert(1)") >= 4
    assert "&amp;amp;" in page


def test_the_page_of_another_workflows_run_is_refused():
    @step
    async def only(ev: StartEvent) -> StopEvent:
        return StopEvent()

    other = Workflow("other", [only])
    with pytest.raises(ValueError, match="of workflow 'book'"):
        timeline_html(recorded(STARTED), other)


def test_an_empty_history_is_not_an_error():
    assert "history=True" in timeline_svg(recorded())
    assert "run-1" in timeline_html(recorded())
