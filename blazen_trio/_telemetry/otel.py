"""The telemetry listener for OpenTelemetry, in the one module that imports OpenTelemetry."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel, metrics, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from blazen_trio._state.safe_text import text_of, traceback_of
from blazen_trio._state.status import RunStatus
from blazen_trio._telemetry import hooks

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Iterable, Mapping

    from opentelemetry.context import Context

    from blazen_trio._state.model import RunState

__all__ = ["OpenTelemetry"]

_W3C: Final = TraceContextTextMapPropagator()
"""The format of stored trace contexts.

It is fixed, whatever the program uses between its services, so that every process can read them.
"""
_SECONDS: Final = (
    0.001,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
    300,
    900,
    3600,
    14400,
    86400,
)
_SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_PAUSE_OVER: Final = frozenset(
    {
        "workflow_resumed",
        "input_received",
        "event_received",
        "workflow_completed",
        "workflow_failed",
        "workflow_timed_out",
        "workflow_cancelled",
    }
)


def _headers(context: Context) -> dict[str, str] | None:
    """Return the span of a context as W3C headers, for later drivers; `None` if there is none."""
    headers: dict[str, str] = {}
    _W3C.inject(headers, context)
    return headers or None


class OpenTelemetry:
    """The listener that makes spans and metrics.

    Args:
        tracer_provider: The provider for spans; `None`: the global one.
        meter_provider: The provider for metrics; `None`: the global one.
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None,
        meter_provider: metrics.MeterProvider | None,
    ) -> None:
        self.tracer = trace.get_tracer("blazen_trio", tracer_provider=tracer_provider)
        meter = metrics.get_meter("blazen_trio", meter_provider=meter_provider)
        self._runs = meter.create_counter(
            "blazen_workflow_total", description="Runs that have ended."
        )
        self._run_seconds = meter.create_histogram(
            "blazen_workflow_duration_seconds",
            "s",
            "Time from a run's creation to its end, including waits.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self.steps = meter.create_counter(
            "blazen_step_total", description="Attempts at steps that have ended."
        )
        self.step_seconds = meter.create_histogram(
            "blazen_step_duration_seconds",
            "s",
            "Duration of an attempt at a step, including its commit.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._commits = meter.create_counter(
            "blazen_commits_total", description="Commits that were stored."
        )
        self._batch_sizes = meter.create_histogram(
            "blazen_batch_size",
            "{commit}",
            "Commits that one transaction stored.",
            explicit_bucket_boundaries_advisory=_SIZES,
        )
        self._lease_losses = meter.create_counter(
            "blazen_lease_losses_total",
            description="Leases that were lost, with all the runs driven under them.",
        )
        meter.create_observable_gauge(
            "blazen_writer_queue",
            [self._waiting],
            "{commit}",
            "Commits that wait for the writer, or are being written.",
        )
        meter.create_observable_gauge(
            "blazen_runs", [self._driven], "{run}", "Runs that the runtimes of this process drive."
        )

    # Gauges, read in a thread of the metric reader. A callback can't be unregistered from a meter,
    # so each checks that this is still the listener.

    def _waiting(self, _options: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
        if hooks.listener is self:
            yield metrics.Observation(sum(writer.waiting for writer in list(hooks.writers)))

    def _driven(self, _options: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
        if hooks.listener is self:
            runtimes = list(hooks.populations)
            yield metrics.Observation(
                sum(runtime.working for runtime in runtimes), {"state": "working"}
            )
            yield metrics.Observation(
                sum(runtime.waiting for runtime in runtimes), {"state": "resting"}
            )

    # Calls of the engine

    def run(self, run_id: str, workflow: str, state: RunState | None = None) -> _Run:
        """See `Listener.run`."""
        return _Run(self, run_id, workflow, state)

    def submitted(self) -> Mapping[str, str] | None:
        """See `Listener.submitted`."""
        return _headers(otel.get_current())

    def run_ended(self, workflow: str, status: RunStatus, seconds: float) -> None:
        """See `Listener.run_ended`."""
        attributes = {"workflow_name": workflow, "status": status.value}
        self._runs.add(1, attributes)
        self._run_seconds.record(max(0.0, seconds), attributes)

    def batch_written(self, commits: int) -> None:
        """See `Listener.batch_written`."""
        self._commits.add(commits)
        self._batch_sizes.record(commits)

    def lease_lost(self) -> None:
        """See `Listener.lease_lost`."""
        self._lease_losses.add(1)


class _Run:
    """The span of a run, from when this process starts to drive it until it leaves it."""

    def __init__(
        self, listener: OpenTelemetry, run_id: str, workflow: str, state: RunState | None
    ) -> None:
        self.listener = listener
        self.about = {"workflow_name": workflow, "run_id": run_id}
        self._stored: Context | None = None
        self._paused: tuple[str, float] | None = None
        """The kind of the present pause, and its start (UTC); `None`: there is none."""
        current = otel.get_current()
        links = []
        if state is not None:
            if state.trace is not None:
                self._stored = _W3C.extract(state.trace, current)
                here = trace.get_current_span(current).get_span_context()
                if (
                    here.is_valid
                    and here != trace.get_current_span(self._stored).get_span_context()
                ):
                    links.append(trace.Link(here))
            if state.status is RunStatus.PAUSED:
                self._paused = "manual", state.updated
            elif state.status is RunStatus.WAITING and state.questions:
                self._paused = "input", state.updated
        self._span = listener.tracer.start_span(
            "workflow.run", self._stored or current, attributes=self.about, links=links
        )
        self.context = trace.set_span_in_context(self._span, current)
        self.trace = _headers(self.context)

    def driven_in(self, context: contextvars.Context) -> None:
        """See `RunListener.driven_in`."""
        context.run(otel.attach, self.context)

    def attempt(self, step: str, event_type: str, number: int) -> _Attempt:
        """See `RunListener.attempt`."""
        return _Attempt(
            self,
            step,
            {**self.about, "step_name": step, "event_type": event_type, "attempt": number},
        )

    def recorded(self, kind: str, at: float, detail: str | None) -> None:
        """See `RunListener.recorded`."""
        if kind == "workflow_paused":
            self._paused = self._paused or (detail or "manual", at)
        elif self._paused is not None and kind in _PAUSE_OVER:
            (pause_type, since), self._paused = self._paused, None
            # A pause that started under an earlier driver started before this span, so it gets the
            # same parent as this span.
            parent = self.context if self._stored is None else self._stored
            span = self.listener.tracer.start_span(
                "workflow.pause",
                parent,
                attributes={**self.about, "pause_type": pause_type},
                start_time=int(since * 1e9),
            )
            span.end(int(at * 1e9))

    def ended(self, state: RunState) -> None:
        """See `RunListener.ended`."""
        error = state.error
        if state.status in (RunStatus.FAILED, RunStatus.TIMED_OUT) and error is not None:
            _tell(self._span, error.error_type or error.kind, error.message, error.traceback)
            self._span.set_status(trace.StatusCode.ERROR, error.message)
        self._span.set_attribute("status", state.status.value)
        self._span.end()
        if state.status.ended:
            seconds = state.updated - state.created
            self.listener.run_ended(state.workflow, state.status, seconds)

    def lost(self, failure: BaseException) -> None:
        """See `RunListener.lost`."""
        _note(self._span, failure)
        self._span.end()


class _Attempt:
    """The span of an attempt at a step, which is the current span while the step runs."""

    __slots__ = ("_attributes", "_began", "_context", "_run", "_span", "_token")

    def __init__(self, run: _Run, step: str, attributes: dict[str, Any]) -> None:
        self._run = run
        self._attributes = {"workflow_name": attributes["workflow_name"], "step_name": step}
        self._span = run.listener.tracer.start_span(
            "workflow.step", run.context, attributes=attributes
        )
        self._began = perf_counter()

    def __enter__(self) -> None:
        # Detached at the end: a step task whose context variables have changed would have to end.
        self._context = trace.set_span_in_context(self._span)
        self._token = otel.attach(self._context)

    def __exit__(self, *_exception: object) -> None:
        otel.detach(self._token)

    def ended(self, outcome: str, error: BaseException | None) -> None:
        """See `AttemptListener.ended`."""
        seconds = perf_counter() - self._began
        span = self._span
        if error is not None:
            _note(span, error)
        span.set_attribute("outcome", outcome)
        span.set_attribute("duration_ms", int(seconds * 1000))
        span.end()
        attributes = {**self._attributes, "outcome": outcome}
        self._run.listener.steps.add(1, attributes)
        self._run.listener.step_seconds.record(seconds, attributes, self._context)


def _note(span: trace.Span, error: BaseException) -> None:
    if isinstance(error, Exception):  # a cancellation is not an error
        kind, text = type(error), text_of(error)
        _tell(span, f"{kind.__module__}.{kind.__qualname__}", text, traceback_of(error))
        span.set_status(trace.StatusCode.ERROR, f"{kind.__name__}: {text}")


def _tell(span: trace.Span, kind: str, message: str, stacktrace: str) -> None:
    """Record an exception on a span.

    `Span.record_exception` fails if `str` of the exception does, and accepts text that no exporter
    can encode.
    """
    told = {
        "exception.type": kind,
        "exception.message": message,
        "exception.stacktrace": stacktrace,
    }
    span.add_event("exception", {name: text for name, text in told.items() if text})
