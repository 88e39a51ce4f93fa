"""What stands between a `Run` and the run: the run may rest meanwhile, or be driven by another core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable

    from blazen_trio._dispatch.core import RunCore

__all__ = ["Handle"]


class Handle:
    """What a `Run` is a handle of: the run's core; or, while it rests, what brings it back.

    Args:
        core: The run.
    """

    __slots__ = (
        "__weakref__",
        "_bring_back",
        "_core",
        "cancelled_here",
        "held",
        "records",
        "state",
        "told",
    )

    def __init__(self, core: RunCore) -> None:
        self._core: RunCore | None = core
        self._bring_back: Callable[[], RunCore] | None = None
        self.held: weakref.ref[Any] | None = None
        """The one `Run` of this, if somebody has it; it keeps this in memory."""
        self.state = core.state
        self.records = core.recorder.records
        self.told = False
        """Whether somebody has been told how the run ended, or why it does not go on."""
        self.cancelled_here = False
        """Whether the run was cancelled through this."""

    @property
    def core(self) -> RunCore:
        """The run; one that rests is brought back."""
        if self._core is None:
            assert self._bring_back is not None
            self._core = self._bring_back()
        return self._core

    def attach(self, core: RunCore) -> None:
        """This drives it from now on."""
        self._core, self._bring_back = core, None

    def rest(self, bring_back: Callable[[], RunCore]) -> None:
        """It rests; this is to be called when it is used."""
        self._core, self._bring_back = None, bring_back
