from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from blazen_trio.telemetry import instrument, uninstrument
from tests.telemetry.seen import Seen

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def seen() -> Iterator[Seen]:
    """Trace and measure this process."""
    found = Seen()
    instrument(tracer_provider=found.tracers, meter_provider=found.meters)
    yield found
    uninstrument()
    found.tracers.shutdown()
    found.meters.shutdown()
