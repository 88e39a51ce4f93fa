"""What is read: runs by their lines, and all that is stored of one."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from blazen_trio._stores import arguments
from blazen_trio._stores.protocol import Mail, RunInfo, StoredRun
from blazen_trio._stores.sql.schema import (
    PLAIN,
    STATUS_CODES,
    STATUS_OF_CODE,
    blob,
    history,
    inbox,
    journal,
    runs,
    snapshot,
)
from blazen_trio.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from blazen_trio._state.status import RunStatus

__all__ = ["LINE", "find_run", "get_run", "info_of", "list_runs", "load_runs", "micros"]

LINE = (runs.c.run_id, runs.c.workflow, runs.c.version, runs.c.status, runs.c.created, runs.c.updated, runs.c.error)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def micros(seconds: float) -> int:
    """An instant as it is stored: microseconds since the epoch."""
    return round(seconds * 1_000_000)


def find_run(connection: sa.Connection, run_id: str) -> sa.Row[Any]:
    """A run's whole row.

    Raises:
        RunNotFoundError: There is none.
    """
    row = connection.execute(sa.select(runs).where(runs.c.run_id == run_id)).first()
    if row is None:
        raise arguments.not_found(run_id)
    return row


def get_run(connection: sa.Connection, run_id: str) -> RunInfo:
    """A run's line.

    Raises:
        RunNotFoundError: There is none.
    """
    return info_of(find_run(connection, run_id))


def list_runs(
    connection: sa.Connection, statuses: Collection[RunStatus], workflow: str | None, limit: int, after: str | None
) -> list[RunInfo]:
    """See `CheckpointStore.list_runs`."""
    query = sa.select(*LINE).order_by(runs.c.created, runs.c.run_no).limit(limit)
    if len(statuses) < len(STATUS_CODES):
        query = query.where(runs.c.status.in_([STATUS_CODES[status] for status in statuses]))
    if workflow is not None:
        query = query.where(runs.c.workflow == workflow)
    if after is not None:
        last = find_run(connection, after)
        query = query.where(
            sa.or_(runs.c.created > last.created, (runs.c.created == last.created) & (runs.c.run_no > last.run_no))
        )
    return [info_of(row) for row in connection.execute(query)]


def load_runs(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> list[StoredRun]:
    """All that is stored of runs, given their rows, in one transaction."""
    numbers = [row.run_no for row in rows]
    snapshots = _payloads(connection, snapshot, snapshot.c.seq, numbers)
    entries = _payloads(connection, journal, journal.c.seq, numbers)
    blobs = _payloads(connection, blob, blob.c.digest, numbers)
    records = _payloads(connection, history, history.c.seq, numbers)
    mail: dict[int, list[Mail]] = {}
    letters = sa.select(inbox).where(inbox.c.run_no.in_(numbers)).order_by(inbox.c.mail_id)
    for each in connection.execute(letters):
        mail.setdefault(each.run_no, []).append(Mail(each.mail_id, each.kind, each.data, each.key))
    found = []
    for row in rows:
        folded = max(snapshots.get(row.run_no, {}).items(), default=None)
        journaled = entries.get(row.run_no, {}).items()
        found.append(
            StoredRun(
                info=info_of(row),
                snapshot=folded,
                entries=tuple(each for each in journaled if folded is None or each[0] > folded[0]),
                blobs=blobs.get(row.run_no, {}),
                history=tuple(records.get(row.run_no, {}).values()),
                inbox=tuple(mail.get(row.run_no, ())),
                crashes=row.crashes,
            )
        )
    return found


def _payloads(
    connection: sa.Connection, table: sa.Table, key: sa.Column[Any], numbers: Sequence[int]
) -> dict[int, dict[Any, bytes]]:
    """The payloads in a table, by their keys, of each of these runs."""
    query = (
        sa.select(table.c.run_no, key, table.c.format, table.c.data)
        .where(table.c.run_no.in_(numbers))
        .order_by(table.c.run_no, key, table.c.part)
    )
    by_run: dict[int, dict[Any, bytes]] = {}
    for run_no, rows in itertools.groupby(connection.execute(query), key=lambda row: row[0]):
        by_run[run_no] = _joined(row[1:] for row in rows)
    return by_run


def _joined(rows: Iterable[Any]) -> dict[Any, bytes]:
    """Payloads by their key, put together from their parts, which come in order."""
    joined: dict[Any, bytes] = {}
    for key, packing, data in rows:
        if packing != PLAIN:
            raise SchemaError(
                f"a payload is stored in format {packing}, and this version of blazen_trio reads format {PLAIN} only; "
                "upgrade blazen_trio"
            )
        joined[key] = joined[key] + data if key in joined else data
    return joined


def info_of(row: Any) -> RunInfo:
    """A run's line, given at least the columns of `LINE`."""
    try:
        status = STATUS_OF_CODE[row.status]
        created, updated = (_EPOCH + dt.timedelta(microseconds=each) for each in (row.created, row.updated))
    except (KeyError, TypeError, OverflowError) as error:
        raise SchemaError(
            f"the row of run {row.run_id!r} has a status or a time that this version of blazen_trio does not know; "
            "upgrade blazen_trio, or restore the database from a backup",
            run_id=row.run_id,
        ) from error
    return RunInfo(row.run_id, row.workflow, row.version, status, created, updated, row.error)
