"""The exit codes, and their mapping from errors."""

from __future__ import annotations

import errno
import logging
import traceback
from typing import IO, TYPE_CHECKING, Any, Final

import click

from blazen_trio import (
    IncompatibleRunError,
    InputResponseError,
    NoHandlerError,
    RunExistsError,
    RunFinishedError,
    RunLockedError,
    RunNotFoundError,
    RunStatus,
    SchemaError,
    SerializationError,
    StaleRunError,
    StoreError,
    WorkflowError,
)
from blazen_trio._cli.output import make_handler, say

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "CONFIG",
    "DATAERR",
    "EXIT_CODES",
    "NOINPUT",
    "REFUSED",
    "RUN_EXIT_CODES",
    "SOFTWARE",
    "STATUS_CODES",
    "TEMPFAIL",
    "USAGE",
    "ConfigError",
    "DataError",
    "DatabaseFailedError",
    "NotThereError",
    "RefusedError",
    "Trouble",
    "UnexpectedError",
    "after_signal",
    "trouble",
]

USAGE: Final = 2
DATAERR: Final = 65
NOINPUT: Final = 66
REFUSED: Final = 69
SOFTWARE: Final = 70
TEMPFAIL: Final = 75
CONFIG: Final = 78

EXIT_CODES = f"""\b
Exit codes:
  0      done; a worker: drained after the first signal
  {USAGE}      the command line is wrong
  {SOFTWARE}     an unexpected error, with its traceback: a bug
  {TEMPFAIL}     the database failed or can't be reached: start it again
  {CONFIG}     a workflow, the URL or the schema is wrong: starting it again won't help
  128+N  ended by a second signal of number N (130 SIGINT, 143 SIGTERM)
"""

STATUS_CODES: Final = {
    RunStatus.COMPLETED: 0,
    RunStatus.FAILED: 1,
    RunStatus.TIMED_OUT: 3,
    RunStatus.CANCELLED: 4,
    RunStatus.WAITING: 5,
    RunStatus.PAUSED: 6,
}
"""The exit codes by which `runs watch` and `runs resume` report a run's status."""

RUN_EXIT_CODES = f"""\b
Exit codes:
  0      done; watch, resume: the run has completed
  1      watch, resume: the run has failed; delete, purge: you declined
  {USAGE}      the command line is wrong
  3, 4   watch, resume: the run has timed out, was cancelled
  5, 6   resume: the run waits, is paused
  {DATAERR}     a value, an event or a snapshot can't be read or stored
  {NOINPUT}     there is no such run, or no such file
  {REFUSED}     the run does not allow it: it already exists, is driven, has ended,
         has no such open question, or does not fit the workflow
  {SOFTWARE}     an unexpected error, with its traceback: a bug
  {TEMPFAIL}     the database failed or can't be reached: try it again
  {CONFIG}     a workflow, the URL or the schema is wrong
  130    interrupted
"""


class Trouble(click.ClickException):
    """An error that ends a command with one message on stderr and an exit code.

    The message is JSON if the command was run with `--json`.

    Args:
        message: The problem, and what to do.
        details: A traceback, for unexpected errors.
    """

    def __init__(self, message: str, details: str | None = None) -> None:
        super().__init__(message)
        self._details = details
        # It is shown after the command's context has been left.
        context = click.get_current_context(silent=True)
        self._params: dict[str, Any] = {} if context is None else context.params

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the message."""
        as_json, url = bool(self._params.get("as_json")), self._params.get("db")
        handler = make_handler(as_json=as_json, url=url, stream=file)
        fields = {"exit_code": self.exit_code}
        say(
            handler,
            "error",
            self.message,
            level=logging.ERROR,
            fields=fields,
            details=self._details,
        )


class ConfigError(Trouble):
    """A wrong workflow, URL or schema: starting the command again won't help.

    The message says what to change.
    """

    exit_code = CONFIG


class DatabaseFailedError(Trouble):
    """A failed or unreachable database, or a full disk for the output, which may pass."""

    exit_code = TEMPFAIL


class DataError(Trouble):
    """Input that can't be read or stored."""

    exit_code = DATAERR


class NotThereError(Trouble):
    """A run or a file that does not exist."""

    exit_code = NOINPUT


class RefusedError(Trouble):
    """An action that the run's current state does not allow."""

    exit_code = REFUSED


class UnexpectedError(Trouble):
    """A bug."""

    exit_code = SOFTWARE


def after_signal(number: int) -> int:
    """Return the exit code that shells report for a process ended by a signal."""
    return 128 + number


def trouble(error: BaseException) -> Trouble:
    """Return the error that ends a command, for an exception."""
    leaves = list(_leaves(error))
    if all(isinstance(leaf, StoreError) for leaf in leaves):
        error = leaves[0]
    if isinstance(error, SchemaError):
        return ConfigError(str(error))
    if isinstance(error, StoreError):
        # A driver that is not installed will not be there the next time either.
        kind = ConfigError if isinstance(error.__cause__, ImportError) else DatabaseFailedError
        return kind(str(error))
    if isinstance(error, WorkflowError) and (expected := _kind_of(error)) is not None:
        return expected(_told(error))
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return DatabaseFailedError(f"the output can't be written: {error.strerror}")
    details = "".join(traceback.format_exception(error))
    return UnexpectedError(
        f"unexpected {type(error).__name__}: {error} (this is a bug; please report it)", details
    )


_REFUSALS = (
    IncompatibleRunError,
    InputResponseError,
    NoHandlerError,
    RunExistsError,
    RunFinishedError,
    RunLockedError,
    StaleRunError,
)


def _kind_of(error: WorkflowError) -> type[Trouble] | None:
    """Return the class for an expected error of an action on a run; `None`: it is unexpected."""
    if isinstance(error, RunNotFoundError):
        return NotThereError
    if isinstance(error, SerializationError):
        return DataError
    return RefusedError if isinstance(error, _REFUSALS) else None


def _told(error: WorkflowError) -> str:
    """Return the message, in terms of the command line instead of the library."""
    if isinstance(error, RunNotFoundError):
        return f"run {error.run_id!r} not found; `blazen-trio runs list` shows the stored runs"
    if isinstance(error, RunExistsError):
        return f"run {error.run_id!r} already exists; choose another id with --run-id"
    return str(error)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
