"""Who may drive a run that nobody drives, in SQL: when it is looked at again, and by whom it is
taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from blazen_trio._state.status import RunStatus
from blazen_trio._stores.protocol import SUSPECT
from blazen_trio._stores.sql import dialects
from blazen_trio._stores.sql.schema import STATUS_CODES, lease, runs

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "NEVER",
    "can_go_on",
    "is_due",
    "may_be_taken",
    "of_the_lease",
    "other_leases",
    "wake_when_given_back",
]

# Written out, since statements that are compiled once have no parameters but those of each use.
_RUNNABLE: list[sa.ColumnElement[Any]] = [
    sa.literal_column(str(STATUS_CODES[status])) for status in (RunStatus.QUEUED, RunStatus.RUNNING)
]
_WAITING: sa.ColumnElement[Any] = sa.literal_column(str(STATUS_CODES[RunStatus.WAITING]))
_TAKEN_BY_WORKERS = [*_RUNNABLE, _WAITING]
_INSTANT = sa.BigInteger()

NEVER = -1
"""The instant at which no worker looks at a run by itself."""


def wake_when_given_back(dialect: str, wake: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """The `wake` of a run that is given back as it should be: the one given, at once where that is
    NULL, and NULL where it is `NEVER`; in any case at some time where the run is runnable, and
    never where it is paused or has ended.
    """
    given, now = sa.cast(wake, _INSTANT), dialects.now(dialect)
    never: sa.ColumnElement[int] = sa.literal_column(str(NEVER))
    return sa.case(
        (runs.c.status.in_(_RUNNABLE), sa.func.coalesce(sa.func.nullif(given, never), now)),
        (runs.c.status == _WAITING, sa.func.nullif(sa.func.coalesce(given, now), never)),
        else_=sa.null(),
    )


def of_the_lease(dialect: str, lease_id: int, *, crashed: bool) -> sa.Update:
    """Give all runs of a lease back; a worker is to look what they wait for: nobody here knows."""
    now = dialects.now(dialect)
    wake = sa.case((runs.c.status.in_(_TAKEN_BY_WORKERS), now), else_=sa.null())
    values: dict[str, Any] = {"owner": None, "wake": wake}
    if crashed:
        values["crashes"] = runs.c.crashes + sa.case((runs.c.status.in_(_RUNNABLE), 1), else_=0)
    return sa.update(runs).where(runs.c.owner == lease_id).values(values)


def is_due(dialect: str, workflow: str) -> sa.ColumnElement[bool]:
    """A run whose time has come, and whose status is one that workers take."""
    status = runs.c.status + sa.literal_column(
        "0"
    )  # found by its time: no planner is to take the status's index
    time = dialects.statement_time(dialect)
    return (runs.c.workflow == workflow) & (runs.c.wake <= time) & status.in_(_TAKEN_BY_WORKERS)


def can_go_on(dialect: str, workflow: str, suspects: int | None) -> sa.ColumnElement[bool]:
    """A run whose time has come."""
    found = is_due(dialect, workflow)
    return found if suspects is None or suspects > 0 else found & (runs.c.crashes < SUSPECT)


def may_be_taken(dialect: str, workflows: Sequence[str]) -> sa.ColumnElement[bool]:
    """A run that may be taken if it has mail."""
    return (
        runs.c.owner.is_(None)
        & runs.c.workflow.in_(workflows)
        & runs.c.status.in_(_TAKEN_BY_WORKERS)
        & (runs.c.hold <= dialects.statement_time(dialect))
    )


def other_leases(dialect: str, lease_id: int | None) -> sa.Select[Any]:
    """The leases of others that were not declared dead, and whether each has expired."""
    expired = (lease.c.expires < dialects.now(dialect)).label("expired")
    found = sa.select(lease, expired).where(lease.c.state == 1)
    return found if lease_id is None else found.where(lease.c.lease_id != lease_id)
