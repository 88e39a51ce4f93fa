"""The statements of the hot path, compiled once per engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from blazen_trio._state.status import RunStatus
from blazen_trio._stores import store_rules
from blazen_trio._stores.sql import dialects, round_trips
from blazen_trio._stores.sql.leases import wake_when_given_back
from blazen_trio._stores.sql.round_trips import compile_statement
from blazen_trio._stores.sql.schema import (
    STATUS_CODES,
    blob,
    history,
    inbox,
    inbox_key,
    inbox_part,
    journal,
    lease,
    question,
    runs,
    snapshot,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine.interfaces import Dialect

    from blazen_trio._stores.sql.round_trips import Statement

__all__ = ["Statements"]


_RUN_COLUMNS: Final = (
    "run_id",
    "workflow",
    "version",
    "status",
    "owner",
    "created",
    "updated",
    "error",
    "wake",
    "listed",
)
"""The columns of a new run's row, in the order of their values in `Transaction.add_run`."""


class Statements:
    """The compiled statements for one dialect.

    Args:
        dialect: The dialect that they are compiled for.
        bounds: See `dialects.bounds`.
    """

    def __init__(self, dialect: Dialect, bounds: Sequence[sa.ColumnElement[Any]] = ()) -> None:
        name = dialect.name
        payload = ("part", "format", "data")

        def insert(table: sa.Table, *columns: str) -> Statement:
            return compile_statement(sa.insert(table), columns, dialect, columns)

        def insert_numbered(table: sa.Table, number: sa.Column[int], *columns: str) -> Statement:
            return compile_statement(
                dialects.returning_id(sa.insert(table), number, name), columns, dialect, columns
            )

        def insert_missing(table: sa.Table, *columns: str) -> Statement:
            return compile_statement(
                dialects.insert_missing(table, name), columns, dialect, columns
            )

        self.add_entry = insert(journal, "run_no", "seq", *payload)
        self.add_snapshot = insert(snapshot, "run_no", "seq", *payload)
        self.add_history = insert(history, "run_no", "seq", *payload)
        self.add_blob = insert_missing(blob, "run_no", "digest", *payload)
        self.add_key = insert_missing(inbox_key, "run_no", "key")
        self.add_mail = insert_numbered(
            inbox, inbox.c.mail_id, "run_no", "kind", "key", "format", "data"
        )
        self.add_mail_part = insert(inbox_part, "run_no", "mail_id", *payload)
        self.add_run = insert_numbered(runs, runs.c.run_no, *_RUN_COLUMNS)
        self._compile_row(dialect)
        self._compile_mail(dialect)
        self._compile_fold(dialect)
        self._compile_questions(dialect)
        renew: Any = (
            sa.update(lease)
            .where(
                lease.c.lease_id == sa.bindparam("me"),
                lease.c.state == sa.literal_column("1"),
                # A statement that arrives late, after its connection was given up and its batch was
                # written again, finds another number and writes nothing.
                lease.c.batch == sa.bindparam("last"),
            )
            .values(expires=dialects.now(name) + sa.bindparam("ttl"), batch=sa.bindparam("number"))
        )
        # The fence also bounds its transaction. A batch without a lease uses `bound` for that.
        self.renew = compile_statement(
            renew.returning(*bounds) if bounds else renew, ("ttl", "number", "me", "last"), dialect
        )
        self.append_checked = round_trips.Checked.of(dialect, self.add_entry)
        self.append_whole = round_trips.Whole.of(dialect, self.renew, self.add_entry)
        self.bound = compile_statement(sa.select(*bounds), (), dialect) if bounds else None

    def _compile_row(self, dialect: Dialect) -> None:
        """Compile the statements that change a run's row."""
        of_run = runs.c.run_no == sa.bindparam("the_run")
        row = ("status", "error", "updated")
        self.set_status = compile_statement(
            sa.update(runs).where(of_run), (*row, "the_run"), dialect, row
        )
        given_back: dict[Any, Any] = {
            runs.c.owner: sa.null(),
            runs.c.wake: sa.null(),
            runs.c.hold: sa.literal_column("0"),
        }
        given: dict[Any, Any] = {runs.c[name]: sa.bindparam(name) for name in row}
        self.end = compile_statement(
            sa.update(runs).where(of_run).values({**given, **given_back}),
            (*row, "the_run"),
            dialect,
        )
        self.set_version = compile_statement(
            sa.update(runs).where(of_run), ("version", "the_run"), dialect, ("version",)
        )
        self.set_status_only = compile_statement(
            sa.update(runs).where(of_run),
            ("status", "updated", "the_run"),
            dialect,
            ("status", "updated"),
        )
        self._compile_giving_back(
            dialect, of_run & (runs.c.owner == sa.bindparam("me")), given_back
        )
        # If a later commit of the same batch has ended the run, keep that commit's error.
        ended = runs.c.status.in_(
            [sa.literal_column(str(STATUS_CODES[status])) for status in store_rules.ENDED]
        )
        self.clear_crashes = compile_statement(
            sa.update(runs)
            .where(of_run)
            .values(
                crashes=sa.literal_column("0"),
                error=sa.case((ended, runs.c.error), else_=sa.null()),
            ),
            ("the_run",),
            dialect,
        )

    def _compile_mail(self, dialect: Dialect) -> None:
        """Compile the statements that find a run to post to, and take its messages."""
        self.find_run = compile_statement(
            sa.select(runs.c.run_id, runs.c.run_no, runs.c.status).where(
                runs.c.run_id == sa.bindparam("the_id")
            ),
            ("the_id",),
            dialect,
        )
        self.find_key = compile_statement(
            sa.select(inbox_key.c.run_no).where(
                inbox_key.c.run_no == sa.bindparam("the_run"),
                inbox_key.c.key == sa.bindparam("its_key"),
            ),
            ("the_run", "its_key"),
            dialect,
        )
        self.drop_key = compile_statement(
            sa.delete(inbox_key).where(
                inbox_key.c.run_no == sa.bindparam("the_run"),
                inbox_key.c.key == sa.bindparam("its_key"),
            ),
            ("the_run", "its_key"),
            dialect,
        )
        self.drop_mail = compile_statement(
            sa.delete(inbox).where(inbox.c.run_no == sa.bindparam("the_run")), ("the_run",), dialect
        )
        self.drop_mail_parts = compile_statement(
            sa.delete(inbox_part).where(inbox_part.c.run_no == sa.bindparam("the_run")),
            ("the_run",),
            dialect,
        )
        self.take_mail_parts = compile_statement(
            sa.delete(inbox_part).where(
                inbox_part.c.run_no == sa.bindparam("the_run"),
                inbox_part.c.mail_id == sa.bindparam("mail"),
            ),
            ("the_run", "mail"),
            dialect,
        )
        self.take_mail = compile_statement(
            sa.delete(inbox).where(
                inbox.c.mail_id == sa.bindparam("mail"), inbox.c.run_no == sa.bindparam("the_run")
            ),
            ("mail", "the_run"),
            dialect,
        )

    def _compile_giving_back(
        self, dialect: Dialect, of_ours: Any, given_back: dict[Any, Any]
    ) -> None:
        """Compile the statements that release a run, if its owner is still our lease."""
        looked_at = {
            "owner": sa.null(),
            "wake": wake_when_given_back(
                dialect.name, sa.bindparam("its_wake", type_=sa.BigInteger())
            ),
            "hold": sa.bindparam("its_hold", type_=sa.BigInteger()),
        }
        its_error = sa.bindparam("its_error", type_=runs.c.error.type)
        self.give_back = compile_statement(
            sa.update(runs).where(of_ours).values(looked_at),
            ("its_wake", "its_hold", "the_run", "me"),
            dialect,
        )
        told = {**looked_at, "error": its_error}
        self.give_back_with_reason = compile_statement(
            sa.update(runs).where(of_ours).values(told),
            ("its_error", "its_wake", "its_hold", "the_run", "me"),
            dialect,
        )
        crashed = {**told, "crashes": runs.c.crashes + sa.literal_column("1")}
        self.give_back_crashed = compile_statement(
            sa.update(runs).where(of_ours).values(crashed),
            ("its_error", "its_wake", "its_hold", "the_run", "me"),
            dialect,
        )
        failed: dict[Any, Any] = {
            **given_back,
            runs.c.status: sa.literal_column(str(STATUS_CODES[RunStatus.FAILED])),
            runs.c.error: its_error,
            runs.c.updated: sa.bindparam("at", type_=sa.BigInteger()),
        }
        self.set_aside = compile_statement(
            sa.update(runs).where(of_ours).values(failed),
            ("its_error", "at", "the_run", "me"),
            dialect,
        )

    def _compile_fold(self, dialect: Dialect) -> None:
        """Compile the statements that delete what a snapshot replaces."""
        self.fold_entries = compile_statement(
            _up_to(journal, journal.c.seq <= sa.bindparam("last")), ("the_run", "last"), dialect
        )
        self.drop_snapshots = compile_statement(
            _up_to(snapshot, snapshot.c.seq < sa.bindparam("last")), ("the_run", "last"), dialect
        )
        self.digests = compile_statement(
            sa.select(blob.c.digest).distinct().where(blob.c.run_no == sa.bindparam("the_run")),
            ("the_run",),
            dialect,
        )
        self.drop_blob = compile_statement(
            sa.delete(blob).where(
                blob.c.run_no == sa.bindparam("the_run"),
                blob.c.digest == sa.bindparam("the_digest"),
            ),
            ("the_run", "the_digest"),
            dialect,
        )

    def _compile_questions(self, dialect: Dialect) -> None:
        """Compile the statements that keep the list of a run's open questions."""
        key = ("run_no", "digest", "question_id")
        columns = (*key, "format", "data")
        self.add_question = compile_statement(sa.insert(question), columns, dialect, columns)
        of_run = question.c.run_no == sa.bindparam("the_run")
        self.drop_question = compile_statement(
            sa.delete(question).where(
                of_run,
                question.c.digest == sa.bindparam("the_digest"),
                question.c.question_id == sa.bindparam("the_id", type_=sa.BigInteger()),
            ),
            ("the_run", "the_digest", "the_id"),
            dialect,
        )
        self.drop_questions = compile_statement(
            sa.delete(question).where(of_run), ("the_run",), dialect
        )
        self.set_listed = compile_statement(
            sa.update(runs)
            .where(runs.c.run_no == sa.bindparam("the_run"))
            .values(listed=sa.literal_column("1")),
            ("the_run",),
            dialect,
        )


def _up_to(table: sa.Table, condition: sa.ColumnElement[bool]) -> sa.Delete:
    return sa.delete(table).where(table.c.run_no == sa.bindparam("the_run"), condition)
