"""Assertions about a store's promises. If one fails, the `AssertionError` names the promise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blazen_trio._state.status import RunStatus
from blazen_trio._stores.driver import Driver
from blazen_trio._stores.protocol import Commit, NewRun

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from blazen_trio._stores.driver import Mail
    from blazen_trio._stores.protocol import CheckpointStore, StoredRun

__all__ = ["NOW", "Heard", "drive", "driver_of", "expect", "expect_error", "journal", "start"]

NOW = 1_700_000_000.0
_BROKEN = "the store breaks a promise"


def expect(promise: str, found: object, expected: object) -> None:
    """Assert that the store keeps a promise.

    Raises:
        AssertionError: `found` is not equal to `expected`.
    """
    if found != expected:
        msg = f"{_BROKEN}: {promise}; expected {expected!r}, found {found!r}"
        raise AssertionError(msg)


async def expect_error(promise: str, kind: type[Exception], call: Awaitable[Any]) -> None:
    """Assert that the store keeps a promise by raising an error of this kind.

    Raises:
        AssertionError: The call returns, or raises another error.
    """
    try:
        found = await call
    except kind:
        return  # noqa: ASYNC910  # an error need not be a checkpoint
    except Exception as error:
        msg = f"{_BROKEN}: {promise}; expected a {kind.__name__}, but {error!r} was raised"
        raise AssertionError(msg) from error
    msg = f"{_BROKEN}: {promise}; expected a {kind.__name__}, but {found!r} was returned"
    raise AssertionError(msg)


async def start(  # noqa: ASYNC910  # the store suspends
    store: CheckpointStore, run_id: str = "run", created: float = NOW, **more: Any
) -> Driver:
    """Create a run, and return its driver; one that drives nothing if the run is released."""
    given = {"status": RunStatus.RUNNING, "at": created, "entries": [(1, b"first")], **more}
    driver = await store.create(NewRun("shop", "1", created), Commit(run_id, **given))
    expect(
        "create returns a driver unless the first commit releases the run",
        driver is None,
        "release" in more,
    )
    return Driver(run_id) if driver is None else driver


async def drive(store: CheckpointStore, run_id: str = "run") -> Driver:  # noqa: ASYNC910
    """Claim a run, and return its driver."""
    return driver_of(await store.claim(run_id))


def driver_of(stored: StoredRun) -> Driver:
    """Return the driver of a run that was claimed or taken."""
    expect("claiming or taking a run returns its driver", stored.driver is not None, True)
    assert stored.driver is not None
    expect("a driver names its run", stored.driver.run_id, stored.info.run_id)
    return stored.driver


class Heard:
    """A listener of a driver that records its calls.

    Attributes:
        mail: All inbox messages, in the order of their arrival.
        lost: The reasons of all reported losses of the run.
    """

    def __init__(self, driver: Driver) -> None:
        self.mail: list[Mail] = []
        self.lost: list[Exception] = []
        driver.listen(self)

    def mail_came(self, mail: Sequence[Mail]) -> None:
        """See `DriverListener.mail_came`."""
        self.mail += mail

    def driver_lost(self, error: Exception) -> None:
        """See `DriverListener.driver_lost`."""
        self.lost.append(error)


def journal(stored: StoredRun) -> list[tuple[int, bytes]]:
    """Return the entries of a run, by number."""
    return [(seq, bytes(data)) for seq, data in stored.entries]
