"""The hand-over from Trio to the writer's thread, and back.

One thread writes everything: it takes all that waits, writes it in one transaction, and wakes the
waiters with one call into the loop. There is no timer: a batch is what arrived while the last one
was being written. What several tasks submit in one turn of the loop is handed over together, when
that turn is over: the first of it alone would be a batch of one, written by a thread that fights
the loop for the GIL while all the others come. Where one task alone has been submitting, its job is
handed over at once.

A waiter that has submitted its job can't be cancelled any more, as the job may be on disk already.
So every path has to settle every waiter: the thread settles each batch, and when the thread ends,
for whatever reason, `run` settles the rest. Nor can a Ctrl-C tear anything here: all of it is
protected, so KeyboardInterrupt is raised at checkpoints only, and `submit` has none between its
first statement and its parking. A job is therefore registered, gathered and waited for, or it was
never submitted; and a job that is gathered is handed over, by a task of the writer's own that
nobody interrupts, whatever becomes of those who wait.

A loop that never rests starves the thread: Trio gives the GIL away for a moment in each turn, so
the thread's claim to it starts anew each time and is never granted. `_pace` therefore, and only
while a batch is overdue beside a busy loop, gives the GIL away after each turn, for half of the
time that the turn took, or until the batch is written. That costs: the loop stands still for it,
for 2.5 ms a turn at most (half of Python's default switch interval), and only where its turns are
as long; in guest mode, the host's loop does. Whoever keeps the loop for longer than the switch
interval is interrupted by Python, and a loop that rests costs nothing.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import trio

from blazen_trio._concurrency import bare_errors, protected_methods
from blazen_trio._telemetry import hooks
from blazen_trio.errors import StoreError

if TYPE_CHECKING:
    from blazen_trio._stores.sql.batches import Batches
    from blazen_trio._stores.sql.jobs import Job

__all__ = ["Writer"]

_BATCH_BYTES = 4 * 1024 * 1024
_TICK = 0.003  # seconds between two looks at whether a batch is overdue
_RESTED = 0.0002  # seconds: a turn of the loop that is shorter has left the thread alone
_SHARE = 0.5  # of a turn that was longer: for so long, at most, the GIL is given away after it


def _refuse_abort(_raise_cancel: Any) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


class _Bench:
    """Where one task parks until it is called. A call finds it parked, or about to look again."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None

    async def park(self) -> None:
        """Park this task. Whoever does so looks first whether there is something to do."""
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def call(self) -> None:
        """Wake the task that is parked here, in the next turn of the loop."""
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    def _abort(self, _raise_cancel: Any) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


@protected_methods
class Writer:
    """Takes jobs from tasks and has them written by a thread.

    Args:
        batches: What writes them.
        renew_every: How often an idle thread renews the lease, in seconds.
    """

    def __init__(self, batches: Batches, *, renew_every: float) -> None:
        self._batches = batches
        self._renew_every = renew_every
        self._queue: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        """What was handed over; `None` is the last thing in it."""
        self._gathered: list[Job] = []
        """What was submitted in this turn, and is handed over when it is over."""
        self._several = False
        """Whether the last hand-over was of several jobs, or came while another was under way."""
        self._waiting: dict[Job, trio.lowlevel.Task] = {}
        self._turns, self._paces = _Bench(), _Bench()
        self._written = threading.Lock()
        """Released by the thread when a batch is written; acquired by `_pace`, to wait for that, or
        when its waiters are woken.
        """
        self._written.acquire()
        self._closed = False
        self._fault: BaseException | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._backlog: deque[Job] = deque()
        """In the thread: what it has taken out of the queue."""
        self._closing = False
        """In the thread: nothing more will come."""
        self._losses: list[Job] = []
        """What became of drivers when the thread ended."""

    async def submit(self, job: Job) -> Any:
        """Hand a job over before anything else happens, and wait until it is on disk.

        Not cancellable, and not interrupted by Ctrl-C, which comes at the next checkpoint.

        Raises:
            StoreError: It could not be written; or the writer has ended.
            WorkflowError: What the job was refused for.
        """
        self.check_open()
        self._waiting[job] = trio.lowlevel.current_task()
        self._gathered.append(job)
        if not self._several:
            self._hand_over()
        elif len(self._gathered) == 1:
            self._turns.call()
        self._paces.call()
        await trio.lowlevel.wait_task_rescheduled(_refuse_abort)
        if job.error is not None:
            raise job.error
        return job.result

    @property
    def waiting(self) -> int:
        """How many jobs were submitted and are not on disk yet."""
        return len(self._waiting)

    def check_open(self) -> None:
        """Refuse what can't be written any more.

        Raises:
            StoreError: The writer was closed, or has crashed.
        """
        if self._closed or self._fault is not None:
            raise self._refusal()

    async def run(self) -> None:  # noqa: ASYNC910  # a task of the store's own
        """Own the thread until `close`; then, or when it has crashed, settle whatever is left."""
        self._token = trio.lowlevel.current_trio_token()
        hooks.writers.append(self)
        try:
            # Shielded: the thread, and who hands over to it, have to be there until `close` says
            # that no more comes.
            with trio.CancelScope(shield=True), bare_errors():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._hand_over_turns)
                    nursery.start_soon(self._pace)
                    await trio.to_thread.run_sync(
                        self._loop,
                        limiter=trio.CapacityLimiter(1),
                        thread_name="blazen_trio writer",
                    )
                    nursery.cancel_scope.cancel(reason="the store is closed")
        except Exception as fault:  # noqa: BLE001  # told to every waiter, and all who come
            self._fault = fault
        finally:
            hooks.writers.remove(self)
            self._closed = True
            for job in self._waiting:
                job.error = self._refusal()
            self._wake([*self._losses, *self._waiting])

    def close(self) -> None:
        """Take nothing more: the thread writes what it was given, and ends."""
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
        """Hand over what a turn of the loop has gathered, when that turn is over."""
        while True:
            self._hand_over()
            await self._turns.park()

    async def _pace(self) -> None:
        """See to it that the thread makes headway beside a busy loop.

        Parks while nothing is being written.
        """
        # One turn can end, for this task, as soon as it began, since the order within a turn is
        # random: so it is the mean of two.
        last = turn = 0.0
        while True:
            if not self._waiting:
                await self._paces.park()
            mean = (last + turn) / 2
            if _RESTED < mean < sys.getswitchinterval():
                self._written.acquire(timeout=mean * _SHARE)  # the GIL goes to the thread
            else:
                await trio.sleep(_TICK)
            began = time.perf_counter()
            await trio.lowlevel.checkpoint()
            last, turn = turn, time.perf_counter() - began

    def _refusal(self) -> StoreError:
        if self._fault is None:
            msg = "this store is closed; open_store opens it for as long as its block lasts"
            return StoreError(msg)
        refusal = StoreError(
            f"the store's writer has ended by {self._fault!r}: nothing more is written. Open the "
            "store again, and resume its runs by their ids"
        )
        refusal.__cause__ = self._fault
        return refusal

    def _wake(self, jobs: list[Job]) -> None:
        """In the loop: their errors and results are in them."""
        self._written.acquire(blocking=False)
        # All of them first: whoever goes on next finds what all of this batch has changed.
        for job in jobs:
            job.settle()
        for job in jobs:
            task = self._waiting.pop(job, None)
            if task is not None:
                trio.lowlevel.reschedule(task)

    # What follows runs in the thread.

    def _loop(self) -> None:
        try:
            while not self._write():
                pass
        finally:
            self._losses = self._batches.close()

    def _write(self) -> bool:
        """Write the next batch. Returns whether it was the last. No job is referred to any more
        after that.
        """
        assert self._token is not None
        jobs, closing = self._take()
        told = self._batches.write(jobs)
        if told:
            if self._written.locked():
                self._written.release()
            self._token.run_sync_soon(self._wake, told)
        return closing

    def _take(self) -> tuple[list[Job], bool]:
        """What is to be written next, in order, up to a bound; nothing if nothing came for so long
        that the lease is to be renewed. Then whether nothing will follow.
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
