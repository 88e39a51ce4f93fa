"""A transaction of the writer, which gathers rows so that few statements write them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from blazen_trio._state.status import RunStatus
from blazen_trio._stores import store_rules
from blazen_trio._stores.sql import databases
from blazen_trio._stores.sql.leases import Holder, depose
from blazen_trio._stores.sql.queries import digest_of, micros
from blazen_trio._stores.sql.schema import IN_PARTS, PART_SIZE, PLAIN, STATUS_CODES, lease

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from sqlalchemy.engine.interfaces import DBAPICursor

    from blazen_trio._state.entry import Questions
    from blazen_trio._stores.protocol import Commit, SnapshotRow
    from blazen_trio._stores.sql.leases import Held, Sights
    from blazen_trio._stores.sql.statements import Row, Statement, Statements, Whole

__all__ = ["BatchTransaction", "LeaseLostError", "MailGoneError"]


class LeaseLostError(Exception):
    """Our lease was declared dead: nothing more may be written under it."""


class MailGoneError(Exception):
    """An inbox row to be taken is missing: another driver has taken it."""


class BatchTransaction:
    """Writes of one transaction, in the writer's thread.

    Nothing is sent earlier than necessary: the fence is sent with the first statement, so rows that
    were only gathered can become one statement that includes its fence. Nothing is visible to
    others before the COMMIT, so a process that is killed anywhere in here leaves nothing.

    The fence locks our lease's row until the COMMIT, before any row of a run is locked: the order
    of locks that `claims` lists. A process that declares our lease dead therefore comes entirely
    before this transaction, whose fence then finds nothing, or entirely after it. In SQL, the fence
    is

        UPDATE blazen_lease SET expires = :now + :ttl, batch = :number
        WHERE lease_id = :lease_id AND state = 1 AND batch = :last

    It has to find one row: `state` is 0 once the lease was declared dead, and `batch` differs if a
    statement of an abandoned connection arrives late.

    Attributes:
        connection: The connection, in a transaction, for statements that are rarely run.
        database: The kind of database.
        lease_id: The lease to write under, or `None` while this opening has none.
        last: The number of the last batch that renewed the lease: of this one, once it has.
        sights: What this opening knows about the leases of others.
    """

    def __init__(
        self,
        connection: sa.Connection,
        cursor: DBAPICursor,
        statements: Statements,
        *,
        lease_id: int | None,
        number: int,
        last: int,
        lease_ttl: int,
        sights: Sights,
    ) -> None:
        self.connection = connection
        self.database = databases.of(connection)
        self.lease_id = lease_id
        self._sql = statements
        self._number = number
        self.last = last
        self.sights = sights
        self._lease_ttl = lease_ttl
        self._unfenced = cursor
        self._fenced = lease_id is None  # without a lease, none can be lost
        self._gathered: dict[Statement, list[Row]] = {}
        self._last_of_all: dict[Statement, list[Row]] = {}
        self._sought: dict[str, None] = {}
        self._found: dict[str, tuple[int, int] | None] = {}
        self._created: dict[str, tuple[Row, Callable[[int], None]]] = {}

    @property
    def _cursor(self) -> DBAPICursor:
        """The driver's cursor, behind the fence."""
        if not self._fenced:
            self.fence()
        return self._unfenced

    def fence(self) -> None:
        """Renew our lease, which proves that we may still write. First in the transaction.

        Raises:
            LeaseLostError: The lease was declared dead.
        """
        if self.lease_id is None:
            if self._sql.bound is not None:
                self._sql.bound.execute(self._unfenced, ())
        else:
            self.database.begin_plainly(self.connection, self._unfenced)
            self._pass_the_fence(self._sql.renew.execute(self._unfenced, self._renewal))

    def _pass_the_fence(self, leases: int) -> None:
        """Continue if the fence has found our lease, alive and with the number that we left it."""
        if leases != 1:
            raise LeaseLostError
        self._fenced = True
        self.last = self._number

    @property
    def _renewal(self) -> Row:
        """The parameters of `Statements.renew`."""
        return (self._lease_ttl, self._number, self.lease_id, self.last)

    def take_lease(self) -> int:
        """Return our lease; create one if we have none."""
        if self.lease_id is None:
            holder = Holder.this_process()
            clock = self.database.now()
            # The holder of a lease that was declared dead a day ago has long noticed, if it lives.
            long_dead = sa.select(lease.c.lease_id).where(
                lease.c.state == 0, lease.c.expires < clock - 86_400_000_000
            )
            # Delete by id: on some servers, a DELETE that searches waits for renewals of the other
            # leases that it scans.
            for each in self.connection.execute(long_dead).scalars().all():
                self.connection.execute(sa.delete(lease).where(lease.c.lease_id == each))
            row = sa.insert(lease).values(
                state=1,
                expires=clock + self._lease_ttl,
                batch=self._number,
                host=holder.host,
                boot=holder.boot,
                pid_namespace=holder.pid_namespace,
                pid=holder.pid,
                started=holder.started,
            )
            key = self.connection.execute(row).inserted_primary_key
            assert key is not None  # an INSERT of one row has one
            self.lease_id, self.last = int(key[0]), self._number
        return self.lease_id

    def depose(self, lease_id: int) -> Held | None:
        """See `leases.depose`."""
        return depose(self.connection, self.database, self.sights, lease_id)

    def look_for(self, run_id: str) -> None:
        """Register a run that will be looked up, so that one query finds all of them."""
        self._sought[run_id] = None

    def find(self, run_id: str) -> tuple[int, int] | None:
        """Return the number of a run and its status (as stored), or `None`."""
        self.look_for(run_id)
        if run_id in self._created:
            self._write_runs()
        new = [each for each in self._sought if each not in self._found]
        if new:
            self._found.update(dict.fromkeys(new))
            self._find(new)
        return self._found[run_id]

    def _find(self, run_ids: list[str]) -> None:
        rows = self._sql.find_runs.fetch(self._cursor, run_ids)
        self._found.update((run_id, (int(run_no), int(status))) for run_id, run_no, status in rows)

    def key_is_used(self, run_no: int, key: str) -> bool:
        """Return whether a message with this key was ever posted to a run."""
        self._sql.find_key.execute(self._cursor, (run_no, key))
        return self._cursor.fetchone() is not None

    def add_run(self, run_id: str, *values: Any, then: Callable[[int], None]) -> None:
        """Gather the row of a new run; `then` is called with its number once that is known."""
        self._created[run_id] = ((run_id, *values), then)

    def _write_runs(self) -> None:
        """Write the gathered rows of runs.

        Every database returns the number of a single row just inserted, but not those of many.
        """
        created, self._created = self._created, {}
        # Sorted, so that two processes that create the same runs insert them in the same order.
        # Otherwise they could deadlock.
        rows = sorted(row for row, _ in created.values())
        if len(rows) == 1:
            numbers = {rows[0][0]: self._write_run(rows[0])}
        else:
            self._sql.add_run.execute_many(self._cursor, rows)
            self._find(list(created))
            numbers = {run_id: found[0] for run_id in created if (found := self._found[run_id])}
        for run_id, (_, then) in created.items():
            then(numbers[run_id])

    def _write_run(self, row: Row) -> int:
        self._sql.add_run.execute(self._cursor, row)
        run_no = self.database.insert_id(self._cursor)
        self._found[row[0]] = (run_no, row[3])
        return run_no

    def use_key(self, run_no: int, key: str) -> bool:
        """Store a key as used with a run. Returns whether it was unused."""
        return self._sql.add_key.execute(self._cursor, (run_no, key)) == 1

    def free_key(self, run_no: int, key: str) -> None:
        """Delete a key that `use_key` has just stored."""
        self._sql.drop_key.execute(self._cursor, (run_no, key))

    def add_mail(self, run_no: int, kind: str, key: str | None, data: bytes) -> int:
        """Write an inbox row, and return its id."""
        large = len(data) > PART_SIZE
        row = (run_no, kind, key, IN_PARTS, b"") if large else (run_no, kind, key, PLAIN, data)
        self._sql.add_mail.execute(self._cursor, row)
        mail_id = self.database.insert_id(self._cursor)
        if large:
            for part, piece in enumerate(_pieces(data)):
                self._gather(self._sql.add_mail_part, (run_no, mail_id, part, PLAIN, piece))
        return mail_id

    def give_back(
        self,
        run_no: int,
        lease_id: int,
        wake: int | None = None,
        hold: int = 0,
        crash: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Gather the release of a run, if its owner is this lease.

        It is written last in the transaction, since it depends on the run's status.
        """
        error, crashed = (reason, 0) if crash is None else (crash, 1)
        row = (error, crashed, wake, hold, run_no, lease_id)
        self._gather_last(self._sql.give_back, row)

    def set_aside(self, run_no: int, lease_id: int, error: str | None, at: int) -> None:
        """Gather the end of a run as failed and its release, if its owner is this lease."""
        self._gather_last(self._sql.set_aside, (error, at, run_no, lease_id))

    def _gather_last(self, statement: Statement, row: Row) -> None:
        self._last_of_all.setdefault(statement, []).append(row)

    def append(self, run_no: int, commit: Commit, large: Collection[int] = ()) -> None:
        """Gather the rows that a commit appends to a run.

        The messages in `large`, which it takes, may have parts.
        """
        if commit.snapshot is not None:
            # Folding deletes entries up to the snapshot's. Earlier gathered rows must therefore be
            # written before it, and later ones after it.
            self.flush()
        sql = self._sql
        for seq, data in commit.entries:
            self._gather_parts(sql.add_entry, run_no, seq, data)
        for digest, data in commit.blobs.items():
            self._gather_parts(sql.add_blob, run_no, digest, data)
        if commit.history is not None:
            self._gather_parts(sql.add_history, run_no, *commit.history)
        for mail_id in commit.taken:
            self._gather(sql.take_mail, (mail_id, run_no))
        for mail_id in large:
            self._gather(sql.take_mail_parts, (run_no, mail_id))
        if commit.questions is not None:
            self._list_questions(run_no, commit.questions)
        if commit.snapshot is not None:
            self.flush()
            self._fold(run_no, commit.snapshot, commit.snapshot.keep | commit.blobs.keys())

    def _list_questions(self, run_no: int, changes: Questions) -> None:
        """Gather the changes to the list of a run's open questions."""
        sql = self._sql
        if changes.whole or (changes.closed and sql.add_question in self._gathered):
            # Rows are written kind by kind. A question that an earlier commit of this batch has
            # opened must be in the list before it is deleted from it, or it would stay for ever.
            self.flush()
        if changes.whole:
            sql.drop_questions.execute(self._cursor, (run_no,))
            self._gather(sql.set_listed, (run_no,))
        for question_id, request_id in changes.closed.items():
            self._gather(sql.drop_question, (run_no, digest_of(request_id), question_id))
        for question_id, request_id in changes.opened.items():
            digest, data = digest_of(request_id), request_id.encode()
            self._gather(sql.add_question, (run_no, digest, question_id, PLAIN, data))

    def set_row(self, run_no: int, commit: Commit, *, crashed: bool) -> None:
        """Gather the changes that a commit makes to a run's row.

        Args:
            run_no: The run.
            commit: The commit.
            crashed: Whether a driver has crashed since the run's last step. Its `error` then says
                why, until another step is committed.
        """
        status = commit.status
        ends = status is not None and status.ended and commit.release
        if crashed and commit.progress:
            self._gather(self._sql.clear_crashes, (run_no,))
        if status is not None:
            head, tail = STATUS_CODES[status], (micros(commit.at), run_no)
            if crashed and not (commit.progress or status.ended or commit.error):
                self._gather(self._sql.set_status_only, (head, *tail))
            else:
                row = (head, store_rules.storable(commit.error), *tail)
                self._gather(self._sql.end if ends else self._sql.set_status, row)
        if commit.version is not None:
            self._gather(self._sql.set_version, (commit.version, run_no))
        if commit.release and not ends and self.lease_id is not None:
            self.give_back(run_no, self.lease_id)
        if status is RunStatus.COMPLETED:
            # No driver will ever take messages that came too late. Only a completed run drops them:
            # one that failed may be tried again.
            self._gather(self._sql.drop_mail, (run_no,))

    def flush(self) -> None:
        """Write the gathered rows: one statement per kind of row, or one packet for all.

        Raises:
            MailGoneError: Some of the messages to be taken are missing.
        """
        if self._created:
            self._write_runs()
        if not self._gathered:
            return
        work = list(self._gathered.items())
        first: Callable[[int], None] = _ignore
        if not self._fenced:
            # The fence goes first. In a packet, the server has done the rest too by the time that
            # this process sees a closed fence. That is harmless only because the lease's row stays
            # locked and nothing is committed: the caller rolls all of it back.
            self.database.begin_plainly(self.connection, self._unfenced)
            work.insert(0, (self._sql.renew, [self._renewal]))
            first = self._pass_the_fence
        found = self.database.run_all(self.connection, self._unfenced, work, first)
        # Each row is taken once. If two commits take the same row, the second deletion finds
        # nothing. This transaction is then rolled back and its jobs are written one by one, so only
        # the commit that came second fails.
        if len(self._gathered.get(self._sql.take_mail, ())) != found.get(self._sql.take_mail, 0):
            raise MailGoneError
        if found.get(self._sql.drop_mail):  # rarely any
            dropped = self._gathered[self._sql.drop_mail]
            self._sql.drop_mail_parts.execute_many(self._cursor, dropped)
        self._gathered.clear()

    def finish(self) -> Callable[[], None] | None:
        """Write everything that is left; nothing may follow.

        Returns:
            If no statement was sent and there are only entries to write, a function to call instead
            of a COMMIT. On a server it writes the entries, and raises `LeaseLostError` or the
            database's error. On SQLite, whose statement is a transaction by itself, they are on
            disk already, and the function does nothing. Otherwise `None`.
        """
        entries = self._gathered.get(self._sql.add_entry)
        if entries and not self._fenced and len(self._gathered) == 1 and not self._last_of_all:
            checked, whole = self._sql.append_checked, self._sql.append_whole
            if checked is not None and checked.execute(
                self._unfenced, self.lease_id, self._lease_ttl, entries
            ):
                return _nothing
            if whole is not None and (len(entries) == 1 or whole.many is not None):
                return partial(self._write_whole, whole, entries)
        self._gathered.update(self._last_of_all)
        self.flush()
        if not self._fenced:
            self.fence()  # there was nothing to write, so only renew the lease
        return None

    def _write_whole(self, whole: Whole, rows: list[Row]) -> None:
        # The statement is a transaction by itself: it writes the fence's number and all rows, or
        # nothing. If its answer is lost, it may still be on its way to the server, and be done
        # after this connection is given up. The fence's number shows which it was, and keeps the
        # late statement out: see `Batches._look`.
        with self.database.without_transaction(self.connection):
            self._pass_the_fence(int(whole.execute(self._unfenced, self._renewal, rows)))

    def _gather(self, statement: Statement, row: Row) -> None:
        rows = self._gathered.get(statement)
        if rows is None:
            self._gathered[statement] = [row]
        else:
            rows.append(row)

    def _gather_parts(self, statement: Statement, run_no: int, key: int | str, data: bytes) -> None:
        if len(data) <= PART_SIZE:
            self._gather(statement, (run_no, key, 0, PLAIN, data))
        else:
            for part, piece in enumerate(_pieces(data)):
                self._gather(statement, (run_no, key, part, PLAIN, piece))

    def _fold(self, run_no: int, snapshot: SnapshotRow, keep: frozenset[str]) -> None:
        """Write a snapshot, and delete what it replaces."""
        sql, cursor = self._sql, self._cursor
        sql.fold_entries.execute(cursor, (run_no, snapshot.seq))
        self._gather_parts(sql.add_snapshot, run_no, snapshot.seq, snapshot.data)
        self.flush()
        sql.drop_snapshots.execute(cursor, (run_no, snapshot.seq))
        sql.find_digests.execute(cursor, (run_no,))
        unused = [(run_no, digest) for (digest,) in cursor.fetchall() if digest not in keep]
        if unused:
            sql.drop_blob.execute_many(cursor, unused)


def _nothing() -> None:
    pass


def _ignore(_found: int) -> None:
    pass


def _pieces(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), PART_SIZE):
        yield data[start : start + PART_SIZE]
