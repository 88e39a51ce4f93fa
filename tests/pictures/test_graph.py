"""The graph of a workflow, and what a run adds to it."""

from __future__ import annotations

import pytest
import trio

from blazen_trio import (
    Context,
    Delayed,
    Event,
    InputResponseEvent,
    MemoryStore,
    RunStatus,
    StartEvent,
    StepFailedError,
    StepFailedEvent,
    StopEvent,
    Workflow,
    step,
)
from blazen_trio._pictures.happened import graph_of
from tests.pictures.drawn import Approval, Page, Text, a_book, agent, book, fetch, recorded


def edges(workflow, run=None):
    data = graph_of(workflow, run).to_data()
    return {(edge["source"], edge["target"]): edge["kind"] for edge in data["edges"]}


def nodes(workflow, run=None):
    return {node["id"]: node for node in graph_of(workflow, run).to_data()["nodes"]}


def statuses(workflow, run):
    return {node["name"]: node["status"] for node in nodes(workflow, run).values()}


def test_the_graph_has_every_declared_edge():
    assert edges(book) == {
        ("event:StartEvent", "step:list_pages"): "deliver",
        ("step:list_pages", "event:Page"): "fan_out",
        ("event:Page", "step:fetch"): "deliver",
        ("step:fetch", "event:Text"): "emit",
        ("step:fetch", "failure:skip"): "fail",
        ("failure:skip", "step:skip"): "deliver",
        ("step:skip", "event:Text"): "emit",
        ("event:Text", "step:bind"): "fan_in",
        ("step:bind", "event:Draft"): "emit",
        ("event:Draft", "event:Approval"): "ask",
        ("event:Approval", "step:publish"): "deliver",
        ("step:publish", "event:StopEvent"): "emit",
        ("event:Withdrawn", "step:withdraw"): "deliver",
        ("step:withdraw", "event:StopEvent"): "emit",
    }


def test_entry_exit_and_external_events_are_distinguished():
    kinds = {node["name"]: (node["kind"], node["notes"]) for node in nodes(book).values()}
    assert kinds["StartEvent"] == ("start", ("entry",))
    assert kinds["StopEvent"] == ("stop", ("exit",))
    assert kinds["Withdrawn"] == ("external", ("external",))
    assert kinds["Draft"] == ("question", ("question",))
    assert kinds["Approval"] == ("answer", ("answer",))
    assert kinds["fetch"] == ("step", ("up to 3 attempts",))
    assert kinds["list_pages"] == ("step", ("fan-out",))
    assert kinds["bind"] == ("step", ("fan-in",))


def test_a_handler_of_all_failures_has_a_note_instead_of_an_edge_per_step():
    @step
    async def begin(ev: StartEvent) -> StopEvent:
        return StopEvent()

    @step
    async def mend(ev: StepFailedEvent) -> StopEvent:
        return StopEvent()

    workflow = Workflow("w", [begin, mend])
    assert nodes(workflow)["failure:mend"]["notes"] == ("failure of any other step",)
    assert [pair for pair, kind in edges(workflow).items() if kind == "fail"] == []


def test_an_event_goes_to_the_steps_that_accept_its_base():
    class Base(Event):
        pass

    class Special(Base):
        pass

    @step
    async def begin(ev: StartEvent) -> Special:
        return Special()

    @step
    async def take(ev: Base) -> StopEvent:
        return StopEvent()

    assert edges(Workflow("w", [begin, take]))["event:Special", "step:take"] == "deliver"


async def test_a_waiting_run_shows_what_is_done_and_what_it_waits_for(autojump_clock):
    snapshot = await a_book()
    assert statuses(book, snapshot) == {
        "list_pages": "done",
        "fetch": "done",
        "skip": "done",
        "bind": "done",
        "publish": "untouched",
        "withdraw": "untouched",
        "StartEvent": "done",
        "Page": "done",
        "Text": "done",
        "Draft": "waiting",
        "Approval": "untouched",
        "StopEvent": "untouched",
        "Withdrawn": "untouched",
        "StepFailedEvent": "done",
    }
    assert nodes(book, snapshot)["step:fetch"]["happened"] == ("11 done, 6 failed, 5 retried",)
    assert nodes(book, snapshot)["event:Draft"]["happened"] == ("1 open",)
    taken = {(edge.source, edge.target): edge.taken for edge in graph_of(book, snapshot).edges}
    assert {pair for pair, was in taken.items() if not was} == {
        ("event:Draft", "event:Approval"),
        ("event:Approval", "step:publish"),
        ("step:publish", "event:StopEvent"),
        ("event:Withdrawn", "step:withdraw"),
        ("step:withdraw", "event:StopEvent"),
    }


async def test_a_completed_run_shows_the_path_that_it_took(autojump_clock):
    waiting = await a_book()
    async with book.resume(waiting) as run:
        await run.respond(Approval(waiting.input_requests[0].request_id, "yes"))
        await run.result()
        snapshot = await run.snapshot()
    found = statuses(book, snapshot)
    assert (found["publish"], found["StopEvent"], found["Draft"]) == ("done", "done", "done")
    stops = {
        edge.source: edge.taken
        for edge in graph_of(book, snapshot).edges
        if edge.target == "event:StopEvent"
    }
    assert stops == {"step:publish": True, "step:withdraw": False}


async def test_a_failed_run_shows_the_failed_step_and_pending_work(autojump_clock):
    @step
    async def spread(ev: StartEvent) -> list[Page]:
        return [Page(1), Page(7)]

    @step
    async def total(texts: list[Text]) -> StopEvent:
        return StopEvent()

    failing = Workflow("failing", [spread, fetch, total], history=True)
    store = MemoryStore()
    with pytest.raises(StepFailedError):
        await failing.run(store=store, run_id="r")
    snapshot = await store.load_snapshot("r")
    assert snapshot.status is RunStatus.FAILED
    assert statuses(failing, snapshot) == {
        "spread": "done",
        "fetch": "failed",
        "total": "waiting",
        "StartEvent": "done",
        "Page": "done",
        "Text": "done",
        "StopEvent": "untouched",
    }
    assert nodes(failing, snapshot)["step:fetch"]["happened"] == (
        "1 done, 4 failed, 3 retried",
        "1 pending",
    )
    assert nodes(failing, snapshot)["step:total"]["happened"] == ("1 collected",)


async def test_a_run_in_flight_shows_pending_steps_and_delayed_events(autojump_clock):
    @step
    async def begin(ev: StartEvent) -> tuple[Page, Delayed[Text]]:
        return Page(1), Delayed(Text(1), 3600)

    @step
    async def slow(ev: Page | Text) -> StopEvent:
        await trio.sleep_forever()
        return StopEvent()

    workflow = Workflow("w", [begin, slow], history=True, timeout=None)
    async with workflow.run() as run:
        await trio.sleep(1)
        snapshot = await run.snapshot()
        run.cancel()
    assert nodes(workflow, snapshot)["step:slow"]["status"] == "undone"
    assert nodes(workflow, snapshot)["step:slow"]["happened"] == ("1 pending",)
    assert nodes(workflow, snapshot)["event:Text"]["happened"] == ("1 delayed",)


async def test_without_a_history_only_pending_work_is_shown(autojump_clock):
    @step
    async def begin(ev: StartEvent, ctx: Context) -> Page:
        return Page(0)

    @step
    async def ask(ev: Page) -> Text:
        await trio.sleep_forever()
        return Text(0)

    @step
    async def end(ev: Text) -> StopEvent:
        return StopEvent()

    workflow = Workflow("w", [begin, ask, end])
    async with workflow.run() as run:
        await trio.sleep(1)
        snapshot = await run.snapshot()
        run.cancel()
    found = statuses(workflow, snapshot)
    assert (found["begin"], found["ask"], found["end"]) == (None, "undone", None)
    assert {edge.taken for edge in graph_of(workflow, snapshot).edges} == {None}
    assert "history=True" in workflow.to_svg(snapshot)


def test_a_run_of_another_workflow_is_refused():
    with pytest.raises(ValueError, match="run 'run-1' is of workflow 'book'"):
        agent.to_svg(recorded((0, "workflow_started")))
    with pytest.raises(TypeError, match="is not a Snapshot"):
        book.to_dot("run-1")


def test_an_answer_that_no_step_asks_for_is_drawn():
    @step
    async def begin(ev: StartEvent) -> None:
        return None

    @step
    async def answered(ev: InputResponseEvent) -> StopEvent:
        return StopEvent()

    workflow = Workflow("w", [begin, answered])
    assert edges(workflow)["event:InputResponseEvent", "step:answered"] == "deliver"
