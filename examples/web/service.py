"""The web service: an ASGI application over one runtime.

    POST /claims                {"id": "c-1", "employee": "ann",
                                 "receipts": [{"what": "train", "cents": 4200}]}
    GET  /claims/{id}           the claim's state
    GET  /claims/{id}/events    its changes, as server-sent events
    POST /claims/{id}/answers   {"request_id": "...", "approved": true, "by": "bob"}
    POST /claims/{id}/cancel    {"reason": "a mistake"}

A request only uses the database: it submits, answers or reads. The runtime drives the runs in the
background, or another process of this program does, or a worker. So a request never waits for a
run, and a claim is durable before the client learns that it was accepted.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator
from typing import Any

import orjson
import trio
from claims import Claim, Decision, Receipt, claims
from feed import EventFeed
from forms import (
    CLAIM_ID,
    BadInputError,
    CancelForm,
    ClaimForm,
    DecisionForm,
    TooLargeError,
    read_form,
    read_number,
    show_claim,
)
from starlette.applications import Starlette
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from blazen_trio import (
    InputResponseError,
    RunExistsError,
    RunFinishedError,
    RunNotFoundError,
    StoreError,
    open_runtime,
    open_store,
)

STATUS_CODES: dict[type[Exception], int] = {
    RunNotFoundError: 404,
    RunExistsError: 409,
    RunFinishedError: 409,
    InputResponseError: 409,  # answered already, or never asked
    BadInputError: 422,
    TooLargeError: 413,
    StoreError: 503,
}
"""The status codes for errors. Any other error is a bug, and a 500."""


class ClaimIdConvertor(StringConvertor):
    """A path that contains a valid claim id. Any other path is a 404."""

    regex = CLAIM_ID


register_url_convertor("claim", ClaimIdConvertor())


def make_app(database: str, closing: trio.Event, *, pace: float = 0.0) -> Starlette:
    """Return the application.

    Args:
        database: The URL of the database.
        closing: Set when the server shuts down. Feeds end then.
        pace: Seconds that the check of a receipt takes.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, Any]]:
        # If the runtime fails for good, so do the lifespan and the server. A supervisor has to
        # restart the server then.
        async with (
            open_store(database) as store,
            open_runtime(store, [claims], poll_interval=0.1, drain_timeout=20) as runtime,
            trio.open_nursery() as nursery,
        ):
            # Claims that come in before its first poll are stored, so that poll finds them.
            nursery.start_soon(runtime.serve)  # noqa: ASYNC113
            yield {"store": store, "runtime": runtime, "closing": closing, "pace": pace}
            # No more requests come in. Take no more runs. The end of the runtime's block drains the
            # runs in flight.
            nursery.cancel_scope.cancel(reason="the server shuts down")

    return Starlette(
        routes=[
            Route("/claims", post_claim, methods=["POST"]),
            Route("/claims/{id:claim}", get_claim),
            Route("/claims/{id:claim}/events", get_events),
            Route("/claims/{id:claim}/answers", post_answer, methods=["POST"]),
            Route("/claims/{id:claim}/cancel", post_cancel, methods=["POST"]),
        ],
        exception_handlers=dict.fromkeys(STATUS_CODES, show_error),
        lifespan=lifespan,
    )


async def post_claim(request: Request) -> Response:
    """Submit a claim: 201, or 409 if its id exists, which is success to a client that retries."""
    form = await read_form(request, ClaimForm)
    receipts = [Receipt(one.what, one.cents) for one in form.receipts]
    claim = Claim(employee=form.employee, receipts=receipts)
    await request.state.runtime.submit(
        claims, claim, run_id=form.id, metadata={"pace": request.state.pace}
    )
    return as_json({"id": form.id}, 201, {"Location": f"/claims/{form.id}"})


async def get_claim(request: Request) -> Response:
    """Return a claim's state."""
    return as_json(show_claim(await request.state.store.load_snapshot(request.path_params["id"])))


async def get_events(request: Request) -> Any:
    """Return a claim's feed, or 204 if the client has all events of an ended run.

    An `EventSource` does not reconnect after a 204.
    """
    read = functools.partial(request.state.store.load_snapshot, request.path_params["id"])
    snapshot = await read()
    header = request.headers.get("last-event-id", "")
    last = read_number(header)
    if snapshot.status.ended and snapshot.history and last >= snapshot.history[-1].sequence:
        return Response(status_code=204)
    return EventFeed(read, last, request.state.closing)


async def post_answer(request: Request) -> Response:
    """Answer a question. It is durable when the client gets its 202, and waits for a driver."""
    form = await read_form(request, DecisionForm)
    answer = Decision(request_id=form.request_id, approved=form.approved, by=form.by)
    await request.state.runtime.respond(request.path_params["id"], answer)
    return Response(status_code=202)


async def post_cancel(request: Request) -> Response:
    """Cancel a claim. This does nothing if the claim has ended."""
    form = await read_form(request, CancelForm)
    await request.state.runtime.cancel(request.path_params["id"], form.reason)
    return Response(status_code=202)


async def show_error(_request: Request, error: Exception) -> Response:
    """Return an error as JSON, with its status code."""
    status = next(STATUS_CODES[cls] for cls in type(error).__mro__ if cls in STATUS_CODES)
    problems = error.problems if isinstance(error, BadInputError) else [str(error)]
    return as_json({"problems": problems}, status)


def as_json(
    content: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Return a response with JSON."""
    return Response(orjson.dumps(content), status, headers, "application/json")
