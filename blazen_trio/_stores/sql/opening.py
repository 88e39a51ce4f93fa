"""Opening and closing of SQL stores: the parts of an open store, and their order."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

import sqlalchemy as sa
import trio

from blazen_trio._clock import DatabaseClock, wall_clock
from blazen_trio._concurrency import bare_errors, protected
from blazen_trio._stores.sql import databases
from blazen_trio._stores.sql.admission import check_engine
from blazen_trio._stores.sql.batches import Batches
from blazen_trio._stores.sql.engine import for_writing, make_engine, make_looking_engine, shown
from blazen_trio._stores.sql.faults import translate
from blazen_trio._stores.sql.migrate import prepare_database, read_schema_of
from blazen_trio._stores.sql.reading import Readers, SqlLooks, Watch, observe, watching
from blazen_trio._stores.sql.sqlite_files import Place
from blazen_trio._stores.sql.store import SqlStore
from blazen_trio._stores.sql.troubles import ANSWER_WITHIN, Reach
from blazen_trio._stores.sql.writer import Writer
from blazen_trio.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["open_sql_store", "open_to_look"]


@protected
@contextlib.asynccontextmanager
async def open_sql_store(
    url_or_engine: str | sa.URL | sa.Engine, *, lease_ttl: float, busy_timeout: float, migrate: bool
) -> AsyncIterator[SqlStore]:
    """See `open_store`.

    The engine is outermost: its connections are closed last. Inside it is the watch, which
    everything that waits for an answer needs; inside that, the writer, which ends once everything
    is written.
    """
    engine, ours = make_engine(url_or_engine)
    limiter = trio.CapacityLimiter(1)
    readers: Readers | None = None
    try:
        async with watching() as watch:
            clock = DatabaseClock(wall_clock())
            prepare = partial(_prepare, engine, watch, clock, ours=ours, migrate=migrate)
            place = await trio.to_thread.run_sync(prepare, limiter=limiter)
            batches = Batches(
                engine,
                for_writing(engine, ours=ours),
                lease_ttl=lease_ttl,
                busy_timeout=busy_timeout,
                watch=watch,
                place=place,
            )
            silence = ANSWER_WITHIN + busy_timeout
            readers = Readers(
                engine,
                watch,
                silence=silence,
                place=place,
                reach=batches.reach,
                clock=clock,
            )
            writer = Writer(batches, renew_every=lease_ttl / 3)
            with bare_errors():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(writer.run)
                    store = SqlStore(engine, batches, writer, readers=readers, clock=clock)
                    nursery.start_soon(store.watch_mail)
                    try:
                        yield store
                    finally:
                        writer.close()
                        nursery.cancel_scope.cancel(reason="the store is closed")
    finally:
        try:
            if readers is not None:
                await readers.drain()  # noqa: ASYNC102  # which shields itself, and has an end
        finally:
            if ours:
                # Bounded: it sends a farewell, and does not wait for an answer.
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(engine.dispose, limiter=limiter)


@protected
@contextlib.asynccontextmanager
async def open_to_look(url: str | sa.URL) -> AsyncIterator[SqlLooks]:
    """Open a database for reading only.

    No lease is taken, nothing is created or upgraded, and an SQLite file may belong to another
    user.

    Raises:
        ValueError: The URL names a database that can't be used.
        SchemaError: The schema is not the one needed, or the database belongs to another program.
        StoreError: The database can't be read.
    """
    engine, looker = make_looking_engine(url)
    limiter = trio.CapacityLimiter(1)
    readers: Readers | None = None
    try:
        async with watching() as watch:

            def check() -> None:
                schema = looker.steadily(lambda: read_schema_of(engine, watch))
                if schema.problem is not None:
                    raise SchemaError(schema.problem)

            await trio.to_thread.run_sync(check, limiter=limiter)
            readers = Readers(
                engine,
                watch,
                silence=ANSWER_WITHIN,
                place=None,
                reach=Reach(),
                clock=DatabaseClock(wall_clock()),
                looker=looker,
            )
            yield SqlLooks(readers)
    finally:
        try:
            if readers is not None:
                await readers.drain()  # noqa: ASYNC102  # which shields itself, and has an end
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(engine.dispose, limiter=limiter)


def _prepare(
    engine: sa.Engine, watch: Watch, clock: DatabaseClock, *, ours: bool, migrate: bool
) -> Place:
    """Prepare a database, in a thread of Trio's, and return its place."""
    if not ours:
        try:
            check_engine(engine)
        except sa.exc.SQLAlchemyError as error:
            raise translate(error, f"opening {shown(engine.url)}") from error
    # A wait for another process that upgrades the schema can be cancelled.
    checkpoint = trio.from_thread.check_cancelled
    prepare_database(engine, watch, migrate=migrate, checkpoint=checkpoint)
    try:
        connected = watch.connected(engine, ANSWER_WITHIN)
        with connected as connection, databases.of(engine).begin(connection):
            observe(clock, connection)
            return Place(connection)
    except sa.exc.SQLAlchemyError as error:
        raise translate(error, f"opening {shown(engine.url)}", writing=False) from error
