"""`blazen-trio worker`: a process that drives the runs of workflows until a signal ends it."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import attrs
import click
import trio

from blazen_trio import Runtime, Workflow, open_runtime, open_store
from blazen_trio._cli.commands import DATABASE, Command, Seconds, db_option, json_option, option
from blazen_trio._cli.exits import EXIT_CODES, ConfigError, after_signal
from blazen_trio._cli.output import LEVELS, say
from blazen_trio._cli.signals import Signals, StoppedLoadingError
from blazen_trio._cli.targets import Target, load_workflows, parse_targets

if TYPE_CHECKING:
    import logging
    from collections.abc import Sequence

__all__ = ["worker"]

_RUNS, _ENDING, _OUTPUT = "Run", "Ending", "Output"


@attrs.frozen
class _Settings:
    """The values of the options, whose help describes them."""

    max_concurrent_runs: int
    poll_interval: float
    idle_after: float
    max_crashes: int
    lease_ttl: float
    grace: float
    migrate: bool


@click.command("worker", cls=Command, epilog=EXIT_CODES)
@click.argument(
    "targets", nargs=-1, required=True, callback=parse_targets, metavar="PACKAGE.MODULE:WORKFLOW..."
)
@db_option
@option("--migrate/--no-migrate", group=DATABASE, default=False, envvar="BLAZEN_TRIO_MIGRATE",
        help="Create or upgrade the schema on a database server before starting. "
        "The schema of an SQLite file is always created or upgraded.")  # fmt: skip
@option("--lease-ttl", group=DATABASE, type=Seconds(min=0, min_open=True), default=15.0,
        envvar="BLAZEN_TRIO_LEASE_TTL",
        help="Let other workers take over the runs of this worker once it has shown no sign of "
        "life for this long, and as long again.")  # fmt: skip
@option("--max-concurrent-runs", group=_RUNS, type=click.IntRange(min=1), metavar="N", default=1000,
        envvar="BLAZEN_TRIO_MAX_CONCURRENT_RUNS",
        help="Execute at most this many runs at once.")  # fmt: skip
@option("--poll-interval", group=_RUNS, type=Seconds(min=0, min_open=True), default=0.5,
        envvar="BLAZEN_TRIO_POLL_INTERVAL",
        help="Poll for runs and inbox messages at this interval.")  # fmt: skip
@option("--idle-after", group=_RUNS, type=Seconds(min=0), default=10.0,
        envvar="BLAZEN_TRIO_IDLE_AFTER",
        help="Remove a run from memory once it has waited this long.")  # fmt: skip
@option("--max-crashes", group=_RUNS, type=click.IntRange(min=1), metavar="N", default=5,
        envvar="BLAZEN_TRIO_MAX_CRASHES",
        help="Fail a run whose workers have died this many times without committing a step in "
        "between.")  # fmt: skip
@option("--grace", group=_ENDING, type=Seconds(min=0), default=30.0, envvar="BLAZEN_TRIO_GRACE",
        help="Let the steps in flight finish for this long after the first signal. Then cancel "
        "them; other workers run them again.")  # fmt: skip
@option("--log-level", group=_OUTPUT, type=click.Choice(LEVELS, case_sensitive=False),
        default="info", envvar="BLAZEN_TRIO_LOG_LEVEL",
        help="Show log records of this level and above.")  # fmt: skip
@json_option("Write one JSON object per line instead of plain text.", group=_OUTPUT)
@click.pass_context
def worker(context: click.Context, /, targets: Sequence[Target], db: str, **settings: Any) -> None:
    """Drive the runs of workflows until a signal ends the process.

    Each argument names a workflow, or a list of workflows, in a module, such as
    shop.flows:countdown. Modules in the current directory can be imported.

    The first SIGTERM or SIGINT drains the worker: it takes no more runs, lets the steps in flight
    finish, and releases its runs for other workers to resume. The second one cancels the steps in
    flight immediately.
    """
    handler = context.obj
    for heeded in ("log_level", "as_json"):  # used by that handler
        del settings[heeded]
    with Signals() as signals:
        try:
            with signals.interrupting():
                workflows = load_workflows(targets)
        except StoppedLoadingError:
            say(
                handler,
                "ended",
                "ended by a signal before any work was started",
                fields={"exit_code": 0},
            )
            context.exit(0)
        process = _Worker(db, workflows, _Settings(**settings), signals, handler)
        context.exit(trio.run(process.run))


class _Worker:
    """Serves workflows from a store until signals end it.

    Args:
        url: The database.
        workflows: The workflows.
        settings: The values of the options.
        signals: The signals.
        handler: Writes its lines.
    """

    def __init__(
        self,
        url: str,
        workflows: Sequence[Workflow],
        settings: _Settings,
        signals: Signals,
        handler: logging.Handler,
    ) -> None:
        self._url = url
        self._workflows = workflows
        self._settings = settings
        self._signals = signals
        self._handler = handler
        self._everything, self._serving = trio.CancelScope(), trio.CancelScope()
        self._runtime: Runtime | None = None
        self._heeded: list[int] = []

    async def run(self) -> int:
        """Serve until drained or cancelled. Returns the exit code.

        Raises:
            ConfigError: The URL names a database that can't be used.
            StoreError: The database failed, or its schema is not the one needed.
        """
        failure: Exception | None = None
        with self._signals.received() as listen:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen, self._heed)
                try:
                    with self._everything:
                        await self._serve()
                except Exception as error:  # noqa: BLE001  # raised below, outside the nursery
                    failure = error
                nursery.cancel_scope.cancel(reason="the worker has ended")
        # If a signal ended it before it was ready, a failure while opening does not matter.
        if failure is not None and not (self._heeded and self._runtime is None):
            raise failure
        return self._ended()

    async def _serve(self) -> None:
        settings = self._settings
        async with AsyncExitStack() as stack:
            opening = open_store(self._url, lease_ttl=settings.lease_ttl, migrate=settings.migrate)
            try:
                store = await stack.enter_async_context(opening)
            except ValueError as error:
                raise ConfigError(str(error)) from error
            runtime = await stack.enter_async_context(
                open_runtime(
                    store,
                    self._workflows,
                    max_concurrent_runs=settings.max_concurrent_runs,
                    poll_interval=settings.poll_interval,
                    idle_after=settings.idle_after,
                    max_crashes=settings.max_crashes,
                    drain_timeout=settings.grace,
                )
            )
            self._runtime = runtime
            self._say_started()
            with self._serving:
                await runtime.serve()

    def _heed(self, number: int) -> None:
        """React to a signal: the first one drains, the second cancels, the third kills."""
        self._heeded.append(number)
        name = signal.Signals(number).name
        if len(self._heeded) > 1:
            self._everything.cancel(reason=f"{name} after another signal")
            self._say("cancelling", f"{name} again: the steps in flight are cancelled", signal=name)
            self._signals.give_up()
        elif self._runtime is None:
            self._everything.cancel(reason=f"{name} before the start")
        else:
            self._serving.cancel(reason=f"{name}")
            runs, grace = self._runtime.statistics().driving, self._settings.grace
            text = (
                f"{name}: draining; no more runs are taken, and steps in flight have {grace:g} s "
                f"(runs driven by this worker: {runs})"
            )
            self._say("draining", text, signal=name, driving=runs, grace=grace)

    def _say_started(self) -> None:
        names = sorted(workflow.name for workflow in self._workflows)
        fields = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "workflows": names,
            "database": self._url,
        }
        self._say(
            "started", f"process {os.getpid()} serves {', '.join(names)} from {self._url}", **fields
        )

    def _ended(self) -> int:
        code = (
            after_signal(self._heeded[-1])
            if len(self._heeded) > 1 and self._everything.cancelled_caught
            else 0
        )
        if self._runtime is None:
            self._say("ended", "ended by a signal before any work was started", exit_code=code)
            return code
        counts = self._runtime.statistics()
        how = "ended at once" if code else "drained"
        text = f"{how} (runs taken: {counts.taken}, ended: {counts.ended}, released: {counts.left})"
        self._say(
            "ended", text, taken=counts.taken, ended=counts.ended, left=counts.left, exit_code=code
        )
        return code

    def _say(self, event: str, text: str, **fields: Any) -> None:
        say(self._handler, event, text, fields=fields)
