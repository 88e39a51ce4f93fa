"""The warehouse, the bank and the carrier: three external services, in one SQLite file.

Each has an effect once per idempotency key, and can undo it by the same key. Two rules make that
safe, even if requests or answers get lost:

- It is not an error to undo an effect that never happened, because the client can't know.
- An undone effect stays undone. A request that was delayed, and arrives after the undo, is refused.
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
"""The effects of an order, in their order."""


class DeclinedError(Exception):
    """A service refuses a request for good: out of stock, no money, no such address."""


class ServiceDownError(Exception):
    """A service does not answer now, but may answer later."""


class Services:
    """All three services.

    Args:
        path: The SQLite file that stands for them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def do(self, effect: str, key: str, sku: str, amount: int) -> None:
        """Reserve or ship a quantity of an article, or charge cents for it, once per key.

        Raises:
            DeclinedError: The service refuses for good, or the effect was undone.
        """
        with self._open() as db:
            before = db.execute("SELECT undone FROM done WHERE key = ?", (key,)).fetchone()
            if before == (1,):
                msg = f"{effect} was undone already"
                raise DeclinedError(msg)
            if before is not None:
                return
            if effect == "reserve" and amount > STOCK.get(sku, 0) - self._reserved(db, sku):
                msg = f"fewer than {amount} of {sku} left"
                raise DeclinedError(msg)
            db.execute("INSERT INTO done VALUES (?, ?, ?, ?, 0)", (key, effect, sku, amount))
            db.execute("INSERT INTO log VALUES (?)", (f"{effect} {sku} {amount}",))

    def undo(self, effect: str, key: str) -> None:
        """Undo the effect with this key if it happened, and make sure that it never will."""
        with self._open() as db:
            undone = db.execute(
                "UPDATE done SET undone = 1 WHERE key = ? AND NOT undone", (key,)
            ).rowcount
            # If there is no row, insert one without an effect. It keeps out a late request.
            db.execute("INSERT OR IGNORE INTO done VALUES (?, ?, '', 0, 1)", (key, effect))
            if undone:
                db.execute("INSERT INTO log VALUES (?)", (f"undo {effect}",))

    def books(self) -> dict[str, dict[str, int]]:
        """Return the amounts that are not undone, by effect and article."""
        found = {effect: Counter[str]() for effect in EFFECTS}
        with self._open() as db:
            for effect, sku, amount in db.execute(
                "SELECT effect, sku, amount FROM done WHERE NOT undone"
            ):
                found[effect][sku] += amount
        return {effect: dict(counted) for effect, counted in found.items()}

    def log(self) -> list[str]:
        """Return what happened, in order. A repeated request is not in it twice."""
        with self._open() as db:
            return [line for (line,) in db.execute("SELECT line FROM log ORDER BY rowid")]

    @staticmethod
    def _reserved(db: sqlite3.Connection, sku: str) -> int:
        query = (
            "SELECT coalesce(sum(amount), 0) FROM done"
            " WHERE effect = 'reserve' AND sku = ? AND NOT undone"
        )
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
    """The client of all three services.

    Its methods raise `ServiceDownError` if a request or its answer was lost: the effect may have
    happened or not.

    Args:
        services: The services.
        pace: Seconds that an answer takes. In that time, the effect has happened but the client
            does not know it.
        trouble: Called with `charge` when that request is sent, with `charge answered` when its
            answer comes back, and so on. It raises an error to simulate a failure at that point.
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
        """Call `Services.do`."""
        await self._ask(effect, self._services.do, effect, key, sku, amount)

    async def undo(self, effect: str, key: str) -> None:
        """Call `Services.undo`."""
        await self._ask(f"undo {effect}", self._services.undo, effect, key)

    async def _ask(self, what: str, service: Callable[..., None], *args: object) -> None:
        self._trouble(what)
        await trio.to_thread.run_sync(service, *args)
        await trio.sleep(self._pace)
        self._trouble(f"{what} answered")
