"""The fence, an INSERT behind it and the commit, all at once: what a step costs that has nothing but an entry to write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from blazen_trio._stores.sql import dialects

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import Dialect

    from blazen_trio._stores.sql.compiled import Statement

__all__ = ["Checked", "Whole"]

Row = tuple[Any, ...]


@attrs.frozen(eq=False)
class Checked:
    """SQLite: an INSERT that looks at the lease and leaves it as it is, which is a page less on disk. It is a transaction by itself
    where none has begun.

    Nobody else writes at the same time and nothing comes late here, so the lease needs no number of this batch.

    Attributes:
        one: Its text.
    """

    one: str

    @classmethod
    def of(cls, dialect: Dialect, insert: Statement) -> Checked | None:
        """Made of the INSERT, where this is SQLite."""
        if dialect.driver != "pysqlite":
            return None
        now = dialects.now(dialect.name)
        # One that lasts for longer than its time was renewed before the clock was set back.
        good = f"lease_id = ? AND state = 1 AND expires BETWEEN {now} + ? AND {now} + ?"
        return cls(f"{_selecting(insert)} blazen_lease WHERE {good}")

    def execute(self, cursor: Any, lease_id: int | None, lease_ttl: int, rows: list[Row]) -> bool:
        """Run it, for what is one row; whether that was written.

        It was not where the lease is lost, or is to be renewed, as is any that has lasted for a third of its time.
        """
        if len(rows) != 1:
            return False
        cursor.execute(self.one, (*rows[0], lease_id, lease_ttl * 2 // 3, lease_ttl))
        return bool(cursor.rowcount == 1)


@attrs.frozen(eq=False)
class Whole:
    """A server: in one round trip. No row is written where the fence is closed.

    Attributes:
        one: Its text for one row.
        many: Its text for many; `None`: it is for one row only.
        fence: The names of the fence's parameters, in the order in which they are given.
        columns: Those of a row.
        counted: How many rows are counted besides those written.
    """

    one: str
    many: str | None
    fence: tuple[str, ...]
    columns: tuple[str, ...]
    counted: int

    @classmethod
    def of(cls, dialect: Dialect, fence: Statement, insert: Statement) -> Whole | None:
        """Made of these two, where this server and its driver can do it."""
        if dialect.driver == "pymysql" and getattr(dialect, "is_mariadb", False):
            # This number is there only where the fence has just been passed.
            passed = "blazen_lease WHERE lease_id = %(me)s AND batch = %(number)s"
            block = f"BEGIN NOT ATOMIC {fence.sql};{_selecting(insert)} {passed};COMMIT;END"
            return cls(block, None, fence.names, insert.names, 1)
        # On PostgreSQL it is a transaction by itself, which has the isolation that the database has by default. At any but this one
        # it is not looked at again what a row says after it was waited for.
        if insert.many is not None and dialect.default_isolation_level == "READ COMMITTED":
            begun = f"WITH fence AS ({fence.sql})"
            one, many = f"{begun} {_selecting(insert)} fence", f"{begun} {insert.many.sql}, fence"
            return cls(one, many, fence.names, insert.names, 0)
        return None

    def execute(self, cursor: Any, fence: Row, rows: list[Row]) -> bool:
        """Run it; whether the rows were written."""
        given = dict(zip(self.fence, fence, strict=True))
        if len(rows) == 1:
            cursor.execute(self.one, {**given, **dict(zip(self.columns, rows[0], strict=True))})
        else:
            arrays = map(list, zip(*rows, strict=True))
            cursor.execute(self.many, {**given, **dict(zip(self.columns, arrays, strict=True))})
        return bool(cursor.rowcount == len(rows) + self.counted)


def _selecting(insert: Statement) -> str:
    """The INSERT, of its values if there is something in what is named next."""
    head, _, values = insert.sql.partition(" VALUES (")
    return f"{head} SELECT {values.removesuffix(')')} FROM"
