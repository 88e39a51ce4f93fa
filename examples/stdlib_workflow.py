"""The workflow: a step lists the files, a fan-out measures them in threads, a fan-in reports."""

from __future__ import annotations

import ast
import os
import sysconfig
from collections import Counter
from pathlib import Path

import attrs

from blazen_trio import Context, Event, StartEvent, StopEvent, Workflow, step

SKIPPED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "__pycache__"}
LARGEST_KEPT = 10


@attrs.frozen(kw_only=True)
class Survey(StartEvent):
    """The folder to survey, and how many files to take at most, spread evenly over all of them."""

    root: str
    files: int


@attrs.frozen
class Source(Event):
    """A file to measure. Its path is relative to the root."""

    root: str
    path: str


@attrs.frozen
class Found(Event):
    """A published event with the number of files to measure, for observers of the run."""

    count: int


@attrs.frozen
class Function:
    """A function and its length."""

    lines: int
    name: str
    path: str


@attrs.frozen
class Measured(Event):
    """The contents of one file, in numbers."""

    path: str
    lines: int = 0
    functions: int = 0
    classes: int = 0
    largest: list[Function] = attrs.field(factory=list)
    imports: list[str] = attrs.field(factory=list)
    problem: str | None = None


@attrs.frozen(kw_only=True)
class Report(StopEvent):
    """The run's result: totals, the largest functions, and the modules that most files import."""

    files: int
    lines: int
    functions: int
    classes: int
    largest: list[Function]
    most_imported: dict[str, int]
    unreadable: list[str]


def leave_trace(ctx: Context, subject: str) -> None:
    """Append a line to the side log, if there is one. A killed step leaves nothing else behind.

    The demonstration uses it to count the steps that ran twice: they have the same idempotency key.
    """
    if log := ctx.metadata.get("log"):
        line = f"{ctx.step_name} {ctx.idempotency_key} {subject}\n"
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


@step
def list_files(ev: Survey, ctx: Context) -> list[Source]:
    """Fan out: one event per source file."""
    leave_trace(ctx, ev.root)
    found = []
    for folder, folders, names in os.walk(ev.root):
        folders[:] = sorted(set(folders) - SKIPPED_FOLDERS)
        found += [
            os.path.relpath(Path(folder, name), ev.root) for name in names if name.endswith(".py")
        ]
    found.sort()
    count = min(ev.files, len(found))
    chosen = [found[i * len(found) // count] for i in range(count)]
    ctx.set("total", count)
    ctx.publish(Found(count))
    return [Source(ev.root, path) for path in chosen]


@step(max_concurrency=4)
def measure(ev: Source, ctx: Context) -> Measured:
    """Parse one file. The step is not async, so it runs in a worker thread and may block."""
    leave_trace(ctx, ev.path)
    try:
        source = Path(ev.root, ev.path).read_bytes()
        tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError) as error:
        measured = Measured(ev.path, problem=f"{type(error).__name__}: {error}")
    else:
        measured = count_in(ev.path, source, tree)
    ctx.update("measured", lambda done: done + 1, default=0)
    ctx.publish(measured)
    return measured


def count_in(path: str, source: bytes, tree: ast.Module) -> Measured:
    """Count the contents of a parsed file."""
    functions: list[Function] = []
    imports: set[str] = set()
    classes = 0
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                functions.append(
                    Function((node.end_lineno or node.lineno) - node.lineno + 1, name, path)
                )
            case ast.ClassDef():
                classes += 1
            case ast.Import(names=names):
                imports.update(alias.name.partition(".")[0] for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                imports.add(module.partition(".")[0])
    return Measured(
        path,
        lines=source.count(b"\n"),
        functions=len(functions),
        classes=classes,
        largest=largest(functions),
        imports=sorted(imports),
    )


def largest(functions: list[Function]) -> list[Function]:
    """Return the longest functions, longest first."""
    return sorted(functions, key=lambda f: (-f.lines, f.path, f.name))[:LARGEST_KEPT]


@step
def report(found: list[Measured], ctx: Context) -> Report:
    """Fan in: run once, after all files were measured. The results are in the list's order."""
    leave_trace(ctx, "report")
    imported = Counter(module for one in found for module in one.imports)
    return Report(
        files=len(found),
        lines=sum(one.lines for one in found),
        functions=sum(one.functions for one in found),
        classes=sum(one.classes for one in found),
        largest=largest([function for one in found for function in one.largest]),
        most_imported=dict(
            sorted(imported.items(), key=lambda item: (-item[1], item[0]))[:LARGEST_KEPT]
        ),
        unreadable=[f"{one.path}: {one.problem}" for one in found if one.problem],
    )


stdlib_report = Workflow("stdlib_report", [list_files, measure, report], types=[Function])


def survey(files: int) -> Survey:
    """Return the input of a run over this Python's standard library."""
    return Survey(root=sysconfig.get_path("stdlib"), files=files)
