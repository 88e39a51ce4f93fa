"""Compatibility checks: of a run with its workflow, and of a snapshot with the stored run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blazen_trio._concurrency import in_slices
from blazen_trio._state.compatibility import finding_misfits
from blazen_trio._state.status import RunStatus
from blazen_trio._stores.base import written
from blazen_trio.errors import IncompatibleRunError, StaleRunError

if TYPE_CHECKING:
    from blazen_trio._definitions.definition import WorkflowDefinition
    from blazen_trio._state.model import RunState

__all__ = ["check_branch", "check_fit"]


async def check_fit(  # noqa: ASYNC910  # if wide
    definition: WorkflowDefinition, state: RunState
) -> None:
    """Check that a run is one of this workflow, and that this version of it can continue the run.

    Raises:
        IncompatibleRunError: It doesn't fit; the error lists all the reasons.
    """
    problems = []
    if state.workflow != definition.name:
        problems.append(f"it is a run of workflow {state.workflow!r}, not of {definition.name!r}")
    elif state.status is not RunStatus.COMPLETED:
        problems = await in_slices(finding_misfits(definition, state))
    if problems:
        raise _misfit(definition, state, problems)


def _misfit(
    definition: WorkflowDefinition, state: RunState, problems: list[str]
) -> IncompatibleRunError:
    faults = "".join(f"\n  - {problem}" for problem in problems)
    return IncompatibleRunError(
        f"run {state.run_id!r} can't continue with workflow {definition.name!r}:{faults}",
        run_id=state.run_id,
        problems=problems,
    )


async def check_branch(  # noqa: ASYNC910  # likewise
    stored: RunState, given: RunState
) -> None:
    """Check that a snapshot is of the run's present state in the store.

    Two branches of a run can have the same number of entries, so the whole states are compared.

    Raises:
        StaleRunError: It is of an earlier moment, or of another branch of the run.
    """
    if stored.seq == given.seq and (await written(stored))[0] == (await written(given))[0]:
        return  # noqa: ASYNC910
    if stored.seq == given.seq:
        found = f"of another branch of the run, which also has {given.seq} entries"
    else:
        found = f"of entry {given.seq}, but the store has the run up to entry {stored.seq}"
    raise StaleRunError(
        f"the snapshot of run {given.run_id!r} is {found}: "
        "resume the stored run (resume_from), or resume the snapshot without the store",
        run_id=given.run_id,
    )
