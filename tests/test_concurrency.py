"""Concurrency helpers: bare errors, protection from interrupts, clocks, guest mode and signals."""

from __future__ import annotations

import queue
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from benchmarks.workloads import CHAIN
from blazen_trio import open_store
from blazen_trio._clock import wall_clock
from blazen_trio._concurrency import Signal, bare_errors, is_guest, protected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path


async def _fail(error: BaseException) -> None:
    raise error


async def _raised(body: BaseException, *children: BaseException) -> BaseException:
    """Return the exception that leaves a nursery in which these are raised."""
    with pytest.raises(BaseException) as raised, bare_errors():
        async with trio.open_nursery() as nursery:
            for child in children:
                nursery.start_soon(_fail, child)
            if children:
                await trio.testing.wait_all_tasks_blocked()
            raise body
    return raised.value


async def test_a_single_error_is_raised_unchanged() -> None:
    cause, context = KeyError("cause"), TypeError("context")
    error = ValueError("alone")
    error.__cause__, error.__context__ = cause, context
    try:
        raise error from cause
    except ValueError:
        error.__context__ = context
    depth = _depth(error)
    assert await _raised(error) is error
    assert error.__cause__ is cause
    assert error.__context__ is context
    assert _depth(error) > depth


def _depth(error: BaseException) -> int:
    depth, traceback = 0, error.__traceback__
    while traceback is not None:
        depth, traceback = depth + 1, traceback.tb_next
    return depth


async def test_an_error_without_a_context_gets_none() -> None:
    error = ValueError("alone")
    await _raised(error)
    assert error.__context__ is None
    assert error.__cause__ is None


async def test_a_childs_error_is_raised_bare_when_it_cancels_the_body() -> None:
    error = ValueError("a child's")
    with pytest.raises(ValueError, match="a child's") as raised, bare_errors():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_fail, error)
            await trio.sleep_forever()
    assert raised.value is error


async def test_several_errors_stay_in_a_group() -> None:
    async def fail_after_all(error: Exception) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise error

    with pytest.RaisesGroup(ValueError, KeyError), bare_errors():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_after_all, KeyError("a child's"))
            await trio.testing.wait_all_tasks_blocked()
            raise ValueError("the body's")


async def test_a_group_raised_by_the_body_stays_a_group() -> None:
    one = ValueError("one")
    raised = await _raised(ExceptionGroup("mine", [one]))
    assert isinstance(raised, ExceptionGroup)
    # Trio's scopes replace it with an equal group.
    assert (raised.message, raised.exceptions) == ("mine", (one,))


async def test_the_bodys_error_is_raised_even_if_the_outer_scope_is_cancelled() -> None:
    async def hold() -> None:
        # Outlives the nursery's own cancellation, so that the outer scope's one ends it.
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep_forever()

    error = ValueError("the body's")
    with (
        pytest.raises(ValueError, match="the body's") as raised,
        trio.CancelScope() as scope,
        bare_errors(),
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            raise error
    assert raised.value is error


async def test_a_cancellation_without_an_error_reaches_its_scope() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        with bare_errors():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                await trio.sleep_forever()
    assert scope.cancelled_caught


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_an_interrupt_is_raised_bare_with_other_errors_as_its_context(
    kind: type[BaseException],
) -> None:
    before = KeyError("before")
    interrupt = kind()
    interrupt.__context__ = before

    async def fail_after_all() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("beside")

    with pytest.raises(kind) as raised, bare_errors():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_after_all)
            await trio.testing.wait_all_tasks_blocked()
            raise interrupt
    assert raised.value is interrupt
    assert interrupt.__context__ is before
    beside = before.__context__
    assert isinstance(beside, ExceptionGroup)
    assert [str(each) for each in beside.exceptions] == ["beside"]


async def test_of_an_interrupt_and_an_exit_one_is_raised_bare() -> None:
    ended = await _raised(SystemExit(3), KeyboardInterrupt())
    assert isinstance(ended, KeyboardInterrupt | SystemExit)


@protected
@asynccontextmanager
async def _block(seen: list[bool]) -> AsyncIterator[str]:
    seen.append(trio.lowlevel.currently_ki_protected())
    with bare_errors():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                yield "in it"  # noqa: ASYNC101
            finally:
                seen.append(trio.lowlevel.currently_ki_protected())
                nursery.cancel_scope.cancel()


def _interrupted(main: Callable[[], Awaitable[None]]) -> BaseException | None:
    try:
        trio.run(main)
    except BaseException as error:  # noqa: ASYNC103
        return error  # noqa: ASYNC104
    return None


def test_entry_and_exit_of_a_protected_block_are_protected_but_not_its_body() -> None:
    seen: list[bool] = []

    async def main() -> None:
        async with _block(seen) as given:
            assert given == "in it"
            seen.append(trio.lowlevel.currently_ki_protected())

    trio.run(main)
    assert seen == [True, False, True]


def test_an_interrupt_in_a_protected_block_is_raised_bare() -> None:
    async def main() -> None:
        async with _block([]):
            signal.raise_signal(signal.SIGINT)

    assert type(_interrupted(main)) is KeyboardInterrupt


def test_an_error_of_the_body_keeps_its_traceback_through_a_protected_block() -> None:
    async def main() -> None:
        async with _block([]):
            await _fail(ValueError("mine"))

    error = _interrupted(main)
    assert type(error) is ValueError
    assert error.__context__ is None


def test_utc_follows_only_a_mock_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    host = 1_000_000.0
    monkeypatch.setattr("time.time", lambda: host)

    async def main() -> None:
        nonlocal host
        clock, start = wall_clock(), wall_clock().now()
        await trio.sleep(3600)
        assert clock.now() == pytest.approx(start + 3600, abs=1)
        host += 600
        assert clock.now() == pytest.approx(start + 3600, abs=1)
        assert not clock.may_be_set

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_utc_follows_the_host_clock_immediately(monkeypatch: pytest.MonkeyPatch) -> None:
    host = 1_000_000.0
    monkeypatch.setattr("time.time", lambda: host)

    async def main() -> None:
        nonlocal host
        clock = wall_clock()
        for leap in (3600, -7200, 0.5):  # a suspended machine wakes; the clock is set back
            host += leap
            assert clock.now() == host
        assert clock.may_be_set

    trio.run(main)


def guest_run(function: Callable[[], Awaitable[Any]]) -> Any:
    """Run Trio as the guest of a loop that is a queue of callbacks."""
    callbacks: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
    outcomes: list[Any] = []
    trio.lowlevel.start_guest_run(
        function, run_sync_soon_threadsafe=callbacks.put, done_callback=outcomes.append
    )
    while not outcomes:
        callbacks.get(timeout=30)()
    return outcomes[0].unwrap()


def test_is_guest_is_true_only_in_guest_mode() -> None:
    async def main() -> bool:
        await trio.lowlevel.checkpoint()
        return is_guest()

    assert guest_run(main) is True
    assert trio.run(main) is False


def test_a_store_works_in_guest_mode(tmp_path: Path) -> None:
    async def main() -> Any:
        async with open_store(f"sqlite:///{tmp_path / 'runs.db'}", migrate=True) as store:
            return await CHAIN[False].run(5, store=store)

    assert guest_run(main) == 5


# Signals


async def test_a_signal_set_several_times_wakes_its_task_once(autojump_clock: Any) -> None:
    waker, woken = Signal(), 0

    async def wait() -> None:
        nonlocal woken
        while True:
            await waker.wait()
            woken += 1

    async with trio.open_nursery() as nursery:
        waker.set()  # before a task waits
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert woken == 1
        waker.set()
        waker.set()
        await trio.testing.wait_all_tasks_blocked()
        assert woken == 2
        waker.set()
        waker.clear()  # too late: the task is already being woken
        await trio.testing.wait_all_tasks_blocked()
        assert woken == 3
        nursery.cancel_scope.cancel()


async def test_a_signal_set_while_its_wait_is_cancelled_is_kept() -> None:
    waker = Signal()

    async def wait(scope: trio.CancelScope) -> None:
        with scope:
            await waker.wait()

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, scope)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        waker.set()
    assert scope.cancelled_caught
    with trio.fail_after(1):
        await waker.wait()  # returns immediately
    with trio.move_on_after(0) as over:
        await waker.wait()  # blocks: the first wait cleared it
    assert over.cancelled_caught


def test_a_signal_cleared_before_the_wait_is_not_seen() -> None:
    async def main() -> bool:
        waker = Signal()
        waker.set()
        waker.clear()
        with trio.move_on_after(60) as scope:
            await waker.wait()
        return scope.cancelled_caught

    assert trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
