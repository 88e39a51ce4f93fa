"""What every store checks alike: arguments of queries, and that a run's journal has no gap."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, overload

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
    from blazen_trio._stores.protocol import Commit

__all__ = [
    "ALL",
    "ENDED",
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
"""As much of an error's text as a run's row holds."""

ALL = tuple(RunStatus)
ENDED = tuple(status for status in ALL if status.ended)


def parse_status(status: RunStatus | str) -> RunStatus:
    """The status of this name.

    Raises:
        ValueError: There is none.
    """
    try:
        return RunStatus(status)
    except ValueError:
        known = ", ".join(repr(each.value) for each in RunStatus)
        msg = f"status={status!r} is no status of a run; the statuses are {known}"
        raise ValueError(msg) from None


def parse_statuses(
    statuses: RunStatus | str | Iterable[RunStatus | str] | None, default: tuple[RunStatus, ...]
) -> tuple[RunStatus, ...]:
    """These statuses, of which there may be one; by default those.

    Raises:
        ValueError: One is none.
    """
    if statuses is None:
        return default
    if isinstance(statuses, str) or not isinstance(statuses, Iterable):
        return (parse_status(statuses),)
    return tuple(dict.fromkeys(parse_status(status) for status in statuses))


def check_limit(limit: int) -> None:
    """Refuse a page of no rows.

    Raises:
        ValueError: `limit` is less than 1.
    """
    if type(limit) is not int or limit < 1:
        msg = f"limit={limit!r:.80}: a page holds a whole number of runs, at least one"
        raise ValueError(msg)


def cutoff(older_than: dt.timedelta | dt.datetime) -> float:
    """The instant meant by an age or an instant: UTC, seconds since the epoch.

    Raises:
        ValueError: The instant has no time zone.
    """
    if isinstance(older_than, dt.timedelta):
        return time.time() - older_than.total_seconds()
    if not isinstance(older_than, dt.datetime):
        msg = (  # type: ignore[unreachable]
            f"older_than={older_than!r:.80}: an age (timedelta) or an instant (datetime with a "
            "time zone)"
        )
        raise TypeError(msg)
    if older_than.tzinfo is None:
        msg = (
            "older_than= is a datetime without a time zone; say which, e.g. "
            "datetime.now(timezone.utc)"
        )
        raise ValueError(msg)
    return older_than.timestamp()


def following(commit: Commit, stored: int | None) -> int | None:
    """The sequence number of the run's last entry once this is stored after the entry `stored`.

    Raises:
        StaleRunError: The store has these entries already: somebody else wrote them.
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
            return first  # what nearly every commit is
        if stored is not None and first <= stored:
            raise StaleRunError(
                f"run {commit.run_id!r}: entry {first} is stored already (the last one is "
                f"{stored}); somebody else went on with this run. Take it up from the store with resume_from",
                run_id=commit.run_id,
            )
        expected = first if stored is None else stored + 1
        for seq, _ in commit.entries:
            if seq != expected:
                raise StoreError(
                    f"run {commit.run_id!r}: entry {seq} was to be stored where entry {expected} "
                    "belongs; entries are stored in order and without a gap",
                    run_id=commit.run_id,
                )
            expected += 1
        stored = expected - 1
    if commit.snapshot is not None:
        stored = commit.snapshot.seq if stored is None else max(stored, commit.snapshot.seq)
    return stored


def key_used(run_id: str, key: str) -> KeyUsedError:
    """The refusal of a row whose second key was used before."""
    msg = f"something with the key {key!r} was posted to run {run_id!r} before"
    return KeyUsedError(msg, run_id=run_id)


def not_found(run_id: str) -> RunNotFoundError:
    """There is no such run."""
    return RunNotFoundError(
        f"the store has no run {run_id!r}; list_runs() tells which it has", run_id=run_id
    )


def exists(run_id: str) -> RunExistsError:
    """There is such a run already."""
    return RunExistsError(
        f"the store has a run {run_id!r} already; go on with it by resume_from, or choose "
        "another run_id",
        run_id=run_id,
    )


def finished(run_id: str, status: RunStatus) -> RunFinishedError:
    """It has ended, so nothing can be sent to it."""
    return RunFinishedError(
        f"run {run_id!r} has ended ({status.value}): nothing can be sent to it any more",
        run_id=run_id,
        status=status,
    )


def in_use(run_id: str, owner: str) -> RunLockedError:
    """Somebody drives it."""
    return RunLockedError(
        f"run {run_id!r} is being driven by {owner}; it can be taken up once that has ended, "
        "or is known to be dead",
        run_id=run_id,
        owner=owner,
    )


def not_driven(run_id: str) -> StaleRunError:
    """We don't drive it, so we must not write to it."""
    return StaleRunError(
        f"this store does not drive run {run_id!r} (any more), so nothing was written to it: the "
        "run was given back, or another process took it over. Take it up again with resume_from",
        run_id=run_id,
    )


def mail_gone(run_id: str) -> StaleRunError:
    """A row of its inbox is not there any more."""
    return StaleRunError(
        f"run {run_id!r}: its mail was taken by another, so the commit that was to take it was "
        "not stored. Take the run up again with resume_from",
        run_id=run_id,
    )


@overload
def storable(text: str) -> str: ...


@overload
def storable(text: str | None) -> str | None: ...


def storable(text: str | None) -> str | None:
    """The text of an error as every database can store it in a run's row: what is not Unicode, and
    NUL, told by escapes; of a long one the beginning.
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
    """The text with escapes for all letters but ASCII's."""
    return None if text is None else text.encode("ascii", "backslashreplace").decode()
