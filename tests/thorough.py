"""The amount of work in exhaustive tests: a part by default, all with `nox -s thorough`."""

from __future__ import annotations

import os
from typing import Final

THOROUGH: Final = os.environ.get("BLAZEN_TRIO_TEST_THOROUGH") == "1"


def try_many(usually: int, thoroughly: int) -> int:
    """Return the number of seeds, examples or points that a test tries."""
    return thoroughly if THOROUGH else usually
