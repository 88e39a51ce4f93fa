"""The statements of the hot path: which there are, and how each is sent.

`databases/` has their SQL, one class per database. In it, a name in braces is a parameter; it gets
the form that the driver expects when the statement is prepared, once per opening. Statements are
run on the driver's own cursor: SQLAlchemy's share of one costs as much as writing a small row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine.interfaces import DBAPICursor

__all__ = [
    "Checked",
    "Finder",
    "Placeholders",
    "Row",
    "Sql",
    "Statement",
    "Statements",
    "Whole",
    "in_one_line",
]

Row = tuple[Any, ...]
"""The parameters of a statement for one row, in the order of its names."""

_LISTED: Final = 500
"""At most this many values in one list."""


class Placeholders(dict[str, str]):
    """Replacements for the names in braces: a parameter's placeholder, unless one is given.

    Args:
        style: The driver's style of parameters, by its name in PEP 249.
        texts: Names that stand for SQL.

    Attributes:
        by_name: Whether the driver has named parameters.
        order: The parameters' names in the order in which they were used.
    """

    def __init__(self, style: str, **texts: str) -> None:
        super().__init__(texts)
        self.by_name = style == "pyformat"
        self._position = "?" if style == "qmark" else "%s"
        self.order: list[str] = []

    def __missing__(self, name: str) -> str:
        self.order.append(name)
        return f"%({name})s" if self.by_name else self._position


def in_one_line(sql: str) -> str:
    """Return SQL without its layout: a server's logs and tools often show only the first line."""
    return " ".join(sql.split())


@attrs.frozen(eq=False)
class Statement:
    """A statement that is ready to be sent.

    Attributes:
        sql: Its text for one row.
        names: The parameters' names, in the order of a row.
        order: For a driver with positional parameters: the index in the row for each position.
            `None`: the order of the row.
        by_name: Whether the driver has named parameters.
    """

    sql: str
    names: tuple[str, ...]
    order: tuple[int, ...] | None
    by_name: bool

    @classmethod
    def of(cls, sql: str, names: Sequence[str], places: Placeholders) -> Statement:
        """Prepare a statement from its SQL."""
        text = in_one_line(sql.format_map(places))
        order = tuple(names.index(name) for name in places.order)
        plain = places.by_name or order == tuple(range(len(names)))
        return cls(text, tuple(names), None if plain else order, places.by_name)

    def execute(self, cursor: DBAPICursor, row: Row) -> int:
        """Run the statement. Returns how many rows it found or wrote."""
        cursor.execute(self.sql, self.given(row))
        return cursor.rowcount

    def execute_many(self, cursor: DBAPICursor, rows: list[Row]) -> int:
        """Run the statement for each of these rows, in order; in one round trip if possible.

        Returns how many rows it found or wrote.
        """
        if len(rows) == 1:
            return self.execute(cursor, rows[0])
        if self.by_name or self.order is not None:
            cursor.executemany(self.sql, [self.given(row) for row in rows])
        else:
            cursor.executemany(self.sql, rows)
        return cursor.rowcount

    def given(self, row: Row) -> Any:
        """Return the parameters in the form that the driver expects."""
        if self.by_name:
            return dict(zip(self.names, row, strict=True))
        return row if self.order is None else tuple(row[index] for index in self.order)


@attrs.frozen(eq=False)
class Finder:
    """A query by a list of values, `{values}` in its SQL.

    Attributes:
        sql: Its SQL.
        style: The driver's style of parameters.
    """

    sql: str
    style: str

    def fetch(self, cursor: DBAPICursor, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return all rows for these values."""
        found: list[tuple[Any, ...]] = []
        for start in range(0, len(values), _LISTED):
            some = values[start : start + _LISTED]
            places, names = (
                Placeholders(self.style),
                [f"value_{index}" for index in range(len(some))],
            )
            listed = ", ".join(places[name] for name in names)
            given: Any = dict(zip(names, some, strict=True)) if places.by_name else tuple(some)
            cursor.execute(self.sql.format(values=listed), given)
            found += cursor.fetchall()
        return found


@attrs.frozen(eq=False)
class Checked:
    """On SQLite, an INSERT of one entry that checks the lease without changing it.

    This writes one page less than the fence does. The statement is a transaction by itself if none
    has been started. SQLite has one writer at a time and no statement arrives late, so the lease
    does not need the number of this batch.
    """

    statement: Statement

    def execute(self, cursor: Any, lease_id: int | None, lease_ttl: int, rows: list[Row]) -> bool:
        """Run it if there is exactly one row. Returns whether the row was written.

        It is not if the lease is lost, or is due for renewal because a third of its time has
        passed.
        """
        if len(rows) != 1:
            return False
        row = (*rows[0], lease_id, lease_ttl * 2 // 3, lease_ttl)
        return self.statement.execute(cursor, row) == 1


@attrs.frozen(eq=False)
class Whole:
    """On a server, the fence, an INSERT of entries and the commit in one round trip.

    No row is written if the fence is closed.

    Attributes:
        FENCE: The names of the fence's parameters, in the order in which they are passed.
        ENTRY: The names of an entry's parameters, likewise.
        one: Its text for one row.
        many: Its text for many rows, passed as one array per parameter; `None`: it can only write
            one.
        counted: How many rows the driver counts in addition to those written.
    """

    FENCE: ClassVar = ("ttl", "number", "lease_id", "last")
    ENTRY: ClassVar = ("run_no", "seq", "part", "format", "data")

    one: str
    many: str | None
    counted: int

    def execute(self, cursor: Any, fence: Row, rows: list[Row]) -> bool:
        """Run it. Returns whether the rows were written."""
        given = dict(zip(self.FENCE, fence, strict=True))
        if len(rows) == 1:
            cursor.execute(self.one, {**given, **dict(zip(self.ENTRY, rows[0], strict=True))})
        else:
            arrays = map(list, zip(*rows, strict=True))
            cursor.execute(self.many, {**given, **dict(zip(self.ENTRY, arrays, strict=True))})
        return bool(cursor.rowcount == len(rows) + self.counted)


class Sql(Protocol):
    """The SQL of the hot path in one database. `Statements` describes each."""

    add_entry: ClassVar[str]
    add_snapshot: ClassVar[str]
    add_history: ClassVar[str]
    add_blob: ClassVar[str]
    add_key: ClassVar[str]
    add_mail: ClassVar[str]
    add_mail_part: ClassVar[str]
    add_run: ClassVar[str]
    set_status: ClassVar[str]
    set_status_only: ClassVar[str]
    set_version: ClassVar[str]
    clear_crashes: ClassVar[str]
    end: ClassVar[str]
    give_back: ClassVar[str]
    set_aside: ClassVar[str]
    find_key: ClassVar[str]
    drop_key: ClassVar[str]
    drop_mail: ClassVar[str]
    drop_mail_parts: ClassVar[str]
    take_mail: ClassVar[str]
    take_mail_parts: ClassVar[str]
    add_question: ClassVar[str]
    drop_question: ClassVar[str]
    drop_questions: ClassVar[str]
    set_listed: ClassVar[str]
    fold_entries: ClassVar[str]
    drop_snapshots: ClassVar[str]
    find_digests: ClassVar[str]
    drop_blob: ClassVar[str]
    renew: ClassVar[str]


class Prepare(Protocol):
    """Prepares a statement with these parameters for a driver.

    An UPDATE says by which of them it finds its row: `of`. With `once`, the statement is only run
    for one row at a time.
    """

    def __call__(
        self, sql: str, *names: str, of: str | None = None, once: bool = False
    ) -> Statement: ...


class Statements:
    """All statements of the hot path, prepared for a driver.

    Each takes the parameters in the order given here.

    Args:
        sql: Their SQL.
        prepare: Prepares one.
        find_runs: The ids, numbers and statuses of the runs with these ids.
        bound: Bounds a transaction that does not begin with the fence; `None`: no need.
        append_checked: Appends an entry where the lease was renewed a moment ago.
        append_whole: Appends entries behind the fence, in one round trip.
    """

    def __init__(
        self,
        sql: Sql,
        prepare: Prepare,
        *,
        find_runs: Finder,
        bound: Statement | None = None,
        append_checked: Checked | None = None,
        append_whole: Whole | None = None,
    ) -> None:
        self.find_runs = find_runs
        self.bound = bound
        self.append_checked = append_checked
        self.append_whole = append_whole
        # The fence: it must find one row, our lease, or nothing of the batch may be written. A
        # statement that arrives late, after its connection was given up and its batch was written
        # again, finds another number than its `last`, and writes nothing.
        self.renew = prepare(sql.renew, *Whole.FENCE, once=True)

        self._prepare_appending(sql, prepare)
        self._prepare_rows(sql, prepare)
        self._prepare_inboxes(sql, prepare)
        self._prepare_questions(sql, prepare)

    def _prepare_appending(self, sql: Sql, prepare: Prepare) -> None:
        """Prepare what a commit appends, and what a snapshot replaces."""
        # A payload may have several parts.
        self.add_entry = prepare(sql.add_entry, *Whole.ENTRY)
        self.add_snapshot = prepare(sql.add_snapshot, *Whole.ENTRY)
        self.add_history = prepare(sql.add_history, *Whole.ENTRY)
        self.add_blob = prepare(sql.add_blob, "run_no", "digest", "part", "format", "data")

        self.fold_entries = prepare(sql.fold_entries, "run_no", "seq", once=True)
        self.drop_snapshots = prepare(sql.drop_snapshots, "run_no", "seq", once=True)
        self.find_digests = prepare(sql.find_digests, "run_no", once=True)
        self.drop_blob = prepare(sql.drop_blob, "run_no", "digest")

    def _prepare_rows(self, sql: Sql, prepare: Prepare) -> None:
        """Prepare the statements about rows of runs."""
        # This and `add_mail` leave a number for `Database.insert_id`.
        self.add_run = prepare(
            sql.add_run,
            *("run_id", "workflow", "version", "status", "owner"),
            *("created", "updated", "error", "wake", "listed"),
        )
        row = ("status", "error", "updated", "run_no")
        self.set_status = prepare(sql.set_status, *row, of="run_no")
        self.set_status_only = prepare(
            sql.set_status_only, "status", "updated", "run_no", of="run_no"
        )
        self.set_version = prepare(sql.set_version, "version", "run_no", of="run_no")
        # If a later commit of the same batch has ended the run, this keeps that commit's error.
        self.clear_crashes = prepare(sql.clear_crashes, "run_no", of="run_no")

        # Ends and releases of runs; the last two only if the run's owner is still our lease.
        self.end = prepare(sql.end, *row, of="run_no")
        self.give_back = prepare(
            sql.give_back, "error", "crashed", "wake", "hold", "run_no", "lease_id", of="run_no"
        )
        self.set_aside = prepare(
            sql.set_aside, "error", "updated", "run_no", "lease_id", of="run_no"
        )

    def _prepare_inboxes(self, sql: Sql, prepare: Prepare) -> None:
        """Prepare the statements about inboxes."""
        self.add_mail = prepare(sql.add_mail, "run_no", "kind", "key", "format", "data", once=True)
        self.add_mail_part = prepare(
            sql.add_mail_part, "run_no", "mail_id", "part", "format", "data"
        )
        self.take_mail = prepare(sql.take_mail, "mail_id", "run_no")
        self.take_mail_parts = prepare(sql.take_mail_parts, "run_no", "mail_id")
        self.drop_mail = prepare(sql.drop_mail, "run_no")
        self.drop_mail_parts = prepare(sql.drop_mail_parts, "run_no")
        self.add_key = prepare(sql.add_key, "run_no", "key", once=True)
        self.find_key = prepare(sql.find_key, "run_no", "key", once=True)
        self.drop_key = prepare(sql.drop_key, "run_no", "key", once=True)

    def _prepare_questions(self, sql: Sql, prepare: Prepare) -> None:
        """Prepare the statements that keep the list of a run's open questions."""
        key = ("run_no", "digest", "question_id")
        self.add_question = prepare(sql.add_question, *key, "format", "data")
        self.drop_question = prepare(sql.drop_question, *key)
        self.drop_questions = prepare(sql.drop_questions, "run_no", once=True)
        self.set_listed = prepare(sql.set_listed, "run_no", of="run_no")
