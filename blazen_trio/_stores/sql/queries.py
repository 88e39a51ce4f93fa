"""Read queries: lines of runs, and all stored data of a run."""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from blazen_trio._stores import store_rules
from blazen_trio._stores.driver import Mail
from blazen_trio._stores.excerpts import AskedRun, RunEnd
from blazen_trio._stores.protocol import RunInfo, StoredRun
from blazen_trio._stores.sql import databases
from blazen_trio._stores.sql.schema import (
    IN_PARTS,
    PLAIN,
    STATUS_CODES,
    STATUS_OF_CODE,
    blob,
    history,
    inbox,
    inbox_key,
    inbox_part,
    journal,
    question,
    runs,
    snapshot,
)
from blazen_trio.errors import SchemaError, StoreError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from blazen_trio._state.status import RunStatus

__all__ = [
    "LINE",
    "asked_run",
    "crashes_of",
    "digest_of",
    "end_of",
    "find_run",
    "first_mail",
    "get_run",
    "has_key",
    "info_of",
    "list_runs",
    "load_runs",
    "mail_by_id",
    "micros",
    "status_of",
]

LINE = (
    runs.c.run_id,
    runs.c.workflow,
    runs.c.version,
    runs.c.status,
    runs.c.created,
    runs.c.updated,
    runs.c.error,
)
_INBOXES_AT_ONCE = 100  # parts of one query; SQLite accepts 500
_ROWS_AT_ONCE = 500
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_EARLIEST = dt.datetime.min.replace(tzinfo=dt.UTC)
_LATEST = dt.datetime.max.replace(tzinfo=dt.UTC)


def micros(seconds: float) -> int:
    """Return an instant in the stored form: microseconds since the epoch."""
    return round(seconds * 1_000_000)


def find_run(connection: sa.Connection, run_id: str) -> sa.Row[Any]:
    """Return a run's whole row.

    Raises:
        RunNotFoundError: No such run exists.
    """
    row = connection.execute(sa.select(runs).where(runs.c.run_id == run_id)).first()
    if row is None:
        raise store_rules.not_found(run_id)
    return row


def has_key(connection: sa.Connection, run_id: str, key: str) -> bool:
    """Return whether a message with this key was ever posted to a run.

    Raises:
        RunNotFoundError: No such run exists.
    """
    run_no = find_run(connection, run_id).run_no
    query = sa.select(inbox_key.c.key).where(inbox_key.c.run_no == run_no, inbox_key.c.key == key)
    return connection.execute(query).first() is not None


def end_of(connection: sa.Connection, row: sa.Row[Any], kinds: Collection[str]) -> RunEnd:
    """Return the end of a run, which `excerpts.claim_end` documents."""
    last = [
        sa.select(sa.func.max(table.c.seq)).where(table.c.run_no == row.run_no).scalar_subquery()
        for table in (journal, snapshot, history)
    ]
    entry, folded, record = connection.execute(sa.select(*last)).one()
    requests = connection.execute(
        sa.select(inbox.c.mail_id, inbox.c.kind).where(
            inbox.c.run_no == row.run_no, inbox.c.kind.in_(kinds)
        )
    )
    return RunEnd(
        info_of(row),
        max((each for each in (entry, folded) if each is not None), default=None),
        (record or 0) + 1,
        dict(iter(requests)),
    )


def asked_run(
    connection: sa.Connection, run_id: str, request_id: str | None = None
) -> AskedRun | None:
    """Return the open questions of a run, which `excerpts.asked_run` documents.

    Returns:
        `None` if they are not listed.
    """
    row = find_run(connection, run_id)
    info = info_of(row)
    if row.listed is None:
        return None
    query = sa.select(question).where(question.c.run_no == row.run_no)
    if request_id is not None:
        query = query.where(question.c.digest == digest_of(request_id))
    rows = sorted((each.question_id, each.format, each.data) for each in connection.execute(query))
    asked = {data.decode(): question_id for question_id, data in _joined(rows, int).items()}
    if request_id is not None:
        return AskedRun(info, asked)
    mail = _letters(connection, sa.select(inbox).where(inbox.c.run_no == row.run_no))
    return AskedRun(info, asked, mail.get(row.run_no, ()))


def digest_of(request_id: str) -> str:
    """Return the text by which a `request_id` is found in the list of open questions."""
    return hashlib.sha256(request_id.encode("utf-8", "surrogatepass")).hexdigest()


def get_run(connection: sa.Connection, run_id: str) -> RunInfo:
    """Return a run's line.

    Raises:
        RunNotFoundError: No such run exists.
    """
    return info_of(find_run(connection, run_id))


def list_runs(
    connection: sa.Connection,
    statuses: Collection[RunStatus],
    workflow: str | None,
    limit: int,
    after: str | None,
) -> list[RunInfo]:
    """See `CheckpointStore.list_runs`."""
    query = sa.select(*LINE).order_by(runs.c.created, runs.c.run_no).limit(limit)
    # A row whose status a later version has written is left out, so that the others can be listed;
    # `get_run` raises for it. If all statuses are wanted, `+ 0` keeps the planner from their index.
    status = runs.c.status if len(statuses) < len(STATUS_CODES) else runs.c.status + 0
    query = query.where(status.in_([STATUS_CODES[status] for status in statuses]))
    if workflow is not None:
        query = query.where(runs.c.workflow == workflow)
    if after is not None:
        last = find_run(connection, after)
        query = query.where(
            sa.or_(
                runs.c.created > last.created,
                (runs.c.created == last.created) & (runs.c.run_no > last.run_no),
            )
        )
    return [info_of(row) for row in connection.execute(query)]


def load_runs(
    connection: sa.Connection, rows: Sequence[sa.Row[Any]], *, page: int | None = None
) -> list[StoredRun]:
    """Return all stored data of runs, in one transaction.

    If the data of one can't be read, the reason is its `fault`.

    Args:
        connection: A connection in a transaction.
        rows: The rows of the runs.
        page: At most this many rows of each inbox; `None`: all.
    """
    numbers = [row.run_no for row in rows]
    faults: dict[int, StoreError] = {}
    snapshots = _payloads(connection, snapshot, snapshot.c.seq, numbers, faults)
    entries = _payloads(connection, journal, journal.c.seq, numbers, faults)
    blobs = _payloads(connection, blob, blob.c.digest, numbers, faults)
    records = _payloads(connection, history, history.c.seq, numbers, faults)
    mail = _mail(connection, numbers, page)
    found = []
    for row in rows:
        if row.run_no in faults:
            nothing = StoredRun(
                info_of(row), None, (), {}, crashes=crashes_of(row), fault=faults[row.run_no]
            )
            found.append(nothing)
            continue
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
                crashes=crashes_of(row),
                listed=row.listed is not None,
            )
        )
    return found


def _mail(
    connection: sa.Connection, numbers: Sequence[int], page: int | None
) -> dict[int, list[Mail]]:
    """Return the first rows of the runs' inboxes, or all rows."""
    if page is None:
        return _letters(connection, sa.select(inbox).where(inbox.c.run_no.in_(numbers)))
    first = first_mail(connection, dict.fromkeys(numbers, page))
    return mail_by_id(connection, [mail_id for ids in first.values() for mail_id in ids])


def first_mail(connection: sa.Connection, wanted: Mapping[int, int]) -> dict[int, list[int]]:
    """Return the ids of the first rows of inboxes, by run, in order: as many as wanted for each."""
    database = databases.of(connection)
    found: dict[int, list[int]] = {}
    for some in _chunks(list(wanted.items()), _INBOXES_AT_ONCE):
        firsts = [
            sa.select(database.first_of(inbox, run_no, count).subquery()) for run_no, count in some
        ]
        for run_no, mail_id in connection.execute(sa.union_all(*firsts)):
            found.setdefault(run_no, []).append(mail_id)
    for ids in found.values():
        ids.sort()
    return found


def mail_by_id(connection: sa.Connection, mail_ids: Sequence[int]) -> dict[int, list[Mail]]:
    """Return these rows, by run, in order."""
    found: dict[int, list[Mail]] = {}
    for some in _chunks(sorted(mail_ids), _ROWS_AT_ONCE):
        for run_no, mail in _letters(
            connection, sa.select(inbox).where(inbox.c.mail_id.in_(some))
        ).items():
            found.setdefault(run_no, []).extend(mail)
    return found


def _letters(connection: sa.Connection, query: sa.Select[Any]) -> dict[int, list[Mail]]:
    """Return the inbox messages that a query finds, by run, in order."""
    rows = connection.execute(query.order_by(inbox.c.mail_id)).all()
    parts = _parts(connection, [each for each in rows if each.format == IN_PARTS])
    found: dict[int, list[Mail]] = {}
    for each in rows:
        data = _as_bytes(parts.get(each.mail_id, each.data))
        found.setdefault(each.run_no, []).append(Mail(each.mail_id, each.kind, data, each.key))
    return found


def _as_bytes(data: Any) -> bytes:
    """Return an inbox row's data as bytes.

    In a database that was changed by others it may be something else. The result is then unreadable
    as JSON, so the driver that takes the row rejects it.
    """
    return bytes(data) if isinstance(data, bytes | memoryview) else repr(data).encode()


def crashes_of(row: Any) -> int:
    """Return how often a run's drivers have died or failed; 0 if a damaged row has no number."""
    return row.crashes if type(row.crashes) is int else 0


def _parts(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> dict[int, bytes]:
    """Return the data of inbox rows that are stored in parts, by their ids."""
    found: dict[int, list[bytes]] = {}
    for some in _chunks(list(rows), _ROWS_AT_ONCE):
        query = (
            sa.select(inbox_part.c.mail_id, inbox_part.c.data)
            .where(
                inbox_part.c.run_no.in_({each.run_no for each in some}),
                inbox_part.c.mail_id.in_([each.mail_id for each in some]),
            )
            .order_by(inbox_part.c.run_no, inbox_part.c.mail_id, inbox_part.c.part)
        )
        for mail_id, data in connection.execute(query):
            found.setdefault(mail_id, []).append(_as_bytes(data))
    return {mail_id: b"".join(parts) for mail_id, parts in found.items()}


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _payloads(
    connection: sa.Connection,
    table: sa.Table,
    key: sa.Column[Any],
    numbers: Sequence[int],
    faults: dict[int, StoreError],
) -> dict[int, dict[Any, bytes]]:
    """Return a table's payloads by key, for each of these runs; faults are added to `faults`."""
    query = (
        sa.select(table.c.run_no, key, table.c.format, table.c.data)
        .where(table.c.run_no.in_(numbers))
        .order_by(table.c.run_no, key, table.c.part)
    )
    by_run: dict[int, dict[Any, bytes]] = {}
    for run_no, rows in itertools.groupby(connection.execute(query), key=lambda row: row[0]):
        try:
            by_run[run_no] = _joined((row[1:] for row in rows), key.type.python_type)
        except StoreError as fault:
            faults[run_no] = fault
    return by_run


def _joined(rows: Iterable[Any], kind: type) -> dict[Any, bytes]:
    """Assemble payloads from their parts, which come in order, by their key of this type."""
    joined: dict[Any, bytes] = {}
    for key, packing, data in rows:
        if packing != PLAIN:
            raise SchemaError(
                f"a payload is stored in format {packing}, but this version of blazen_trio reads "
                f"only format {PLAIN}; upgrade blazen_trio"
            )
        if not isinstance(data, bytes | memoryview) or type(key) is not kind:
            what, wrong = ("payload", data) if type(key) is kind else ("payload's key", key)
            raise StoreError(
                f"a {what} is stored as {type(wrong).__name__}: another program has changed the "
                "database; restore it from a backup"
            )
        joined[key] = joined[key] + bytes(data) if key in joined else bytes(data)
    return joined


def status_of(run_id: str, code: int) -> RunStatus:
    """Return the status with this code.

    Raises:
        SchemaError: This version does not know the code.
    """
    try:
        return STATUS_OF_CODE[code]
    except KeyError as error:
        raise SchemaError(
            f"the row of run {run_id!r} has status {code!r}, which this version of blazen_trio "
            "does not know; upgrade blazen_trio, or restore the database from a backup",
            run_id=run_id,
        ) from error


def info_of(row: Any) -> RunInfo:
    """Return a run's line from a row with at least the columns of `LINE`.

    An invalid time in a damaged row is replaced by the nearest valid one, so that it hides neither
    this run nor others in a list.

    Raises:
        SchemaError: The status is unknown.
    """
    status = status_of(row.run_id, row.status)
    created, updated = _nearest(row.created), _nearest(row.updated)
    return RunInfo(row.run_id, row.workflow, row.version, status, created, updated, row.error)


def _nearest(stored: Any) -> dt.datetime:
    try:
        return _EPOCH + dt.timedelta(microseconds=stored)
    except (OverflowError, TypeError):
        late = isinstance(stored, int) and stored > 0
        return _LATEST if late else _EARLIEST
