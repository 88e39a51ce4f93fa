"""Which runs can go on, and what a look at the database tells a process.

Each query here is one that every database answers by an index, whatever it knows of how full its tables are: its planner is not left
a choice that it could get wrong. So a look costs as much as there is to see, however many runs wait.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from blazen_trio._stores.protocol import SUSPECT, Mail, Poll
from blazen_trio._stores.sql import dialects
from blazen_trio._stores.sql.leases import Holder
from blazen_trio._stores.sql.ownership import can_go_on, may_be_taken, other_leases
from blazen_trio._stores.sql.queries import LINE, info_of
from blazen_trio._stores.sql.schema import inbox, runs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blazen_trio._stores.protocol import RunInfo

__all__ = ["dead_leases", "poll", "ready_runs"]

_PAGE = 500  # rows that one query brings


def dead_leases(connection: sa.Connection, lease_id: int | None) -> list[int]:
    """The leases of others that may be declared dead: expired, or held by a process that is known to have ended."""
    rows = connection.execute(other_leases(connection.dialect.name, lease_id)).mappings()
    return [row["lease_id"] for row in rows if row["expired"] or Holder.of_row(row).known_dead()]


def ready_runs(
    connection: sa.Connection, workflows: Sequence[str], limit: int, suspects: int | None
) -> list[sa.Row[Any]]:
    """The rows of runs that nobody drives and that can go on, locked; those that others lock are left to them."""
    dialect = connection.dialect.name
    rows: dict[int, sa.Row[Any]] = {}

    def add(query: sa.Select[Any]) -> None:
        locked = query.limit(limit - len(rows)).with_for_update(skip_locked=True)
        rows.update((row.run_no, row) for row in connection.execute(locked))

    # Each by itself, since only so the index gives them in order. Any of them may be the first.
    for workflow in random.sample(workflows, len(workflows)):
        if len(rows) < limit:
            add(sa.select(runs).where(can_go_on(dialect, workflow, suspects)).order_by(runs.c.wake))
    for page in _mailed(connection):
        if len(rows) < limit:
            add(sa.select(runs).where(runs.c.run_no.in_(page), may_be_taken(dialect, workflows)))
    return _within(suspects, list(rows.values()))


def _within(suspects: int | None, rows: list[sa.Row[Any]]) -> list[sa.Row[Any]]:
    """No more suspects than that."""
    if suspects is None:
        return rows
    kept = [row for row in rows if row.crashes >= SUSPECT][:suspects]
    return [row for row in rows if row.crashes < SUSPECT or row in kept]


def _mailed(connection: sa.Connection) -> Iterator[list[int]]:
    """The numbers of all runs that have mail, in pages."""
    last = 0
    while True:
        following = (
            sa.select(inbox.c.run_no).distinct().where(inbox.c.run_no > last).order_by(inbox.c.run_no).limit(_PAGE)
        )
        page = list(connection.execute(following).scalars())
        if page:
            yield page
        if len(page) < _PAGE:
            return
        last = page[-1]


def poll(connection: sa.Connection, lease_id: int | None, workflows: Sequence[str], watched: Sequence[str]) -> Poll:
    """See `CheckpointStore.poll`."""
    ready = bool(workflows) and (_is_due(connection, workflows) or bool(dead_leases(connection, lease_id)))
    dialect = connection.dialect.name
    free = may_be_taken(dialect, workflows) if workflows else sa.false()
    mail: dict[str, list[Mail]] = {}
    for page in _mailed(connection):
        addressed = sa.select(runs.c.run_no, runs.c.run_id, runs.c.owner, free.label("free")).where(
            runs.c.run_no.in_(page)
        )
        rows = connection.execute(addressed).all()
        ready = ready or any(row.free for row in rows)
        ours = {row.run_no: row.run_id for row in rows if lease_id is not None and row.owner == lease_id}
        if ours and not mail:
            _read_mail(connection, ours, mail)
    lines: dict[str, RunInfo] = {}
    for start in range(0, len(watched), _PAGE):
        chunk = watched[start : start + _PAGE]
        found = connection.execute(sa.select(*LINE).where(runs.c.run_id.in_(chunk)))
        lines.update((row.run_id, info_of(row)) for row in found)
    return Poll(ready, mail, lines)


def _is_due(connection: sa.Connection, workflows: Sequence[str]) -> bool:
    """Whether the time of some run has come."""
    first = [sa.select(sa.func.min(runs.c.wake).label("wake")).where(runs.c.workflow == name) for name in workflows]
    soonest = sa.union_all(*first).subquery()
    query = sa.select(sa.func.min(soonest.c.wake) <= dialects.statement_time(connection.dialect.name))
    return bool(connection.execute(query).scalar())


def _read_mail(connection: sa.Connection, ours: dict[int, str], mail: dict[str, list[Mail]]) -> None:
    """As much as one query brings: the rest is there for the next look."""
    letters = sa.select(inbox).where(inbox.c.run_no.in_(list(ours))).order_by(inbox.c.mail_id).limit(_PAGE)
    for each in connection.execute(letters):
        mail.setdefault(ours[each.run_no], []).append(Mail(each.mail_id, each.kind, each.data, each.key))
