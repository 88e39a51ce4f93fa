"""Checks that all stores share: arguments of queries, and that a run's journal has no gap."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, overload

from blazen_trio._definitions.names import name_fault
from blazen_trio._state.status import RunStatus
from blazen_trio._stores.driver import KeyUsedError
from blazen_trio.errors import (
    RunExistsError,
    RunFinishedError,
    RunLockedError,
    RunNotFoundError,
    StaleRunError,
    StoreError,
)

if TYPE_CHECKING:
    from blazen_trio._clock import Utc
    from blazen_trio._stores.protocol import Commit

__all__ = [
    "ALL",
    "ENDED",
    "check_driver",
    "check_id",
    "check_limit",
    "cutoff",
    "exists",
    "finished",
    "following",
    "in_ascii",
    "in_use",
    "key_used",
    "mail_gone",
    "not_driven",
    "not_found",
    "parse_statuses",
    "storable",
]

_ERROR_BYTES: Final = 60_000
"""At most this many bytes of an error's text are stored in a run's row."""

ALL = tuple(RunStatus)
ENDED = tuple(status for status in ALL if status.ended)


def parse_status(status: RunStatus | str) -> RunStatus:
    """Return the status of this name.

    Raises:
        ValueError: No status has this name.
    """
    try:
        return RunStatus(status)
    except ValueError:
        known = ", ".join(repr(each.value) for each in RunStatus)
        msg = f"status={status!r} is not a run status; expected one of {known}"
        raise ValueError(msg) from None


def parse_statuses(
    statuses: RunStatus | str | Iterable[RunStatus | str] | None, default: tuple[RunStatus, ...]
) -> tuple[RunStatus, ...]:
    """Return the given status or statuses as a tuple; for `None`, the default.

    Raises:
        ValueError: One of them is not a status.
    """
    if statuses is None:
        return default
    if isinstance(statuses, str) or not isinstance(statuses, Iterable):
        return (parse_status(statuses),)
    return tuple(dict.fromkeys(parse_status(status) for status in statuses))


def check_limit(limit: int) -> None:
    """Refuse an invalid page size.

    Raises:
        ValueError: `limit` is not a whole number of at least 1.
    """
    if type(limit) is not int or limit < 1:
        msg = f"limit={limit!r:.80}: expected a whole number of at least 1"
        raise ValueError(msg)


def cutoff(older_than: dt.timedelta | dt.datetime, clock: Utc) -> float:
    """Return the instant meant by an age or an instant: UTC, seconds since the epoch.

    Args:
        older_than: The age or the instant.
        clock: The clock by which runs are dated. The host's may be wrong.

    Raises:
        TypeError: The argument is neither.
        ValueError: The instant has no time zone.
    """
    if isinstance(older_than, dt.timedelta):
        return clock.now() - older_than.total_seconds()
    if not isinstance(older_than, dt.datetime):
        msg = (  # type: ignore[unreachable]
            f"older_than={older_than!r:.80}: expected an age (timedelta) or an instant (datetime "
            "with a time zone)"
        )
        raise TypeError(msg)
    if older_than.tzinfo is None:
        msg = (
            "older_than= is a datetime without a time zone; pass one with a time zone, e.g. "
            "datetime.now(timezone.utc)"
        )
        raise ValueError(msg)
    return older_than.timestamp()


def check_id(name: str, value: object) -> None:
    """Check that a value can name a run, or an event sent to one, in every database.

    Raises:
        ValueError: It can't.
    """
    if fault := name_fault(value):
        msg = f"{name}={value!r:.80}: {fault}"
        raise ValueError(msg)


def following(commit: Commit, stored: int | None) -> int | None:
    """Return the number of the run's last entry once the commit is stored after entry `stored`.

    Raises:
        StaleRunError: The store already has these entries: another driver wrote them.
        StoreError: Entries are missing in between.
    """
    entries = commit.entries
    if entries:
        first = entries[0][0]
        if (
            len(entries) == 1
            and commit.snapshot is None
            and stored is not None
            and first == stored + 1
        ):
            return first  # nearly every commit is of this kind
        if stored is not None and first <= stored:
            raise StaleRunError(
                f"run {commit.run_id!r}: entry {first} is already stored (the last one is "
                f"{stored}), so another process drives this run. Resume it with resume_from",
                run_id=commit.run_id,
            )
        expected = first if stored is None else stored + 1
        for seq, _ in commit.entries:
            if seq != expected:
                raise StoreError(
                    f"run {commit.run_id!r}: expected entry {expected}, got entry {seq}; entries "
                    "must be stored in order and without gaps",
                    run_id=commit.run_id,
                )
            expected += 1
        stored = expected - 1
    if commit.snapshot is not None:
        stored = commit.snapshot.seq if stored is None else max(stored, commit.snapshot.seq)
    return stored


def key_used(run_id: str, key: str) -> KeyUsedError:
    """Return the error for a message whose second key was used before."""
    msg = f"a message with the key {key!r} was posted to run {run_id!r} before"
    return KeyUsedError(msg, run_id=run_id)


def not_found(run_id: str) -> RunNotFoundError:
    """Return the error for a run that does not exist."""
    return RunNotFoundError(
        f"run {run_id!r} not found; list_runs() shows the stored runs", run_id=run_id
    )


def exists(run_id: str) -> RunExistsError:
    """Return the error for a run that already exists."""
    return RunExistsError(
        f"run {run_id!r} already exists; resume it with resume_from, or choose another run_id",
        run_id=run_id,
    )


def finished(run_id: str, status: RunStatus) -> RunFinishedError:
    """Return the error for a message to a run that has ended."""
    return RunFinishedError.ended(run_id, status, "it accepts no more events")


def in_use(run_id: str, owner: str) -> RunLockedError:
    """Return the error for a run that has a live driver."""
    return RunLockedError(
        f"run {run_id!r} is already driven by {owner}; try again when that driver has released it "
        "or is known to be dead",
        run_id=run_id,
        owner=owner,
    )


def not_driven(run_id: str) -> StaleRunError:
    """Return the error for a write to a run that we don't drive."""
    return StaleRunError(
        f"this store does not drive run {run_id!r}, so nothing was written to it: the run was "
        "released, or another process took it over. Resume it with resume_from",
        run_id=run_id,
    )


def check_driver(run_id: str, failure: Exception | None) -> None:
    """Refuse a write of a driver that has lost its run, or that would leave a gap in the journal.

    Args:
        run_id: The run.
        failure: Why the driver may write nothing more; `None`: it may.

    Raises:
        StaleRunError: The driver no longer drives the run.
        StoreError: An earlier commit could not be written.
    """
    if isinstance(failure, StoreError):
        raise StoreError(
            f"run {run_id!r}: an earlier commit could not be stored, so nothing after it is; "
            "resume the run by its id",
            run_id=run_id,
        ) from failure
    if failure is not None:
        raise not_driven(run_id) from failure


def mail_gone(run_id: str) -> StaleRunError:
    """Return the error for a commit that takes an inbox row that is gone."""
    return StaleRunError(
        f"run {run_id!r}: another driver took its inbox messages, so the commit that takes them "
        "was not stored. Resume the run with resume_from",
        run_id=run_id,
    )


@overload
def storable(text: str) -> str: ...


@overload
def storable(text: str | None) -> str | None: ...


def storable(text: str | None) -> str | None:
    """Return an error's text in a form that every database can store in a run's row.

    NUL and anything that is not Unicode is escaped; a long text is cut.
    """
    if text is None:
        return None
    data = text.encode("utf-8", "backslashreplace").replace(b"\0", b"\\x00")
    if len(data) > _ERROR_BYTES:
        data = data[:_ERROR_BYTES] + b" ..."
    return data.decode("utf-8", "ignore")


@overload
def in_ascii(text: str) -> str: ...


@overload
def in_ascii(text: str | None) -> str | None: ...


def in_ascii(text: str | None) -> str | None:
    """Return the text with all non-ASCII characters escaped."""
    return None if text is None else text.encode("ascii", "backslashreplace").decode()
