"""Seeded random choices."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Chooser"]


class Chooser:
    """Picks what happens next, as a seed determines."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def pick(self, choices: Sequence[Any]) -> Any:
        return self._random.choice(choices)

    def one_in(self, number: int) -> bool:
        return self._random.randrange(number) == 0
