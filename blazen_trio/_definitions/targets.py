"""The destinations of events."""

from __future__ import annotations

from typing import Final

__all__ = ["NOWHERE", "Targets"]


class Targets:
    """The destinations of an event. Created once per event class and shared by all its outputs.

    Args:
        steps: The steps that the event goes to, in declaration order; each gets a delivery of its
            own. Empty: the event is recorded, but not routed (yet).
        joins: The joins among the steps, which collect the event instead.
        plain: Whether the event is only routed: it neither asks a question nor stops the run, and
            it is not delayed.
        stops: Whether the event stops the run.
        collects: The joins that collect the event, now or when it is due.
    """

    __slots__ = ("collects", "joins", "plain", "steps", "stops")

    def __init__(
        self,
        steps: tuple[str, ...] = (),
        joins: tuple[str, ...] = (),
        *,
        plain: bool = False,
        stops: bool = False,
        collects: tuple[str, ...] | None = None,
    ) -> None:
        self.steps = steps
        self.joins = joins
        self.plain = plain
        self.stops = stops
        self.collects = joins if collects is None else collects


NOWHERE: Final = Targets()
