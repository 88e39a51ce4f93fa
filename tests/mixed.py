"""A workflow that has one of everything, for the tests that crash it, and its expected result."""

from __future__ import annotations

import json
from typing import Any

import attrs
import trio

from blazen_trio import (
    Context,
    Delayed,
    Event,
    InputRequestEvent,
    InputResponseEvent,
    RetryPolicy,
    Snapshot,
    StartEvent,
    StepFailedEvent,
    StopEvent,
    Workflow,
    step,
)


@attrs.frozen
class Shelf(Event):
    shelf: int
    books: int


@attrs.frozen
class Book(Event):
    shelf: int
    number: int


@attrs.frozen
class Read(Event):
    pages: int


@attrs.frozen
class ShelfDone(Event):
    shelf: int
    pages: list[int]


@attrs.frozen
class Library(Event):
    shelves: list[list[int]]


@attrs.frozen
class Left(Event):
    n: int


@attrs.frozen
class Right(Event):
    n: int


@attrs.frozen
class Countdown(Event):
    n: int


@attrs.frozen
class Counted(Event):
    pass


@attrs.frozen
class Asked(InputRequestEvent):
    pages: int = 0


@attrs.frozen
class Approved(InputResponseEvent):
    pass


def pending_keys_of(snapshot: Snapshot) -> set[str]:
    """Return the idempotency keys of a run's pending deliveries."""
    nonce = json.loads(snapshot.to_json())["nonce"]
    run = f"{snapshot.run_id}:{nonce}"
    return {f"{run}:{delivery.id}:{delivery.step}" for delivery in snapshot.deliveries}


class Log:
    """The attempts that started in this process, as pairs of idempotency key and attempt number."""

    def __init__(self) -> None:
        self.attempts: list[tuple[str, int]] = []

    def note(self, ctx: Context) -> None:
        self.attempts.append((ctx.idempotency_key, ctx.attempt))
        ctx.update(
            "commits",
            lambda counts: {**counts, ctx.step_name: counts.get(ctx.step_name, 0) + 1},
            {},
        )


def mixed_workflow(
    log: Any, *, slowness: float = 0.01, in_thread: bool = False, **options: Any
) -> Workflow:
    """Return the workflow.

    It has a nested fan-out and fan-in, a chain, retries, a question, `collect`, delays, state with
    conflicts and a handled failure. With `in_thread`, the chain's step is a synchronous function.
    """

    @step
    async def open_library(ev: StartEvent, ctx: Context) -> list[Shelf]:
        log.note(ctx)
        return [Shelf(number, ev.data["books"]) for number in range(ev.data["shelves"])]

    @step
    async def open_shelf(ev: Shelf, ctx: Context) -> list[Book]:
        log.note(ctx)
        await trio.sleep(slowness * (ev.shelf + 1))
        return [Book(ev.shelf, number) for number in range(ev.books)]

    @step(retry=RetryPolicy(max_attempts=3, initial_delay=slowness, jitter=0), max_concurrency=3)
    async def read(ev: Book, ctx: Context) -> Read | Delayed[Read]:
        log.note(ctx)
        await trio.sleep(slowness)
        if ev.number == 1 and ctx.attempt == 1:
            msg = "the book fell down"
            raise OSError(msg)
        if ev.number == 2:
            msg = "this book has no pages"
            raise ValueError(msg)
        seen = ctx.get("seen", 0)
        await trio.sleep(slowness)
        ctx.set("seen", seen + 1)
        pages = Read(ev.shelf * 100 + ev.number)
        return Delayed(pages, slowness) if ev.number == 3 else pages

    @step(handles=["read"])
    async def replace_book(ev: StepFailedEvent, ctx: Context) -> Read:
        log.note(ctx)
        return Read(-ev.event.number)

    @step
    async def close_shelf(pages: list[Read], ctx: Context) -> ShelfDone:
        log.note(ctx)
        return ShelfDone(0, [one.pages for one in pages])

    @step
    async def close_library(
        shelves: list[ShelfDone], ctx: Context
    ) -> tuple[Left, Right, Countdown]:
        log.note(ctx)
        ctx.set("shelves", [one.pages for one in shelves])
        total = sum(sum(one.pages) for one in shelves)
        return Left(total), Right(len(shelves)), Countdown(3)

    def count_in_thread(ev: Countdown, ctx: Context) -> Countdown | Counted:
        log.note(ctx)
        ctx.update("counted", lambda seen: [*seen, ev.n], [])
        return Countdown(ev.n - 1) if ev.n else Counted()

    async def count_in_task(ev: Countdown, ctx: Context) -> Countdown | Counted:
        return count_in_thread(ev, ctx)

    count = step(name="count")(count_in_thread if in_thread else count_in_task)

    @step
    async def pair(ev: Left | Right, ctx: Context) -> Asked | None:
        log.note(ctx)
        both = ctx.collect(ev, [Left, Right])
        await trio.sleep(slowness)
        if both is None:
            return None
        return Asked("good?", pages=both[0].n * 10 + both[1].n)  # type: ignore[attr-defined]

    @step
    async def finish(ev: Approved | Counted, ctx: Context) -> StopEvent | None:
        log.note(ctx)
        if ctx.collect(ev, [Approved, Counted]) is None:
            return None
        return StopEvent(["yes", ctx.get("shelves"), ctx.get("seen"), ctx.get("counted")])

    async def approve(request: InputRequestEvent) -> Approved:
        await trio.sleep(slowness)
        return Approved(request.request_id, "yes")

    shelf_steps = [open_shelf, read, replace_book, close_shelf]
    steps = [open_library, *shelf_steps, close_library, count, pair, finish]
    return Workflow("mixed", steps, input_handler=approve, **options)


INPUT = {"shelves": 3, "books": 4}
SHELVES = [[shelf * 100, shelf * 100 + 1, -2, shelf * 100 + 3] for shelf in range(3)]


def check_result(result: list[Any]) -> None:
    """Check the result that every run has to return."""
    response, shelves, seen, counted = result
    assert response == "yes"
    assert shelves == SHELVES
    assert seen == 9
    assert counted == [3, 2, 1, 0]
