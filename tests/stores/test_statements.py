"""Each handwritten statement is run on each database, and does what its name says."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import sqlalchemy as sa

from blazen_trio._state.status import RunStatus
from blazen_trio._stores.sql import databases, schema
from blazen_trio._stores.sql.leases import NEVER
from blazen_trio._stores.sql.migrate import upgrade_schema
from tests.databases import WRITER_ARGUMENTS, an_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blazen_trio._stores.sql.databases.base import Database
    from blazen_trio._stores.sql.statements import Statement, Statements

_LIMITS = {"busy_timeout": 5.0, "lease_ttl": 15.0}
_LEASE = 77
_PAYLOAD = {"part": 0, "format": 1, "data": bytes(range(256))}
_RUN = dict(
    zip(
        (
            *("run_id", "workflow", "version", "status", "owner"),
            *("created", "updated", "error", "wake", "listed"),
        ),
        ("r", "w", "1", 2, _LEASE, 2**50, 2**50 + 1, None, None, 1),
        strict=True,
    )
)
_HOSTILE = {"format": 1, "data": b"\\'%s{}"}
"""Bytes that look like placeholders in a statement."""
_INSERTS: dict[str, tuple[sa.Table, dict[str, Any]]] = {
    "add_entry": (schema.journal, {"run_no": 5, "seq": 2**40, **_PAYLOAD}),
    "add_snapshot": (schema.snapshot, {"run_no": 5, "seq": 2**40, **_PAYLOAD}),
    "add_history": (schema.history, {"run_no": 5, "seq": 2**40, **_PAYLOAD}),
    "add_blob": (schema.blob, {"run_no": 5, "digest": "d", **_PAYLOAD}),
    "add_mail_part": (schema.inbox_part, {"run_no": 5, "mail_id": 6, **_PAYLOAD}),
    "add_mail": (schema.inbox, {"run_no": 5, "kind": "event", "key": None, **_HOSTILE}),
    "add_key": (schema.inbox_key, {"run_no": 5, "key": "k"}),
    "add_run": (schema.runs, _RUN),
    "add_question": (
        schema.question,
        {"run_no": 5, "digest": "d", "question_id": 2**40, **_HOSTILE},
    ),
}
_NUMBERED = {"add_mail": schema.inbox.c.mail_id, "add_run": schema.runs.c.run_no}
_UPDATES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # The given values, and what else is set.
    "set_status": ({"status": 4, "error": "e", "updated": 9}, {}),
    "set_status_only": ({"status": 4, "updated": 9}, {}),
    "set_version": ({"version": "2"}, {}),
    "set_listed": ({}, {"listed": 1}),
    "end": ({"status": 5, "error": "e", "updated": 9}, {"owner": None, "wake": None, "hold": 0}),
    "set_aside": (
        {"error": "e", "updated": 9, "lease_id": _LEASE},
        {"status": 6, "owner": None, "wake": None, "hold": 0},
    ),
}


def _at(**key: Any) -> dict[str, Any]:
    return {"run_no": 0, **key}


_MAIL, _OTHER_MAIL = {"run_no": 0, "mail_id": 1}, {"run_no": 1, "mail_id": 2}
_DELETES: dict[str, tuple[sa.Table, dict[str, Any], list[dict[str, Any]], dict[str, Any]]] = {
    # The given values, the rows that are deleted, and one that is kept.
    "take_mail": (schema.inbox, _MAIL, [_MAIL], _OTHER_MAIL),
    "take_mail_parts": (schema.inbox_part, _MAIL, [_MAIL], _OTHER_MAIL),
    "drop_mail": (schema.inbox, {"run_no": 0}, [_MAIL], _OTHER_MAIL),
    "drop_mail_parts": (schema.inbox_part, {"run_no": 0}, [_MAIL], _OTHER_MAIL),
    "drop_question": (
        schema.question,
        _at(digest="a", question_id=1),
        [_at(digest="a", question_id=1)],
        _at(digest="a", question_id=2),
    ),
    "drop_questions": (
        schema.question,
        {"run_no": 0},
        [_at(digest="a", question_id=1), _at(digest="b", question_id=2)],
        {"run_no": 1, "digest": "a", "question_id": 1},
    ),
    "drop_key": (schema.inbox_key, _at(key="a"), [_at(key="a")], _at(key="A")),
    "drop_blob": (schema.blob, _at(digest="a"), [_at(digest="a")], _at(digest="b")),
    "fold_entries": (schema.journal, _at(seq=2), [_at(seq=2), _at(seq=1)], _at(seq=3)),
    "drop_snapshots": (schema.snapshot, _at(seq=2), [_at(seq=1)], _at(seq=2)),
}
_OTHERS = {"find_runs", "find_key", "find_digests", "clear_crashes", "give_back", "renew", "bound"}
_AT_ONCE = {"append_checked", "append_whole"}
_OF_ANY = {"part": 0, "format": 1, "data": b"", "kind": "event"}


@attrs.frozen
class Prepared:
    """A migrated database, its statements, and a transaction that is rolled back."""

    connection: sa.Connection
    database: Database
    statements: Statements
    cursor: Any

    def run(self, name: str, *rows: dict[str, Any]) -> int:
        """Run a statement for these rows, as a batch does."""
        statement: Statement = getattr(self.statements, name)
        given = [tuple(row[each] for each in statement.names) for row in rows]
        found = self.database.run_all(self.connection, self.cursor, [(statement, given)], print)
        return found[statement]

    def add(self, table: sa.Table, *rows: dict[str, Any]) -> None:
        of_any = {name: value for name, value in _OF_ANY.items() if name in table.c}
        self.connection.execute(sa.insert(table), [{**of_any, **row} for row in rows])

    def add_run(self, run_no: int, **columns: Any) -> None:
        self.add(schema.runs, {**_RUN, "run_id": f"r{run_no}", "run_no": run_no, **columns})

    def row(self, run_no: int) -> dict[str, Any]:
        query = sa.select(schema.runs).where(schema.runs.c.run_no == run_no)
        return dict(self.connection.execute(query).mappings().one())


@pytest.fixture
def prepared(url: str, kind: str) -> Iterator[Prepared]:
    upgrade_schema(url)
    with _prepared(url, kind) as made:
        yield made


@contextmanager
def _prepared(url: str, kind: str) -> Iterator[Prepared]:
    with an_engine(url, **WRITER_ARGUMENTS[kind]) as engine, engine.connect() as connection:
        database = databases.of(connection)
        begun = database.begin(database.as_writer(connection))
        statements = database.statements(connection.dialect, **_LIMITS)
        yield Prepared(connection, database, statements, connection.connection.cursor())
        begun.rollback()


def test_each_statement_is_tested(prepared: Prepared) -> None:
    tested = {*_INSERTS, *_UPDATES, *_DELETES, *_OTHERS, *_AT_ONCE}
    assert set(vars(prepared.statements)) == tested


@pytest.mark.parametrize("name", _INSERTS)
def test_values_are_stored_in_the_columns_of_their_names(prepared: Prepared, name: str) -> None:
    table, row = _INSERTS[name]
    keys = {"run_id": "s"} if name == "add_run" else {"run_no": 4}
    others = [{**row, **keys}, {**row, **{key: value * 2 for key, value in keys.items()}}]
    assert prepared.run(name, row) == 1
    if name in _NUMBERED:
        number = prepared.database.insert_id(prepared.cursor)
        query = sa.select(_NUMBERED[name])
        assert prepared.connection.execute(query).scalars().all() == [number]
    if name not in {"add_mail", "add_key"}:  # which are run for one row at a time
        assert prepared.run(name, *others) == 2
    else:
        for other in others:
            prepared.run(name, other)
    columns = [table.c[column] for column in row]
    stored = [dict(each) for each in prepared.connection.execute(sa.select(*columns)).mappings()]
    assert sorted(stored, key=str) == sorted([row, *others], key=str)
    if name in {"add_blob", "add_key"}:  # which may be there already
        assert prepared.run(name, row) == 0


@pytest.mark.parametrize("name", _UPDATES)
def test_an_update_sets_the_columns_of_its_names(prepared: Prepared, name: str) -> None:
    given, also = _UPDATES[name]
    for run_no in range(1, 5):
        prepared.add_run(run_no, wake=3, hold=3, listed=None)
    before = prepared.row(4)
    assert prepared.run(name, {**given, "run_no": 1}) == 1
    # Of two changes of a run in a batch, the later counts.
    twice = [{**given, "run_no": 2}, {**given, "run_no": 3}]
    if name not in {"end", "set_aside", "set_listed"}:
        changed, value = next(iter(given.items()))
        twice.insert(0, {**given, changed: 1 if value == 4 else "0", "run_no": 3})
    assert prepared.run(name, *twice) == len(twice)
    columns = {key: value for key, value in given.items() if key in schema.runs.c}
    for run_no in (1, 2, 3):
        ids = {"run_no": run_no, "run_id": f"r{run_no}"}
        assert prepared.row(run_no) == {**before, **ids, **columns, **also}
    assert prepared.row(4) == before
    if "lease_id" in given:
        assert prepared.run(name, {**given, "run_no": 4, "lease_id": _LEASE + 1}) == 0
        assert prepared.row(4) == before


def _nth(row: dict[str, Any], number: int) -> dict[str, Any]:
    """Return this row for another run and another message."""
    numbered = {key: row[key] * 10 + number for key in ("run_no", "mail_id") if key in row}
    return {**row, **numbered}


@pytest.mark.parametrize("name", _DELETES)
def test_a_deletion_finds_its_rows_and_no_others(prepared: Prepared, name: str) -> None:
    table, given, gone, kept = _DELETES[name]
    for number in (1, 2, 3):
        prepared.add(table, *(_nth(row, number) for row in [*gone, kept]))
    assert prepared.run(name, _nth(given, 1)) == len(gone)
    if name in {
        "drop_key",
        "fold_entries",
        "drop_snapshots",
    }:  # which are run for one row at a time
        prepared.run(name, _nth(given, 2))
        prepared.run(name, _nth(given, 3))
    else:
        assert prepared.run(name, _nth(given, 2), _nth(given, 3)) == 2 * len(gone)
    query = sa.select(*[table.c[key] for key in kept])
    left = [dict(row) for row in prepared.connection.execute(query).mappings()]
    assert sorted(left, key=str) == [_nth(kept, number) for number in (1, 2, 3)]


def test_queries_find_the_given_keys(prepared: Prepared) -> None:
    statements, cursor = prepared.statements, prepared.cursor
    for run_no in (1, 2, 3):
        prepared.add_run(run_no)
    ids = [f"r{number}" for number in (2, *range(3, 1200))]
    assert sorted(statements.find_runs.fetch(cursor, ids)) == [("r2", 2, 2), ("r3", 3, 2)]
    assert statements.find_runs.fetch(cursor, ["r1"]) == [("r1", 1, 2)]
    prepared.add(schema.inbox_key, {"run_no": 1, "key": "a"})
    for key, found in (("a", [(1,)]), ("A", [])):
        statements.find_key.execute(cursor, (1, key))
        assert list(cursor.fetchall()) == found
    prepared.add(schema.blob, *({"run_no": 1, "digest": "d", "part": part} for part in (0, 1)))
    statements.find_digests.execute(cursor, (1,))
    assert list(cursor.fetchall()) == [("d",)]


def test_the_codes_in_the_sql_are_those_of_the_statuses(prepared: Prepared) -> None:
    runs = dict(enumerate(RunStatus, 1))
    common = {"error": None, "crashed": 0, "hold": 8, "lease_id": _LEASE}
    for wake in (None, NEVER, 7):
        for number, status in runs.items():
            code = schema.STATUS_CODES[status]
            prepared.add_run(number, status=code, error="e", crashes=2)
        rows = [{**common, "wake": wake, "run_no": number} for number in runs]
        assert prepared.run("give_back", *rows) == len(runs)
        time = prepared.connection.execute(sa.select(prepared.database.now())).scalar_one()
        for number, status in runs.items():
            row = prepared.row(number)
            now = row["wake"] is not None and time - 60_000_000 < row["wake"] <= time
            if status in (RunStatus.QUEUED, RunStatus.RUNNING):
                assert row["wake"] == 7 if wake == 7 else now
            elif status is RunStatus.WAITING:
                assert now if wake is None else row["wake"] == (None if wake == NEVER else 7)
            else:
                assert row["wake"] is None
            assert (row["owner"], row["hold"], row["error"], row["crashes"]) == (None, 8, "e", 2)
        assert prepared.run("clear_crashes", *({"run_no": number} for number in runs)) == len(runs)
        for number, status in runs.items():
            row = prepared.row(number)
            assert (row["error"], row["crashes"]) == ("e" if status.ended else None, 0)
        prepared.connection.execute(sa.delete(schema.runs))


def test_a_release_counts_a_crash_and_notes_an_error(prepared: Prepared) -> None:
    prepared.add_run(1, error="e", crashes=2)
    row = {"error": "f", "crashed": 1, "wake": 7, "hold": 0, "run_no": 1, "lease_id": _LEASE}
    assert prepared.run("give_back", {**row, "lease_id": _LEASE + 1}) == 0
    assert prepared.run("give_back", row) == 1
    assert (prepared.row(1)["error"], prepared.row(1)["crashes"]) == ("f", 3)


@pytest.mark.parametrize(
    ("state", "last", "found"), [(1, 4, 1), (1, 3, 0), (0, 4, 0)], ids=["open", "late", "dead"]
)
def test_the_fence_finds_a_living_lease_with_the_last_number(
    prepared: Prepared, state: int, last: int, found: int
) -> None:
    lease = schema.lease
    words: dict[str, Any] = {"host": "", "boot": "", "pid_namespace": "", "pid": 0, "started": 0}
    prepared.add(lease, {"lease_id": _LEASE, "state": state, "expires": 0, "batch": 4, **words})
    renewal = {"ttl": 15_000_000, "number": 5, "lease_id": _LEASE, "last": last}
    assert prepared.run("renew", renewal) == found
    columns = (lease.c.expires - prepared.database.now(), lease.c.batch)
    left, batch = prepared.connection.execute(sa.select(*columns)).one()
    assert (0 < left <= 15_000_000) == bool(found)
    assert batch == (5 if found else 4)


@pytest.mark.parametrize("style", ["qmark", "format"])
def test_a_driver_with_positional_parameters_gets_one_for_each_placeholder(
    kind: str, style: str
) -> None:
    dialect = databases.KINDS[kind]
    driver: Any = attrs.make_class("Driver", ["paramstyle", "driver"])(style, "another")
    statements = dialect.statements(driver, **_LIMITS)
    for name in {*_INSERTS, *_UPDATES, *_DELETES, *_OTHERS} - {"find_runs", "bound"}:
        statement: Statement = getattr(statements, name)
        given = statement.given(tuple(statement.names))
        # With the names as values, the statement reads like its SQL.
        places = statement.sql.replace("?", "%s") % tuple(f"{{{each}}}" for each in given)
        for each in statement.names:
            assert f"{{{each}}}" in places
    ordered = statements.give_back.given(("e", 0, 1, 2, 3, 4))
    assert ordered == ("e", 0, 1, 1, 2, 3, 4)
