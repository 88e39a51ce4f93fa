"""Checks of a store's promises about inboxes: each message is delivered once, and taken once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from blazen_trio._stores.driver import KeyUsedError
from blazen_trio._stores.protocol import Commit
from blazen_trio.errors import StaleRunError
from blazen_trio.testing.promises import (
    Heard,
    drive,
    driver_of,
    expect,
    expect_error,
    journal,
    start,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blazen_trio._stores.driver import Mail
    from blazen_trio._stores.protocol import CheckpointStore

__all__ = ["CHECKS", "CHECKS_OF_TWO"]

_PATIENCE = 10.0
"""Seconds to wait for inbox messages that have to arrive within one second."""


def _ids(mail: Sequence[Mail | None]) -> list[int]:
    return [each.id for each in mail if each is not None]


async def _heard(heard: Heard, count: int) -> list[int]:
    """Wait for this many messages, and return their ids."""
    await trio.lowlevel.checkpoint()
    with trio.move_on_after(_PATIENCE):  # noqa: ASYNC912  # no wait if the messages are there
        while len(heard.mail) < count:  # noqa: ASYNC110  # the listener has no event to wait for
            await trio.sleep(0.01)
    return _ids(heard.mail)


async def _check_two_keys(store: CheckpointStore) -> None:
    await start(store)
    both = await store.post("run", "event", b"6", key="a", second_key="b")
    expect("a row may have two keys", both is not None and both.key, "a")
    for key in ("a", "b"):
        told = await store.post("run", "event", b"7", key=key, second_key="c")
        expect("each of two keys is accepted once", told, None)
    await expect_error(
        "a used second key refuses the row",
        KeyUsedError,
        store.post("run", "event", b"8", key="d", second_key="b"),
    )
    free = await store.post("run", "event", b"9", key="d", second_key="c")
    expect("the first key of a refused row stays unused", free is not None and free.key, "d")


async def _check_own_post(store: CheckpointStore) -> None:
    driver = await start(store)
    early = await store.post("run", "event", b"early")
    heard = Heard(driver)
    expect("messages that came before the driver had a listener are delivered", heard.mail, [early])
    late = await store.post("run", "event", b"late", key="k")
    expect(
        "post delivers to a driver of the same opening before it returns", heard.mail, [early, late]
    )
    await store.post("run", "event", b"again", key="k")
    for _ in range(2):
        await store.poll(["shop"])
    expect("each row is delivered once", heard.mail, [early, late])
    await store.commit(driver, Commit("run", entries=[(2, b"took")], taken=_ids([early])))
    await store.poll(["shop"])
    expect("a row that was taken is not delivered again", heard.mail, [early, late])
    driver.listen(None)
    third = await store.post("run", "event", b"third")
    expect("a removed listener gets no more messages", heard.mail, [early, late])
    second = Heard(driver)
    await _heard(second, 1)
    expect("the next listener gets the messages that came in between", second.mail, [third])


async def _check_left(store: CheckpointStore) -> None:
    driver = await start(store)
    heard = Heard(driver)
    first, second = [await store.post("run", "event", data) for data in (b"1", b"2")]
    await store.commit(driver, Commit("run", entries=[(2, b"x")], taken=_ids([first])))
    await store.release(driver)
    third = await store.post("run", "event", b"3")
    expect("a driver that has released its run gets no more messages", heard.mail, [first, second])
    claimed = await store.claim("run")
    expect(
        "messages that were not taken are there for the next driver",
        list(claimed.inbox),
        [second, third],
    )
    again = Heard(driver_of(claimed))
    await store.poll([])
    expect("messages that a claim returns are not delivered again", again.mail, [])
    gone = Commit("run", entries=[(3, b"y")], taken=_ids([first, second]))
    await expect_error("a row is taken once", StaleRunError, store.commit(driver_of(claimed), gone))
    stored = await store.load("run")
    expect(
        "a commit that takes a missing row is refused as a whole",
        (journal(stored)[-1][0], list(stored.inbox)),
        (2, [second, third]),
    )
    expect(
        "the driver of a refused commit is notified of the reason",
        [*map(type, again.lost)],
        [StaleRunError],
    )


async def _check_taken_once(store: CheckpointStore) -> None:  # noqa: ASYNC910
    """Check commits of several runs at once, of which one takes a message that is gone."""
    drivers = {run_id: await start(store, run_id) for run_id in ("a", "b", "c")}
    mail = {run_id: await store.post(run_id, "event", b"") for run_id in drivers}
    gone = await store.post("b", "event", b"")
    await store.commit(drivers["b"], Commit("b", entries=[(2, b"took")], taken=_ids([gone])))
    refused: list[str] = []

    async def take(run_id: str, seq: int) -> None:  # noqa: ASYNC910  # the store suspends
        taken = _ids([mail[run_id], *([gone] if run_id == "b" else [])])
        try:
            await store.commit(drivers[run_id], Commit(run_id, entries=[(seq, b"x")], taken=taken))
        except StaleRunError:
            refused.append(run_id)

    async with trio.open_nursery() as nursery:
        for run_id in drivers:
            nursery.start_soon(take, run_id, 3 if run_id == "b" else 2)
    expect("only the commit that takes a missing row is refused", refused, ["b"])
    left = {run_id: len((await store.load(run_id)).inbox) for run_id in drivers}
    expect("the other commits of the batch take their rows", left, {"a": 0, "b": 1, "c": 0})
    twice = Commit("c", entries=[(3, b"x")], taken=[1, 1])
    await expect_error(
        "no row is taken twice by one commit", StaleRunError, store.commit(drivers["c"], twice)
    )


async def _check_flood(store: CheckpointStore) -> None:
    await start(store, release=True)
    posted = _ids([await store.post("run", "event", b"%d" % n) for n in range(100)])
    claimed = await store.claim("run")
    first = _ids(claimed.inbox)
    expect("a claim returns the first of the run's messages", first, posted[: len(first)])
    expect("a claim returns at least one message if there are any", bool(first), True)
    heard = Heard(driver_of(claimed))
    rest = await _heard(heard, 100 - len(first))
    expect("the driver gets the other messages, in order", first + rest, posted)
    await store.commit(driver_of(claimed), Commit("run", entries=[(2, b"x")], taken=posted))
    await store.poll([])
    expect(
        "all messages can be taken, once",
        (len(heard.mail), list((await store.load("run")).inbox)),
        (len(rest), []),
    )


async def _check_afar(store: CheckpointStore, other: CheckpointStore) -> None:
    driver = await start(store)
    heard = Heard(driver)
    first = await other.post("run", "event", b"1")
    expect(
        "messages from other openings are delivered without a poll",
        await _heard(heard, 1),
        _ids([first]),
    )
    second = await other.post("run", "event", b"2")
    await store.poll([])
    expect("a poll delivers messages that were posted before it", heard.mail, [first, second])
    idle = await start(other, "idle")
    elsewhere = Heard(idle)
    await other.poll([])
    expect("messages are delivered only to the driver of their run", elsewhere.mail, [])
    await store.commit(driver, Commit("run", entries=[(2, b"x")], taken=_ids([first])))
    await store.release(driver)
    theirs = await other.claim("run")
    expect("messages that were taken are gone for the next driver", list(theirs.inbox), [second])
    taking = Commit("run", entries=[(3, b"y")], taken=_ids([second]))
    await other.commit(driver_of(theirs), taking)
    await other.release(driver_of(theirs))
    last = Heard(await drive(store))
    await store.poll([])
    expect("messages that another opening has taken are not delivered", last.mail, [])


CHECKS = (_check_own_post, _check_two_keys, _check_left, _check_taken_once, _check_flood)
CHECKS_OF_TWO = (_check_afar,)
