"""OpenTelemetry is imported when it is used, and an error names it if it is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from blazen_trio.telemetry import instrument, uninstrument


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60
    )


def test_opentelemetry_is_imported_by_instrument_and_not_before() -> None:
    done = run(
        "import sys, trio, blazen_trio, blazen_trio.telemetry as telemetry\n"
        "from blazen_trio import StartEvent, StopEvent, Workflow, step\n"
        "@step\n"
        "async def only(ev: StartEvent) -> StopEvent: return StopEvent(1)\n"
        "flow = Workflow('w', [only])\n"
        "telemetry.uninstrument()\n"
        "assert trio.run(flow.run) == 1\n"
        "loaded = [name for name in sys.modules if name.startswith('opentelemetry')]\n"
        "assert loaded == [], loaded\n"
        "assert 'blazen_trio._dispatch.traced_attempts' not in sys.modules\n"
        "telemetry.instrument()\n"
        "assert 'opentelemetry.trace' in sys.modules\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry.sdk')]\n"
        "assert trio.run(flow.run) == 1\n"
    )
    assert done.returncode == 0, done.stderr


def test_the_error_names_the_extra_if_opentelemetry_is_not_installed() -> None:
    done = run(
        "import sys; sys.modules['opentelemetry'] = None\nimport blazen_trio.telemetry as t\n"
        "try: t.instrument()\nexcept ImportError as error: print(error)"
    )
    assert (
        done.stdout == "instrument() needs the OpenTelemetry API: pip install 'blazen-trio[otel]'\n"
    )


def test_providers_must_be_given_by_name() -> None:
    with pytest.raises(TypeError):
        instrument(object())
    uninstrument()
