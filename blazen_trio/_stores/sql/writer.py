"""The hand-over of jobs from Trio to the writer's thread, and of their outcomes back.

One thread writes everything: it takes all waiting jobs, writes them in one transaction, and wakes
the waiters with one call into the loop. There is no timer: a batch is what arrived while the last
one was being written. If several tasks have been submitting jobs, the jobs of one turn of the loop
are handed over together at its end. Otherwise the first of them would be a batch of one, written by
a thread that competes with the loop for the GIL while the others are still being submitted. The job
of a lone task is handed over at once.

A waiter whose job was handed over can't be cancelled, as the job may already be on disk. Every path
must therefore settle every waiter: the thread settles each batch, and when the thread ends, for
whatever reason, `run` settles the rest. Nor can a Ctrl-C leave a job half submitted: all of this is
protected, so KeyboardInterrupt is raised only at checkpoints, and `submit` has none between its
first statement and its parking. A job is therefore registered, gathered and waited for, or it was
never submitted. A gathered job is handed over by a task of the writer's own that is never
interrupted, whatever happens to the waiters.

A loop that never rests starves the thread: Trio releases the GIL for a moment in each turn, which
restarts the thread's request for it, so the request is never granted. While a batch is being
written beside a busy loop, `_pace` therefore releases the GIL after each turn, for half as long as
the turn took, or until the batch is written. The loop stands still for that time: at most 2.5 ms a
turn (half of Python's default switch interval), and only if its turns take as long. Turns longer
than the switch interval are interrupted by Python, and a loop that rests pays nothing.

Beside a task that computes for 0.5 ms in each turn, a commit takes 6 ms with `_pace` and 20 to 30
without it; for 1 ms, 15 and 50; for 2 ms, 20 and 42; for 4 ms, the same (SQLite, Python 3.11, two
cores that were not quiet). In guest mode there is no pacing: the thread of the host's loop (a
window's, say) must not stand still, and the host takes its turns between Trio's.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import trio

from blazen_trio._concurrency import Signal, bare_errors, is_guest, protected_methods
from blazen_trio._telemetry import hooks
from blazen_trio.errors import StoreError

if TYPE_CHECKING:
    from blazen_trio._stores.sql.batches import Batches
    from blazen_trio._stores.sql.jobs import Job

__all__ = ["Writer"]

_BATCH_BYTES = 4 * 1024 * 1024
_TICK = 0.003  # seconds between two checks by `_pace` if turns are short or very long
_RESTED = 0.0002  # seconds: after a shorter turn, the loop rests and the thread gets the GIL
_SHARE = 0.5  # of a longer turn: for at most that long, the GIL is released after it


def _refuse_abort(_raise_cancel: Any) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


@protected_methods
class Writer:
    """Takes jobs from tasks and has them written by a thread.

    Args:
        batches: Writes the jobs.
        renew_every: How often an idle thread renews the lease, in seconds.
    """

    def __init__(self, batches: Batches, *, renew_every: float) -> None:
        self._batches = batches
        self._renew_every = renew_every
        self._queue: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        """The jobs that were handed over; `None` ends the queue."""
        self._gathered: list[Job] = []
        """The jobs submitted in this turn, which are handed over at its end."""
        self._several = False
        """Set if the last hand-over had several jobs, or came while another was under way."""
        self._waiting: dict[Job, trio.lowlevel.Task] = {}
        self._turns, self._paces = Signal(), Signal()
        self._written = threading.Event()
        """Set by the thread when a batch is written, and cleared when its waiters are woken."""
        self._closed = False
        self._fault: BaseException | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._backlog: deque[Job] = deque()
        """For the thread: the jobs that it has taken from the queue."""
        self._closing = False
        """For the thread: nothing more will arrive."""
        self._losses: list[Job] = []
        """The drivers lost when the thread ended."""

    async def submit(self, job: Job) -> Any:
        """Hand a job over without an earlier checkpoint, and wait until it is on disk.

        This can't be cancelled; a Ctrl-C is raised at the next checkpoint.

        Raises:
            StoreError: The job could not be written, or the writer has ended.
            WorkflowError: The job was refused.
        """
        self.check_open()
        self._waiting[job] = trio.lowlevel.current_task()
        self._gathered.append(job)
        if not self._several:
            self._hand_over()
        elif len(self._gathered) == 1:
            self._turns.set()
        self._paces.set()
        await trio.lowlevel.wait_task_rescheduled(_refuse_abort)
        if job.error is not None:
            raise job.error
        return job.result

    @property
    def waiting(self) -> int:
        """The number of jobs that were submitted and are not on disk yet."""
        return len(self._waiting)

    def check_open(self) -> None:
        """Refuse a job if the writer has ended.

        Raises:
            StoreError: The writer was closed, or has crashed.
        """
        if self._closed or self._fault is not None:
            raise self._refusal()

    async def run(self) -> None:  # noqa: ASYNC910  # a task of the store's own
        """Run the thread until `close` or a crash; then settle the remaining waiters."""
        self._token = trio.lowlevel.current_trio_token()
        hooks.writers.append(self)
        try:
            # Shielded: the thread, and the task that hands jobs over to it, must last until
            # `close`. Otherwise cancelled tasks could no longer commit or release their runs.
            with trio.CancelScope(shield=True), bare_errors():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._hand_over_turns)
                    if not is_guest():
                        nursery.start_soon(self._pace)
                    await trio.to_thread.run_sync(
                        self._loop,
                        limiter=trio.CapacityLimiter(1),
                        thread_name="blazen_trio writer",
                    )
                    nursery.cancel_scope.cancel(reason="the store is closed")
        except Exception as fault:  # noqa: BLE001  # raised to every waiter, also later ones
            self._fault = fault
        finally:
            hooks.writers.remove(self)
            self._closed = True
            # The thread's own calls of `_wake` came before its end, so none of these is on disk as
            # far as anyone knows.
            for job in self._waiting:
                job.error = self._refusal()
            self._wake([*self._losses, *self._waiting])

    def close(self) -> None:
        """Accept no more jobs: the thread writes those that it was given, and ends."""
        self._closed = True
        self._hand_over()
        self._queue.put(None)

    def _hand_over(self) -> None:
        gathered = self._gathered
        if gathered:
            self._gathered = []
            self._several = len(self._waiting) > 1
            self._queue.put(gathered)

    async def _hand_over_turns(self) -> None:  # noqa: ASYNC910  # until it is cancelled
        """Hand over the jobs that were gathered in one turn of the loop, in the next."""
        while True:
            self._hand_over()
            await self._turns.wait()

    async def _pace(self) -> None:
        """Keep the thread from starving beside a busy loop.

        Parks while nothing is being written.
        """
        # For this task, a turn can look arbitrarily short, since the order of tasks within a turn
        # is random. Hence the mean of two.
        last = turn = 0.0
        while True:
            while not self._waiting:
                await self._paces.wait()
            mean = (last + turn) / 2
            if _RESTED < mean < sys.getswitchinterval():
                self._written.wait(mean * _SHARE)  # releases the GIL to the thread
            else:
                await trio.sleep(_TICK)
            began = time.perf_counter()
            await trio.lowlevel.checkpoint()
            last, turn = turn, time.perf_counter() - began

    def _refusal(self) -> StoreError:
        if self._fault is None:
            msg = "this store is closed; use it only inside the block of open_store"
            return StoreError(msg)
        refusal = StoreError(
            f"the store's writer has crashed with {self._fault!r}, and writes nothing more. Open "
            "the store again, and resume its runs by their ids"
        )
        refusal.__cause__ = self._fault
        return refusal

    def _wake(self, jobs: list[Job]) -> None:
        """Settle these jobs and wake their waiters, in the loop's thread."""
        self._written.clear()
        # Settle all jobs first: a waiter that resumes must see the changes of the whole batch.
        for job in jobs:
            job.settle()
        for job in jobs:
            task = self._waiting.pop(job, None)
            if task is not None:
                trio.lowlevel.reschedule(task)

    # The methods below run in the thread.

    def _loop(self) -> None:
        try:
            while not self._write():
                pass
        finally:
            self._losses = self._batches.close()

    def _write(self) -> bool:
        """Write the next batch. Returns whether it was the last.

        A method of its own, so that no local variable of an idle thread keeps a batch in memory.
        """
        assert self._token is not None
        jobs, closing = self._take()
        told = self._batches.write(jobs)
        if told:
            self._written.set()
            self._token.run_sync_soon(self._wake, told)
        return closing

    def _take(self) -> tuple[list[Job], bool]:
        """Return the next jobs to write, in order, up to a bound, and whether they are the last.

        There are none if nothing arrived until the lease was due for renewal.
        """
        backlog = self._backlog
        if not backlog and not self._closing:
            try:
                self._receive(self._queue.get(timeout=self._batches.pause(self._renew_every)))
            except queue.Empty:
                return [], False
        while not self._queue.empty():
            self._receive(self._queue.get_nowait())
        jobs: list[Job] = []
        size = 0
        while backlog:
            following = backlog[0]
            if jobs and (jobs[0].alone or following.alone or size + following.size > _BATCH_BYTES):
                break
            jobs.append(backlog.popleft())
            size += following.size
        return jobs, self._closing and not backlog

    def _receive(self, handed_over: list[Job] | None) -> None:
        if handed_over is None:
            self._closing = True
        else:
            self._backlog.extend(handed_over)
