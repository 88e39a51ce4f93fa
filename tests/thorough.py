"""How much of what they could try the tests try: a part of it, or with `nox -s thorough` all."""

from __future__ import annotations

import os
from typing import Final

THOROUGH: Final = os.environ.get("BLAZEN_TRIO_TEST_THOROUGH") == "1"


def try_many(usually: int, thoroughly: int) -> int:
    """How many seeds, examples or points a test tries."""
    return thoroughly if THOROUGH else usually
