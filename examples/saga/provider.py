"""The warehouse, the bank and the carrier: three services of others, in one SQLite file.

Each does a thing once per idempotency key, and each can undo by the same key. Two rules make that safe, whatever was lost on the way:

- Undoing what was never done is no error, since who undoes can't know.
- What was undone stays so. A request that was under way all the time, and comes in after it was undone, is refused.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import trio

STOCK = {"teapot": 5, "cup": 20}
EFFECTS = ("reserve", "charge", "ship")
"""In the order in which an order has them."""


class DeclinedError(Exception):
    """A service refuses for good: out of stock, no money, no such address."""


class ServiceDownError(Exception):
    """A service does not answer now, and may in a while."""


class Services:
    """All three.

    Args:
        path: The SQLite file that stands for them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def do(self, effect: str, key: str, sku: str, amount: int) -> None:
        """Reserve or ship so many of an article, or charge so many cents for it. With one key it happens once.

        Raises:
            DeclinedError: It is refused for good, or was undone.
        """
        with self._open() as db:
            before = db.execute("SELECT undone FROM done WHERE key = ?", (key,)).fetchone()
            if before == (1,):
                msg = f"{effect} was undone, so it is not done any more"
                raise DeclinedError(msg)
            if before is not None:
                return
            if effect == "reserve" and amount > STOCK.get(sku, 0) - self._reserved(db, sku):
                msg = f"there are no {amount} of {sku} left"
                raise DeclinedError(msg)
            db.execute("INSERT INTO done VALUES (?, ?, ?, ?, 0)", (key, effect, sku, amount))
            db.execute("INSERT INTO log VALUES (?)", (f"{effect} {sku} {amount}",))

    def undo(self, effect: str, key: str) -> None:
        """Take back what was done with this key, if it was, and see to it that it never will be."""
        with self._open() as db:
            undone = db.execute(
                "UPDATE done SET undone = 1 WHERE key = ? AND NOT undone", (key,)
            ).rowcount
            # A row without an effect, where there was none: it keeps out a request that is late.
            db.execute("INSERT OR IGNORE INTO done VALUES (?, ?, '', 0, 1)", (key, effect))
            if undone:
                db.execute("INSERT INTO log VALUES (?)", (f"undo {effect}",))

    def books(self) -> dict[str, dict[str, int]]:
        """What stands after all that was done and undone: per effect, how much of which article."""
        found = {effect: Counter[str]() for effect in EFFECTS}
        with self._open() as db:
            for effect, sku, amount in db.execute(
                "SELECT effect, sku, amount FROM done WHERE NOT undone"
            ):
                found[effect][sku] += amount
        return {effect: dict(counted) for effect, counted in found.items()}

    def log(self) -> list[str]:
        """What has happened, in order; what was asked for twice is in it once."""
        with self._open() as db:
            return [line for (line,) in db.execute("SELECT line FROM log ORDER BY rowid")]

    @staticmethod
    def _reserved(db: sqlite3.Connection, sku: str) -> int:
        query = "SELECT coalesce(sum(amount), 0) FROM done WHERE effect = 'reserve' AND sku = ? AND NOT undone"
        reserved: int = db.execute(query, (sku,)).fetchone()[0]
        return reserved

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with (
            contextlib.closing(sqlite3.connect(self._path, timeout=30, isolation_level=None)) as db,
            db,
        ):
            db.execute("BEGIN IMMEDIATE")
            db.execute(
                "CREATE TABLE IF NOT EXISTS done (key PRIMARY KEY, effect, sku, amount, undone)"
            )
            db.execute("CREATE TABLE IF NOT EXISTS log (line)")
            yield db


class Provider:
    """The client of all three. Its methods raise `ServiceDownError` where a request or its answer was lost: the effect may be there, or not.

    Args:
        services: The other side.
        pace: Seconds that the way back takes: the effect is there, and who asked for it does not know yet.
        trouble: Called with `charge` when that request is sent, with `charge answered` when its answer comes back, and so on for each;
            raises what is to go wrong there.
    """

    def __init__(
        self,
        services: Services,
        pace: float = 0.0,
        trouble: Callable[[str], None] = lambda _where: None,
    ) -> None:
        self._services = services
        self._pace = pace
        self._trouble = trouble

    async def do(self, effect: str, key: str, *, sku: str, amount: int) -> None:
        """As `Services.do`."""
        await self._ask(effect, self._services.do, effect, key, sku, amount)

    async def undo(self, effect: str, key: str) -> None:
        """As `Services.undo`."""
        await self._ask(f"undo {effect}", self._services.undo, effect, key)

    async def _ask(self, what: str, service: Callable[..., None], *args: object) -> None:
        self._trouble(what)
        await trio.to_thread.run_sync(service, *args)
        await trio.sleep(self._pace)
        self._trouble(f"{what} answered")
