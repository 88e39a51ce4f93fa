"""Recorded spans and metrics, and workflows to trace."""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from blazen_trio import (
    Context,
    Event,
    InputRequestEvent,
    InputResponseEvent,
    RetryPolicy,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)

__all__ = ["Go", "Seen", "asks", "parent_of", "ticks", "wobbles"]


@attrs.frozen
class Go(Event):
    pass


@step
async def begin(ev: StartEvent) -> Go:
    return Go()


@step
async def go(ev: Go) -> StopEvent:
    return StopEvent("gone")


@step(retry=RetryPolicy(max_attempts=3, initial_delay=5.0))
async def wobble(ev: StartEvent, ctx: Context) -> StopEvent:
    if ctx.attempt < ev.data:
        msg = f"attempt {ctx.attempt}"
        raise OSError(msg)
    return StopEvent(ctx.attempt)


@step
async def ask(ev: StartEvent) -> InputRequestEvent:
    return InputRequestEvent("well?")


@step
async def answered(ev: InputResponseEvent) -> StopEvent:
    return StopEvent(ev.response)


ticks = Workflow("ticks", [begin, go])
wobbles = Workflow("wobbles", [wobble])
asks = Workflow("asks", [ask, answered])


def parent_of(span: ReadableSpan) -> int | None:
    """Return the id of a span's parent."""
    return None if span.parent is None else span.parent.span_id


class Seen:
    """Spans and metrics of this process."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)

    def spans(self, name: str | None = None) -> list[ReadableSpan]:
        """Return the spans that have ended, in the order of their ends."""
        return [span for span in self._exporter.get_finished_spans() if name in (None, span.name)]

    def span(self, name: str) -> ReadableSpan:
        """Return the only span of this name."""
        [span] = self.spans(name)
        return span

    def points(self) -> dict[str, list[tuple[dict[str, Any], Any]]]:
        """Return the points of each metric: their attributes and values."""
        data = self._reader.get_metrics_data()
        found: dict[str, list[tuple[dict[str, Any], Any]]] = {}
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = [
                        (dict(point.attributes), point) for point in metric.data.data_points
                    ]
        return found

    def counts(self, name: str, attribute: str) -> Counter[Any]:
        """Return the values of a counter, or the counts of a histogram, by an attribute."""
        found: Counter[Any] = Counter()
        for attributes, point in self.points()[name]:
            found[attributes[attribute]] += getattr(point, "value", None) or point.count
        return found
