"""Traces and metrics of runs, by OpenTelemetry: `pip install 'blazen-trio[otel]'`. Nothing of it is imported before `instrument`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blazen_trio._telemetry import hooks

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

__all__ = ["instrument", "uninstrument"]


def instrument(
    *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> None:
    """Trace and measure, in this process, every run that begins to be driven from now on, and every store.

    A second call takes the place of the first.

    Args:
        tracer_provider: Makes the spans; by default OpenTelemetry's global one.
        meter_provider: Takes the metrics; by default OpenTelemetry's global one.

    Raises:
        ImportError: The OpenTelemetry API is not installed.
    """
    try:
        from blazen_trio._telemetry.otel import OpenTelemetry
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "opentelemetry":
            raise
        msg = "instrument() needs the OpenTelemetry API: pip install 'blazen-trio[otel]'"
        raise ImportError(msg) from error
    hooks.listener = OpenTelemetry(tracer_provider, meter_provider)


def uninstrument() -> None:
    """Listen no more. Runs that are being driven are traced until this process leaves them. Does nothing where nobody listens."""
    hooks.listener = None
