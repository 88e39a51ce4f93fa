"""OpenTelemetry traces and metrics of runs. They need `pip install 'blazen-trio[otel]'`.

OpenTelemetry is imported by `instrument`, not before.
"""

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
    """Trace and measure all stores, and all runs that this process starts to drive from now on.

    A second call replaces the first.

    Args:
        tracer_provider: The provider for spans; by default OpenTelemetry's global one.
        meter_provider: The provider for metrics; by default OpenTelemetry's global one.

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
    """Stop tracing and measuring. Does nothing if `instrument` was not called.

    Runs that are being driven are traced until this process leaves them.
    """
    hooks.listener = None
