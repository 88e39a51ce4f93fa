"""Interrupt a scenario by Ctrl-C at each line of the package, one line per attempt.

Each attempt is a separate process. It counts the lines of `blazen_trio` that the main thread
reaches, raises SIGINT at one of them, as a Ctrl-C there would, and reports the outcome. The program
has to end with a KeyboardInterrupt and nothing else, and everything acknowledged before is on disk.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import trio

import blazen_trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

PACKAGE = str(Path(blazen_trio.__file__).parent)


@attrs.frozen
class Scenario:
    """A program to be interrupted.

    Attributes:
        main: The program. Its arguments are an empty folder and a function that records an
            acknowledgement.
        check: Raises if something acknowledged is not in the folder. Called after each attempt,
            whatever its outcome.
        prepare: Called once before the attempts, to import modules that are imported late.
        grouped: Whether `main` has its own nurseries, which wrap the KeyboardInterrupt in a group.
    """

    main: Callable[[Path, Callable[[str], None]], Awaitable[None]]
    check: Callable[[Path, list[str]], None]
    prepare: Callable[[], None] = lambda: None
    grouped: bool = False


@attrs.frozen
class Attempt:
    """The end of an interrupted scenario.

    Attributes:
        at: The number of the interrupted line, counted from 1.
        line: The line, as "file:number"; `None`: the scenario ended before.
        fault: The fault that was found, if any.
    """

    at: int
    line: str | None
    fault: str | None


def sweep(
    scenario: Scenario,
    *,
    first: int = 1,
    every: int = 1,
    patience: float = 30.0,
) -> Iterator[Attempt]:
    """Interrupt a scenario at each `every`-th line from the `first` on, up to its last.

    Args:
        scenario: The scenario to interrupt.
        first: The first line.
        every: The distance to the next.
        patience: The number of seconds after which an attempt counts as hung, and is killed.
    """
    scenario.prepare()
    at = first
    while True:
        attempt = _attempt(scenario, at, patience)
        if attempt.line is not None or attempt.fault is not None:
            yield attempt
        if attempt.line is None:
            return
        at += every


def _attempt(scenario: Scenario, at: int, patience: float) -> Attempt:
    folder = Path(tempfile.mkdtemp(prefix="interrupts"))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            report = _run(scenario, at, folder)
        except BaseException:  # noqa: ASYNC103  # reported to the parent
            report = (None, traceback.format_exc())
        os.write(writing, json.dumps(report).encode())
        os._exit(0)
    os.close(writing)
    try:
        return _outcome(child, reading, at, patience)
    finally:
        os.close(reading)
        shutil.rmtree(folder, ignore_errors=True)


def _outcome(child: int, reading: int, at: int, patience: float) -> Attempt:
    report = b""
    until = time.monotonic() + patience
    while select.select([reading], [], [], max(0.0, until - time.monotonic()))[0]:
        part = os.read(reading, 65536)
        if not part:
            break
        report += part
    else:
        os.kill(child, signal.SIGABRT)  # it prints its threads' stacks
    os.waitpid(child, 0)
    try:
        line, fault = json.loads(report)
    except ValueError:
        line, fault = "", "it hung, or was killed: see its output"
    return Attempt(at, line, fault)


def _run(scenario: Scenario, at: int, folder: Path) -> tuple[str | None, str | None]:
    """Run a scenario in this process; return the interrupted line and the fault, if any."""
    faulthandler.enable()
    unraisable: list[str] = []
    sys.unraisablehook = lambda given: unraisable.append(repr(given.exc_value or given.err_msg))
    acknowledged: list[str] = []
    interrupt = _Interrupt(at)
    ended: BaseException | None = None
    sys.settrace(interrupt.trace)
    try:
        trio.run(scenario.main, folder, acknowledged.append)
    except BaseException as error:  # noqa: ASYNC103  # judged below
        ended = error
    finally:
        sys.settrace(None)
    fault = _judge(scenario, interrupt.line, ended)
    ended = None
    gc.collect()
    if fault is None and unraisable:
        fault = f"unraisable: {unraisable}"
    if fault is None:
        try:
            scenario.check(folder, acknowledged)
        except Exception as error:  # reported
            fault = _formatted(error)
    return interrupt.line, fault


def _judge(scenario: Scenario, line: str | None, ended: BaseException | None) -> str | None:
    if line is None:
        return None if ended is None else f"not interrupted: {_formatted(ended)}"
    if ended is None:
        return "the interrupt was lost"
    leaves = list(_leaves(ended)) if scenario.grouped else [ended]
    if all(type(leaf) is KeyboardInterrupt for leaf in leaves):
        return None
    return _formatted(ended)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _formatted(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


class _Interrupt:
    """A tracer that counts lines of the package and raises SIGINT at one of them."""

    def __init__(self, at: int) -> None:
        self._left = at
        self.line: str | None = None

    def trace(self, frame: Any, _event: str, _argument: Any) -> Any:
        return self._trace_line if frame.f_code.co_filename.startswith(PACKAGE) else None

    def _trace_line(self, frame: Any, event: str, _argument: Any) -> Any:
        if event == "line" and self.line is None:
            self._left -= 1
            if self._left == 0:
                file = frame.f_code.co_filename.removeprefix(PACKAGE)
                self.line = f"{file}:{frame.f_lineno}"
                signal.raise_signal(signal.SIGINT)
        return self._trace_line
