"""What is read: runs by their lines, and all that is stored of one."""

from __future__ import annotations

import datetime as dt
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
    from collections.abc import Iterable

    from blazen_trio._state.status import RunStatus

__all__ = ["find_run", "get_run", "list_runs", "load_run", "micros"]

_LINE = (runs.c.run_id, runs.c.workflow, runs.c.version, runs.c.status, runs.c.created, runs.c.updated, runs.c.error)
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
    return _info(find_run(connection, run_id))


def list_runs(
    connection: sa.Connection, status: RunStatus | None, workflow: str | None, limit: int, after: str | None
) -> list[RunInfo]:
    """See `CheckpointStore.list_runs`."""
    query = sa.select(*_LINE).order_by(runs.c.created, runs.c.run_no).limit(limit)
    if status is not None:
        query = query.where(runs.c.status == STATUS_CODES[status])
    if workflow is not None:
        query = query.where(runs.c.workflow == workflow)
    if after is not None:
        last = find_run(connection, after)
        query = query.where(
            sa.or_(runs.c.created > last.created, (runs.c.created == last.created) & (runs.c.run_no > last.run_no))
        )
    return [_info(row) for row in connection.execute(query)]


def load_run(connection: sa.Connection, row: sa.Row[Any]) -> StoredRun:
    """All that is stored of a run, given its row, in one transaction."""
    run_no = row.run_no
    folded = _newest_snapshot(connection, run_no)
    entries = (
        sa.select(journal.c.seq, journal.c.format, journal.c.data)
        .where(journal.c.run_no == run_no)
        .order_by(journal.c.seq, journal.c.part)
    )
    if folded is not None:
        entries = entries.where(journal.c.seq > folded[0])
    blobs = (
        sa.select(blob.c.digest, blob.c.format, blob.c.data)
        .where(blob.c.run_no == run_no)
        .order_by(blob.c.digest, blob.c.part)
    )
    records = (
        sa.select(history.c.seq, history.c.format, history.c.data)
        .where(history.c.run_no == run_no)
        .order_by(history.c.seq, history.c.part)
    )
    mail = sa.select(inbox).where(inbox.c.run_no == run_no).order_by(inbox.c.mail_id)
    return StoredRun(
        info=_info(row),
        snapshot=folded,
        entries=tuple(_joined(connection.execute(entries)).items()),
        blobs=_joined(connection.execute(blobs)),
        history=tuple(_joined(connection.execute(records)).values()),
        inbox=tuple(Mail(each.mail_id, each.kind, each.data, each.key) for each in connection.execute(mail)),
    )


def _newest_snapshot(connection: sa.Connection, run_no: int) -> tuple[int, bytes] | None:
    query = (
        sa.select(snapshot.c.seq, snapshot.c.format, snapshot.c.data)
        .where(snapshot.c.run_no == run_no)
        .order_by(snapshot.c.seq, snapshot.c.part)
    )
    found = _joined(connection.execute(query))
    return max(found.items()) if found else None


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


def _info(row: Any) -> RunInfo:
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
