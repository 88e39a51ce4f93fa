"""The time axis of a timeline, which shortens long idle times; and durations in words."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from blazen_trio._pictures.svg import text_width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blazen_trio._pictures.attempts import Idle

__all__ = ["MARGIN", "Axis", "exactly", "in_words"]

_IDLE_SHARE: Final = 0.6
"""The most width of all idle times together, as a share of the width of the other times."""
_APART: Final = 80.0
"""The least distance of two ticks, in pixels."""
_GAP: Final = 12.0
"""The least gap between two labels, in pixels."""
MARGIN: Final = 40.0
"""Pixels to the right of the axis, which a label may use."""
_STEPS: Final = (
    *(number * 10.0**power for power in range(-6, 1) for number in (1, 2, 5)),
    *(
        10.0,
        15.0,
        30.0,
        60.0,
        120.0,
        300.0,
        600.0,
        900.0,
        1800.0,
        3600.0,
        7200.0,
        10800.0,
        21600.0,
        43200.0,
    ),
    *(86400.0 * days for days in (1, 2, 7, 14, 28, 91, 182, 364)),
)
_UNITS: Final = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
_SMALL: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "\N{MICRO SIGN}s"))


def in_words(seconds: float) -> str:
    """Format a duration for people: `250 ms`, `1.5 s`, `2 min 30 s`, `3 d 2 h`."""
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


def exactly(seconds: float, fine: float) -> str:
    """Format a time for people to a resolution of `fine` seconds: `9 d 3 h 10 min 5.2 s`.

    `in_words` rounds to two units or three digits; here, two times that are `fine` apart differ,
    however late they are.
    """
    if seconds < 59.95:
        unit, name = next((one for one in _SMALL if seconds >= one[0]), _SMALL[-1])
        return f"{_decimal(seconds / unit, fine / unit)} {name}" if seconds else "0 s"
    smallest = next((unit for unit, _ in _UNITS if unit <= fine), 1.0)
    places = _places(fine)
    # Use whole numbers, since floats could give 59.99999 s.
    scale = 10**places
    left = (
        round(seconds / smallest) * int(smallest) * scale if fine >= 1 else round(seconds * scale)
    )
    parts = []
    for unit, name in _UNITS:
        count, left = divmod(left, int(unit) * scale)
        shown = _decimal(count + left / scale, fine) if unit == 1 else f"{count}"
        parts += [f"{shown} {name}"] if shown != "0" else []
    return " ".join(parts) or "0 s"


def _places(fine: float) -> int:
    """Return the number of decimals that distinguish values this far apart."""
    return max(0, math.ceil(-math.log10(fine) - 1e-9))


def _decimal(number: float, fine: float) -> str:
    shown = f"{number:.{_places(fine)}f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


class Axis:
    """Maps a run's seconds to pixels.

    Args:
        length: The length of the run, in seconds.
        left: The left end of the axis, in pixels.
        width: The width of the axis, in pixels.
        idle: The idle times, in order. Those that would take too much room are drawn shorter.

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
        """Return the pixel of a time."""
        index = min(max(bisect_right(self._times, seconds) - 1, 0), len(self._times) - 2)
        start, end = self._times[index], self._times[index + 1]
        low, high = self._places[index], self._places[index + 1]
        return (
            low
            if end <= start
            else low + (min(max(seconds, start), end) - start) / (end - start) * (high - low)
        )

    def moment(self, seconds: float) -> str:
        """Format a time to the resolution of a pixel."""
        return exactly(seconds, 1 / self._scale) if self._scale else in_words(seconds)

    def ticks(self) -> list[tuple[float, str]]:
        """Return (pixel, label) of round times where the axis is not cut."""
        if not self._scale:
            return [(self.left, "0 s")]
        step = next((one for one in _STEPS if one * self._scale >= _APART), _STEPS[-1] * 10)
        found: list[tuple[float, str]] = []
        cuts = sorted((one.start, one.end) for one in self.cut)
        time, index, taken, end = 0.0, 0, 0.0, self.left + self.width + MARGIN - _GAP / 2
        while index * step <= self.length:
            time = index * step
            inside = [end for start, end in cuts if start < time < end]
            if inside:
                index = int(inside[0] / step) + 1  # a cut may be years long
                continue
            x, label = self.x(time), exactly(time, step)
            reach = text_width(label) / 2
            if not found or (
                x - found[-1][0] >= max(_APART, taken + reach + _GAP) and x + reach <= end
            ):
                found.append((x, label))
                taken = reach
            index += 1
        return found
