"""The tools of a travel agent, the booking service behind them, and the script of the model."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import trio
from agent import Tool
from model import Line, Message, ToolCall

WEATHER = {"Lisbon": "sunny, 24 degrees", "Porto": "rain, 15 degrees"}
FLIGHTS = {"Lisbon": "TP 571, 140 euros", "Porto": "TP 503, 95 euros"}


class TravelDesk:
    """The tools. A SQLite file stands for a remote service that books once per idempotency key.

    Args:
        bookings: The SQLite file.
        pace: Seconds that each tool takes.
    """

    def __init__(self, bookings: Path, pace: float = 0.0) -> None:
        self._bookings = bookings
        self._pace = pace
        self.tools = [
            Tool("weather", self._weather),
            Tool("flights", self._flights),
            Tool("book_flight", self._book, dangerous=True),
            Tool("book_hotel", self._book, dangerous=True),
        ]

    def booked(self) -> list[str]:
        """Return all bookings, oldest first."""
        with self._open() as service:
            return [what for (what,) in service.execute("SELECT what FROM booking ORDER BY rowid")]

    async def _weather(self, arguments: dict[str, Any], _key: str) -> str:
        await trio.sleep(self._pace)
        return WEATHER.get(arguments["city"], "unknown")

    async def _flights(self, arguments: dict[str, Any], _key: str) -> str:
        await trio.sleep(self._pace)
        return FLIGHTS.get(arguments["city"], "none")

    async def _book(self, arguments: dict[str, Any], key: str) -> str:
        number = await trio.to_thread.run_sync(self._enter, arguments["what"], key)
        # Booked, but the run has not committed yet. If the process is killed here, the call is made
        # again, with the same key.
        await trio.sleep(self._pace)
        return f"Booked {arguments['what']}, number {number}."

    def _enter(self, what: str, key: str) -> int:
        with self._open() as service:
            service.execute("INSERT OR IGNORE INTO booking (key, what) VALUES (?, ?)", (key, what))
            number: int = service.execute(
                "SELECT rowid FROM booking WHERE key = ?", (key,)
            ).fetchone()[0]
            return number

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self._bookings, timeout=30)) as service, service:
            service.execute(
                "CREATE TABLE IF NOT EXISTS booking (key TEXT PRIMARY KEY, what TEXT NOT NULL)"
            )
            yield service


def sum_up(messages: Sequence[Message]) -> Message:
    """Return the last message of the script, with the results of the last two calls."""
    flight, hotel = (message.text for message in messages[-2:])
    return Message("assistant", f"Flight: {flight} Hotel: {hotel}")


SCRIPT: list[Line] = [
    Message(
        "assistant",
        "I will check both cities.",
        [
            ToolCall("weather-1", "weather", {"city": "Lisbon"}),
            ToolCall("weather-2", "weather", {"city": "Porto"}),
            ToolCall("flights-1", "flights", {"city": "Lisbon"}),
            ToolCall("flights-2", "flights", {"city": "Porto"}),
        ],
    ),
    Message(
        "assistant",
        "Lisbon is sunny, so I will book it.",
        [
            ToolCall("flight", "book_flight", {"what": "TP 571 to Lisbon"}),
            ToolCall("hotel", "book_hotel", {"what": "three nights in Alfama"}),
        ],
    ),
    sum_up,
]
