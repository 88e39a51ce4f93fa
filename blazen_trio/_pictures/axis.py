"""The axis of a timeline: from seconds to pixels, with long idle times drawn short; and durations in words."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blazen_trio._pictures.attempts import Idle

__all__ = ["Axis", "in_words"]

_IDLE_SHARE: Final = 0.6
"""How wide all idle times together may be, of the width of what is not idle."""
_APART: Final = 80.0
"""Pixels between two ticks, at least."""
_STEPS: Final = (
    *(number * 10.0**power for power in range(-6, 1) for number in (1, 2, 5)),
    *(10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 10800.0, 21600.0, 43200.0),
    *(86400.0 * days for days in (1, 2, 7, 14, 28, 91, 182, 364)),
)
_UNITS: Final = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def in_words(seconds: float) -> str:
    """A duration for people: `250 ms`, `1.5 s`, `2 min 30 s`, `3 d 2 h`."""
    if seconds < 0.0009995:
        return f"{seconds * 1e6:.3g} \N{MICRO SIGN}s" if seconds else "0 s"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    seconds = round(seconds)
    for (unit, name), (smaller, smaller_name) in itertools.pairwise(_UNITS):
        if seconds >= unit:
            whole, rest = divmod(seconds, unit)
            part = int(rest // smaller)
            return f"{whole:.0f} {name}" + (f" {part} {smaller_name}" if part else "")
    return f"{seconds:.0f} s"


class Axis:
    """Maps a run's seconds to pixels.

    Args:
        length: Seconds in all.
        left: Where it begins, in pixels.
        width: How wide it is.
        idle: In order; those that would take too much room are drawn shorter than they were.

    Attributes:
        cut: The idle times that are drawn shorter.
    """

    def __init__(self, length: float, left: float, width: float, idle: Sequence[Idle]) -> None:
        self.left, self.width, self.length = left, width, length
        busy = length - sum(one.end - one.start for one in idle)
        room = busy * _IDLE_SHARE
        cap = room / len(idle) if idle and length - busy > room > 0 else length
        self.cut = {one for one in idle if one.end - one.start > cap}
        self._times, widths = [0.0], [0.0]
        for one in idle:
            for time, shown in ((one.start, None), (one.end, cap if one in self.cut else None)):
                widths.append(widths[-1] + (time - self._times[-1] if shown is None else shown))
                self._times.append(time)
        widths.append(widths[-1] + max(length - self._times[-1], 0.0))
        self._times.append(length)
        self._scale = width / widths[-1] if widths[-1] else 0.0
        self._places = [left + one * self._scale for one in widths]

    def x(self, seconds: float) -> float:
        """Where that time is."""
        index = min(max(bisect_right(self._times, seconds) - 1, 0), len(self._times) - 2)
        start, end = self._times[index], self._times[index + 1]
        low, high = self._places[index], self._places[index + 1]
        return low if end <= start else low + (min(max(seconds, start), end) - start) / (end - start) * (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """(pixel, label) of round times, where the axis is not cut."""
        if not self._scale:
            return [(self.left, "0 s")]
        step = next((one for one in _STEPS if one * self._scale >= _APART), _STEPS[-1] * 10)
        found: list[tuple[float, str]] = []
        cuts = sorted((one.start, one.end) for one in self.cut)
        time, index = 0.0, 0
        while index * step <= self.length:
            time = index * step
            inside = [end for start, end in cuts if start < time < end]
            if inside:
                index = int(inside[0] / step) + 1  # a cut may be years long
                continue
            x = self.x(time)
            if not found or x - found[-1][0] >= _APART:
                found.append((x, in_words(time)))
            index += 1
        return found
