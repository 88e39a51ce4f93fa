"""A process that traces its run: `python child.py URL go|stay FILE`.

It writes each span to a line of the file. With `stay`, its run never ends.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import attrs
import trio
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from blazen_trio import Event, RunNotFoundError, StartEvent, StopEvent, Workflow, open_store, step
from blazen_trio.telemetry import instrument

URL, HOW, FILE = sys.argv[1:]


class Lines(SpanExporter):
    """Writes each span immediately, so that it outlives the process."""

    def export(self, spans: list[ReadableSpan]) -> SpanExportResult:
        with Path(FILE).open("a", encoding="utf-8") as file:
            for span in spans:
                parent = span.parent and f"{span.parent.span_id:016x}"
                line = [
                    span.name,
                    f"{span.context.trace_id:032x}",
                    f"{span.context.span_id:016x}",
                    parent,
                ]
                file.write(json.dumps([*line, dict(span.attributes)]) + "\n")
        return SpanExportResult.SUCCESS


@attrs.frozen
class Go(Event):
    pass


@step
async def begin(ev: StartEvent) -> Go:
    return Go()


@step
async def go(ev: Go) -> StopEvent:
    if HOW == "stay":
        os.write(1, b"here\n")
        await trio.sleep_forever()
    return StopEvent("gone")


flow = Workflow("killed", [begin, go])


async def main() -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Lines()))
    instrument(tracer_provider=provider)
    async with open_store(URL) as store:
        try:
            result = await flow.resume_from("r", store=store)
        except RunNotFoundError:
            result = await flow.run(store=store, run_id="r")
    os.write(1, f"{result}\n".encode())


if __name__ == "__main__":
    trio.run(main)
