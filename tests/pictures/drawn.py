"""The runs that the tests draw, and the pictures in the documentation.

`python -m tests.pictures.drawn` writes the pictures in the documentation again.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import attrs

from blazen_trio import (
    Context,
    Event,
    HistoryRecord,
    InputRequestEvent,
    InputRequiredError,
    InputResponseEvent,
    MemoryStore,
    RetryPolicy,
    RunStatus,
    Snapshot,
    StartEvent,
    StepFailedEvent,
    StopEvent,
    Workflow,
    step,
)
from blazen_trio._state.model import RunState, StoredError
from blazen_trio.pictures import timeline_svg
from blazen_trio.testing import run_without_waiting

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"


@attrs.frozen
class Page(Event):
    number: int


@attrs.frozen
class Text(Event):
    number: int


@attrs.frozen
class Draft(InputRequestEvent):
    pages: int = 0


@attrs.frozen
class Approval(InputResponseEvent):
    pass


@attrs.frozen
class Withdrawn(Event):
    pass


@step
async def list_pages(ev: StartEvent) -> list[Page]:
    return [Page(number) for number in range(ev.data)]


@step(retry=RetryPolicy(max_attempts=3, jitter=0))
async def fetch(ev: Page, ctx: Context) -> Text:
    if ev.number == 7 or (ev.number % 4 == 1 and ctx.attempt == 1):
        msg = f"page {ev.number} was not there"
        raise OSError(msg)
    return Text(ev.number)


@step(handles=["fetch"])
async def skip(ev: StepFailedEvent) -> Text:
    return Text(-1)


@step
async def bind(texts: list[Text]) -> Draft:
    return Draft("publish?", pages=len(texts))


@step
async def publish(ev: Approval) -> StopEvent:
    return StopEvent(ev.response)


@step
async def withdraw(ev: Withdrawn) -> StopEvent:
    return StopEvent("withdrawn")


book = Workflow(
    "book", [list_pages, fetch, skip, bind, publish, withdraw], external=[Withdrawn], history=True
)


@attrs.frozen
class Turn(Event):
    pass


@attrs.frozen
class ToolCall(Event):
    tool: str


@attrs.frozen
class ToolResult(Event):
    text: str


@attrs.frozen
class Permission(InputRequestEvent):
    tool: str = ""


@step
async def ask_model(ev: StartEvent | Turn) -> list[ToolCall] | StopEvent:
    return StopEvent()


@step(timeout=30, retry=RetryPolicy(max_attempts=3))
async def call_tool(ev: ToolCall) -> ToolResult | Permission:
    return ToolResult(ev.tool)


@step
async def approved(ev: Approval) -> ToolResult:
    return ToolResult(ev.response)


@step
async def gather(results: list[ToolResult]) -> Turn:
    return Turn()


agent = Workflow("agent", [ask_model, call_tool, approved, gather])


async def a_book(pages: int = 12, *, workflow: Workflow = book) -> Snapshot:
    """Return a snapshot of a run of `book` that waits for its answer."""
    store = MemoryStore()
    try:
        await workflow.run(pages, store=store, run_id="book-1")
    except InputRequiredError as waiting:
        return waiting.snapshot
    raise AssertionError


def recorded(
    *records: tuple[Any, ...], status: RunStatus = RunStatus.COMPLETED, run_id: str = "run-1"
) -> Snapshot:
    """Return a run with these records: (seconds, kind, step, event type, duration, error)."""
    began = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    state = RunState(run_id, "book", "1")
    state.status = status
    state.stop = StopEvent() if status is RunStatus.COMPLETED else None
    if status.ended and state.stop is None:
        state.error = StoredError("StepFailedError", "it failed")
    history = [
        HistoryRecord(sequence, began + dt.timedelta(seconds=at), *rest)
        for sequence, (at, *rest) in enumerate(records, 1)
    ]
    return Snapshot.from_state(state, history=history)


def attempt(
    step: str, start: float, end: float, event: str = "Page", error: str | None = None
) -> list[tuple[Any, ...]]:
    """Return the two records of an attempt."""
    kind = "step_failed" if error else "step_completed"
    return [(start, "step_dispatched", step, event), (end, kind, step, event, end - start, error)]


def a_killed_run() -> Snapshot:
    """Return a run that was killed while four fetches were in flight.

    It is resumed after ten minutes, and then waits two hours for its answer.
    """
    records = [
        (0.0, "workflow_started", None, "StartEvent"),
        *attempt("list_pages", 0.01, 0.2, "StartEvent"),
    ]
    ends, resumed = [0.25] * 4, 600.0
    for number in range(12):
        start = min(ends)
        length = 0.15 + 0.09 * (number * 7 % 5)
        ends[ends.index(start)] = start + length
        if start + length > 0.9:
            if start < 0.9:
                records.append((start, "step_dispatched", "fetch", "Page"))
            again = resumed + 0.05 + 0.02 * number
            records += attempt("fetch", again, again + length)
        elif number % 4 == 1:
            records += attempt(
                "fetch", start, start + length, error="OSError: the page was not there"
            )
            records.append((start + length, "step_retried", "fetch", "Page"))
            records += attempt("fetch", resumed + 0.3, resumed + 0.6)
        else:
            records += attempt("fetch", start, start + length)
    records.append((resumed, "workflow_resumed"))
    records += attempt("fetch", resumed + 0.03, resumed + 0.35, error="OSError: the page is gone")
    records += attempt("skip", resumed + 0.36, resumed + 0.45, "StepFailedEvent")
    bound = max(at for at, *_ in records) + 0.01
    records += attempt("bind", bound, bound + 0.2, "list[Text]")
    records += [
        (bound + 0.21, "input_requested", None, "Draft"),
        (bound + 0.22, "workflow_paused", None, None, None, "input"),
    ]
    answered = bound + 7200.0
    records.append((answered, "input_received", None, "Approval"))
    records += attempt("publish", answered + 0.05, answered + 0.4, "Approval")
    records.append((answered + 0.4, "workflow_completed", "publish", "StopEvent"))
    return recorded(*sorted(records, key=lambda record: record[0]), run_id="book-1")


def documented() -> dict[str, str]:
    """Return the pictures in the documentation, by file name."""
    return {
        "agent.svg": agent.to_svg(),
        "book.svg": book.to_svg(run_without_waiting(a_book)),
        "timeline.svg": timeline_svg(a_killed_run()),
    }


if __name__ == "__main__":
    for name, drawn in documented().items():
        (FOLDER / name).write_text(drawn + "\n", encoding="utf-8")
