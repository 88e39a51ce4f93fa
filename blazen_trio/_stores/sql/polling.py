"""Queries for runs that can resume, and for everything else that a process polls.

Every database answers each of these queries by an index, whatever its statistics say: the planner
is left no choice that it could get wrong. A poll therefore costs in proportion to what it finds, no
matter how many runs wait.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from blazen_trio._stores.protocol import SUSPECT, Poll
from blazen_trio._stores.sql import databases
from blazen_trio._stores.sql.leases import can_go_on, is_due, may_be_taken, other_leases
from blazen_trio._stores.sql.mailroom import PAGE, Page
from blazen_trio._stores.sql.queries import LINE, crashes_of, first_mail, info_of, mail_by_id
from blazen_trio._stores.sql.schema import STATUS_OF_CODE, inbox, runs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blazen_trio._stores.protocol import RunInfo
    from blazen_trio._stores.sql.leases import Sights
    from blazen_trio._stores.sql.mailroom import Look

__all__ = ["dead_leases", "doubtful_leases", "mailed_runs", "new_mail", "poll", "ready_runs"]

_PAGE = 500  # at most this many rows per query


def dead_leases(connection: sa.Connection, lease_id: int | None, sights: Sights) -> list[int]:
    """Return the leases of others that may be declared dead."""
    return [each for each, seconds in _judged(connection, lease_id, sights).items() if seconds == 0]


def doubtful_leases(
    connection: sa.Connection, lease_id: int | None, sights: Sights
) -> dict[int, float]:
    """Return others' expired leases that can't be declared dead yet, and the seconds until then."""
    judged = _judged(connection, lease_id, sights)
    return {each: seconds for each, seconds in judged.items() if 0 < seconds < float("inf")}


def _judged(connection: sa.Connection, lease_id: int | None, sights: Sights) -> dict[int, float]:
    rows = connection.execute(other_leases(databases.of(connection), lease_id)).mappings()
    judged = {row["lease_id"]: sights.judge(row) for row in rows}
    sights.keep(judged.keys())
    return judged


def ready_runs(
    connection: sa.Connection, workflows: Sequence[str], limit: int, suspects: int | None
) -> list[sa.Row[Any]]:
    """Return and lock the rows of runs that can resume and have no driver.

    Rows that another process has locked are skipped, so two workers get different runs.
    """
    database = databases.of(connection)
    rows: dict[int, sa.Row[Any]] = {}

    def add(query: sa.Select[Any]) -> None:
        locked = query.limit(limit - len(rows)).with_for_update(skip_locked=True)
        rows.update((row.run_no, row) for row in connection.execute(locked))

    # One query per workflow, since only then does the index return the runs in order. The order of
    # workflows is random, so that none takes precedence.
    for workflow in random.sample(workflows, len(workflows)):
        if len(rows) < limit:
            add(
                sa.select(runs).where(can_go_on(database, workflow, suspects)).order_by(runs.c.wake)
            )
    for page in mailed_runs(connection):
        if len(rows) < limit:
            add(sa.select(runs).where(runs.c.run_no.in_(page), may_be_taken(database, workflows)))
    return _within(suspects, list(rows.values()))


def _within(suspects: int | None, rows: list[sa.Row[Any]]) -> list[sa.Row[Any]]:
    """Return the rows with at most this many suspects."""
    if suspects is None:
        return rows
    kept = [row for row in rows if crashes_of(row) >= SUSPECT][:suspects]
    return [row for row in rows if crashes_of(row) < SUSPECT or row in kept]


def mailed_runs(connection: sa.Connection) -> Iterator[list[int]]:
    """Yield the numbers of all runs that have inbox messages, in pages.

    One row of the index is read per run, no matter how many messages it has.
    """
    database, last = databases.of(connection), 0
    while True:
        query = database.following(inbox.c.run_no, last, _PAGE)
        page = list(connection.execute(query).scalars())
        if page:
            yield page
        if len(page) < _PAGE:
            return
        last = page[-1]


def poll(
    connection: sa.Connection,
    lease_id: int | None,
    workflows: Sequence[str],
    watched: Sequence[str],
    sights: Sights,
    look: Look,
) -> tuple[Poll, dict[int, Page]]:
    """See `CheckpointStore.poll`. Also returns the messages of runs that this opening drives."""
    # First, so that each poll is a sight of all expired leases, even if a run is due.
    dead = bool(dead_leases(connection, lease_id, sights))
    ready = bool(workflows) and (dead or _is_due(connection, workflows))
    free = may_be_taken(databases.of(connection), workflows) if workflows else sa.false()
    mail: dict[int, Page] = {}
    for page in mailed_runs(connection) if workflows or look.drivers else ():
        mail.update(_bring(connection, page, look))
        if workflows and not ready:
            of_page = sa.select(runs.c.run_no).where(runs.c.run_no.in_(page), free).limit(1)
            ready = connection.execute(of_page).first() is not None
    lines: dict[str, RunInfo] = {}
    for start in range(0, len(watched), _PAGE):
        chunk = watched[start : start + _PAGE]
        for row in connection.execute(sa.select(*LINE).where(runs.c.run_id.in_(chunk))):
            # A status that a later version has written is an error only for `get_run`.
            if row.status in STATUS_OF_CODE:
                lines[row.run_id] = info_of(row)
    return Poll(ready, lines), mail


def new_mail(connection: sa.Connection, look: Look) -> dict[int, Page]:
    """Return the messages of the runs that a look is for, as far as this opening drives them."""
    found: dict[int, Page] = {}
    for page in mailed_runs(connection) if look.only is None else [list(look.only)]:
        found.update(_bring(connection, page, look))
    return found


def _bring(connection: sa.Connection, page: Sequence[int], look: Look) -> dict[int, Page]:
    """Return the next rows of these runs' inboxes.

    Rows that were already given are counted, not read again. They usually come first in the index.
    The page is longer by their number, so that it also covers rows that became visible before them.
    """
    given = {run_no: ids for run_no in page if (ids := look.given(run_no)) is not None}
    if not given:
        return {}
    wanted = {run_no: len(ids) + PAGE for run_no, ids in given.items()}
    first = first_mail(connection, wanted)
    new = {
        run_no: [each for each in ids if each not in given[run_no]][:PAGE]
        for run_no, ids in first.items()
    }
    mail = mail_by_id(connection, [each for ids in new.values() for each in ids])
    return {
        run_no: Page(mail.get(run_no, ()), len(ids) == wanted[run_no])
        for run_no, ids in first.items()
    }


def _is_due(connection: sa.Connection, workflows: Sequence[str]) -> bool:
    """Return whether any run's time has come."""
    database = databases.of(connection)
    first = [
        sa.select(sa.func.min(runs.c.wake).label("wake")).where(runs.c.workflow == name)
        for name in workflows
    ]
    soonest = sa.union_all(*first).subquery()
    if not connection.execute(
        sa.select(sa.func.min(soonest.c.wake) <= database.statement_time())
    ).scalar():
        return False
    # The second query also checks the status. It runs only now, which is rare: a row whose status a
    # later version has written stays due forever, but is no work for this version.
    due = [
        sa.select(runs.c.run_no).where(is_due(database, name)).limit(1).subquery()
        for name in workflows
    ]
    return (
        connection.execute(sa.union_all(*(sa.select(each) for each in due)).limit(1)).first()
        is not None
    )
