"""The web service, tested with a real server process and a real HTTP client."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx2
import pytest
import trio

from blazen_trio import (
    InputRequestEvent,
    InputRequiredError,
    InputResponseEvent,
    MemoryStore,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)

PROGRAM = Path(__file__).parents[2] / "examples" / "web" / "serve.py"
HIGH = [{"what": "train", "cents": 90_00}, {"what": "hotel", "cents": 180_00}]
LOW = [{"what": "train", "cents": 40_00}, {"what": "tea", "cents": 3_50}]


class Server:
    """A server process with a client."""

    def __init__(self, folder, pace="0"):
        command = [sys.executable, "-W", "error", PROGRAM, "--port", "0", "--pace", pace]
        self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        url = self.process.stdout.readline().removeprefix("serving ").removesuffix("/claims\n")
        self.client = httpx2.Client(base_url=url, timeout=20)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.client.close()
        self.process.kill()
        self.process.communicate()

    def post_claim(self, claim_id, receipts):
        answer = self.client.post(
            "/claims", json={"id": claim_id, "employee": "ann", "receipts": receipts}
        )
        assert answer.status_code == 201, answer.text
        assert answer.headers["location"] == f"/claims/{claim_id}"

    def answer(self, claim_id, request_id, approved):
        form = {"request_id": request_id, "approved": approved, "by": "bob"}
        return self.client.post(f"/claims/{claim_id}/answers", json=form)

    def follow(self, claim_id, last=0, until=lambda event: False):
        """Return a feed's events, until the feed ends or `until` holds for an event."""
        found = []
        headers = {"Last-Event-ID": str(last)} if last else {}
        with self.client.stream("GET", f"/claims/{claim_id}/events", headers=headers) as response:
            assert response.status_code == 200
            assert response.headers["content-type"] == "text/event-stream"
            event = SimpleNamespace(kind=None, id=None, data=None)
            for line in response.iter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    event.kind = value
                elif name == "id":
                    event.id = int(value)
                elif name == "data":
                    event.data = json.loads(value)
                elif event.kind:
                    found.append(event)
                    if until(event):
                        break
                    event = SimpleNamespace(kind=None, id=None, data=None)
        return found


def ids(events):
    return [event.id for event in events if event.kind == "history"]


def waits(event):
    return event.kind == "claim" and event.data["status"] == "waiting" and event.data["questions"]


@pytest.fixture
def server(tmp_path):
    with Server(tmp_path) as server:
        yield server


def test_a_small_claim_is_followed_to_its_end(server):
    server.post_claim("c-1", LOW)
    events = server.follow("c-1")

    assert ids(events) == list(range(1, len(ids(events)) + 1))
    assert events[-1].kind == "claim"
    assert events[-1].data == server.client.get("/claims/c-1").json()
    assert events[-1].data["status"] == "completed"
    assert events[-1].data["state"] == {
        "employee": "ann",
        "receipts": 2,
        "checked": 2,
        "cents": 43_50,
    }
    assert events[-1].data["result"] == {"approved": True, "cents": 43_50, "by": "the rules"}

    middle = ids(events)[3]
    assert ids(server.follow("c-1", last=middle)) == ids(events)[4:]
    last = {"Last-Event-ID": str(ids(events)[-1])}
    assert server.client.get("/claims/c-1/events", headers=last).status_code == 204


def test_a_server_killed_while_a_claim_waits_resumes_the_claim(tmp_path):
    with Server(tmp_path) as first:
        first.post_claim("c-1", HIGH)
        before = first.follow("c-1", until=waits)
        first.process.kill()  # SIGKILL
        first.process.wait()

    with Server(tmp_path) as second:
        [question] = second.client.get("/claims/c-1").json()["questions"]
        assert question["prompt"] == "May ann have 270.00?"
        assert second.answer("c-1", question["request_id"], approved=False).status_code == 202
        after = second.follow("c-1", last=ids(before)[-1])
        assert second.answer("c-1", question["request_id"], approved=True).status_code == 409

    received = ids(before) + ids(after)
    assert received == list(range(1, len(received) + 1))  # no event is missing or repeated
    assert after[-1].data["result"] == {"approved": False, "cents": 270_00, "by": "bob"}


def test_a_server_killed_during_steps_resumes_the_claim(tmp_path):
    with Server(tmp_path, pace="1000") as first:
        first.post_claim("c-1", LOW)
        before = first.follow("c-1", until=lambda event: event.data.get("kind") == "step_completed")
        first.process.kill()
        first.process.wait()

    with Server(tmp_path) as second:
        # The run keeps the pace of its start. So its steps are in flight again, and it can be
        # cancelled.
        after = second.follow(
            "c-1",
            last=ids(before)[-1],
            until=lambda event: event.data.get("kind") == "workflow_resumed",
        )
        assert after
        assert (
            second.client.post("/claims/c-1/cancel", json={"reason": "too slow"}).status_code == 202
        )
        claim = second.follow("c-1")[-1].data
    assert claim["status"] == "cancelled"
    assert "too slow" in claim["error"]
    assert claim["result"] is None


def test_sigterm_drains_the_server(tmp_path):
    with Server(tmp_path, pace="1") as first:
        first.post_claim("c-1", LOW)
        first.follow("c-1", until=lambda event: event.data.get("step") == "check")
        with first.client.stream("GET", "/claims/c-1/events") as feed:
            first.process.send_signal(signal.SIGTERM)
            feed.read()  # the server ends the feed, so that clients do not delay the shutdown
        assert first.process.wait(timeout=20) == 0

    with Server(tmp_path) as second:
        events = second.follow("c-1")
    dispatched = [one.data for one in events if one.data.get("kind") == "step_dispatched"]
    # The steps in flight could end, and were not run again.
    assert [one["step"] for one in dispatched].count("check") == 2
    assert events[-1].data["status"] == "completed"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "problem"),
    [
        ("GET", "/claims/none", None, 404, "run 'none' not found"),
        ("GET", "/claims/none/events", None, 404, "run 'none' not found"),
        (
            "POST",
            "/claims/none/answers",
            {"request_id": "1", "approved": True, "by": "bob"},
            404,
            "run 'none' not found",
        ),
        ("POST", "/claims/none/cancel", {"reason": "why"}, 404, "run 'none' not found"),
        (
            "POST",
            "/claims",
            {"id": "waits", "employee": "ann", "receipts": LOW},
            409,
            "run 'waits' already exists",
        ),
        (
            "POST",
            "/claims/waits/answers",
            {"request_id": "1", "approved": True, "by": "bob"},
            409,
            "'1' is open",
        ),
        (
            "POST",
            "/claims/ended/answers",
            {"request_id": "1", "approved": True, "by": "bob"},
            409,
            "has ended",
        ),
        ("POST", "/claims", {"id": "a/b", "employee": "ann", "receipts": LOW}, 422, "$.id"),
        ("POST", "/claims", {"id": "c", "receipts": LOW}, 422, "employee"),
        (
            "POST",
            "/claims",
            {"id": "c", "employee": "ann", "receipts": LOW, "x": 1},
            422,
            "extra fields found (x)",
        ),
        (
            "POST",
            "/claims",
            {"id": "c", "employee": "a", "receipts": [{"what": "b", "cents": 1.5}]},
            422,
            "expected int from 1 to 100000000, found 1.5 @ $.receipts[0].cents",
        ),
        ("POST", "/claims", {"id": "c", "employee": "a", "receipts": [7]}, 422, "$.receipts[0]"),
        ("POST", "/claims", {"id": "c", "employee": "a", "receipts": None}, 422, "$.receipts"),
        ("POST", "/claims", ["c"], 422, "not a JSON object"),
        (
            "POST",
            "/claims/waits/answers",
            {"request_id": "1", "approved": "false", "by": "bob"},
            422,
            "$.approved",
        ),
        ("POST", "/claims/waits/cancel", {}, 422, "reason"),
    ],
)
def test_error_responses_name_the_problem(busy_server, method, path, body, status, problem):
    answer = busy_server.client.request(method, path, json=body)

    assert answer.status_code == status, answer.text
    assert any(problem in text for text in answer.json()["problems"]), answer.text


@pytest.mark.parametrize("cents", [2**64 - 1, 2**70, -5, 0, True, "1", 1e30, None])
def test_invalid_amounts_are_rejected(busy_server, cents):
    form = {"id": "odd", "employee": "ann", "receipts": [{"what": "x", "cents": cents}] * 2}
    answer = busy_server.client.post("/claims", json=form)
    assert answer.status_code == 422
    assert "expected int from 1 to" in answer.text
    assert busy_server.client.get("/claims/odd").status_code == 404


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("employee", "a\0b"),
        ("employee", "x" * 1001),
        ("employee", ""),
        ("receipts", []),
        ("receipts", [LOW[0]] * 1001),
        ("receipts", [{"what": "a\0b", "cents": 1}]),
    ],
)
def test_invalid_texts_and_lists_are_rejected(busy_server, field, value):
    form = {"id": "odd", "employee": "ann", "receipts": LOW} | {field: value}
    assert busy_server.client.post("/claims", json=form).status_code == 422
    for path in ("answers", "cancel"):
        names = ("request_id", "by") if path == "answers" else ("reason",)
        body = dict.fromkeys(names, "a\x00b") | ({"approved": True} if path == "answers" else {})
        assert busy_server.client.post(f"/claims/waits/{path}", json=body).status_code == 422


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b" " * 2_000_000, b'{"id": "\\ud800"}', b"1" * 10_000]
)
def test_invalid_bodies_are_rejected(busy_server, content):
    for path in ("/claims", "/claims/waits/answers", "/claims/waits/cancel"):
        assert 400 <= busy_server.client.post(path, content=content).status_code < 500


@pytest.mark.parametrize("last", ["9" * 5000, "9" * 18, "-1", "x", "\u0663".encode(), "1e3", ""])
def test_an_invalid_last_event_id_counts_as_none(busy_server, last):
    headers = {"Last-Event-ID": last}
    answer = busy_server.client.get("/claims/ended/events", headers=headers)
    assert answer.status_code in (200, 204)
    if answer.status_code == 200:
        assert "id: 1\n" in answer.text


def test_invalid_json_and_invalid_ids_are_rejected(busy_server):
    assert busy_server.client.post("/claims", content=b"{").status_code == 422
    assert busy_server.client.post("/claims", content=b"\xff").status_code == 422
    for name in ("a%00b", "x" * 300, "a%20b", "%ff"):
        assert (
            busy_server.client.post(f"/claims/{name}/cancel", json={"reason": "why"}).status_code
            == 404
        )
    assert busy_server.client.delete("/claims/waits").status_code == 405


@pytest.fixture(scope="module")
def busy_server(tmp_path_factory):
    """A server with a claim that waits and one that has ended."""
    with Server(tmp_path_factory.mktemp("busy")) as server:
        server.post_claim("waits", HIGH)
        server.post_claim("ended", LOW)
        server.follow("waits", until=waits)
        server.follow("ended")
        yield server


@step
async def ask(ev: StartEvent) -> InputRequestEvent:
    return InputRequestEvent("well?")


@step
async def end(ev: InputResponseEvent) -> StopEvent:
    return StopEvent()


@pytest.fixture
async def read_waiting():
    """Return a function that reads a run that waits for an answer."""
    store = MemoryStore()
    with pytest.raises(InputRequiredError):
        await Workflow("asks", [ask, end]).run(store=store, run_id="r")
    return lambda: store.load_snapshot("r")


async def stay():
    await trio.sleep_forever()


async def test_a_silent_feed_sends_keep_alive_comments(example, read_waiting, autojump_clock):
    feed = example("web", "feed")
    sent = []

    async def send(message):
        sent.append(message.get("body"))

    with trio.move_on_after(50):
        await feed.EventFeed(read_waiting, 0, trio.Event())({}, stay, send)
    comments = [body for body in sent if body and body.startswith(b":")]
    assert len(comments) == 3
    assert len(sent) == 5  # the headers, the claim, and these


async def test_a_feed_ends_when_its_client_or_its_server_goes(
    example, read_waiting, autojump_clock
):
    feed = example("web", "feed")
    closing = trio.Event()

    async def send(message):
        pass

    async def leave():
        await trio.sleep(10)
        return {"type": "http.disconnect"}

    with trio.fail_after(11):
        await feed.EventFeed(read_waiting, 0, closing)({}, leave, send)
    closing.set()
    with trio.fail_after(1):
        await feed.EventFeed(read_waiting, 0, closing)({}, stay, send)
